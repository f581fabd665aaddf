//! The commands against a whole cluster in process: the embedded API server with podid's kinds, and the controller.

mod azure;
mod pods;
mod wait;
mod world;
