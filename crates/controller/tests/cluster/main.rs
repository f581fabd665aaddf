//! The whole controller against the embedded API server, both in process, each test with a cluster of its own.

mod assignment;
mod drift;
mod profile;
mod startup;
mod world;
