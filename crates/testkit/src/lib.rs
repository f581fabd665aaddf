//! Builders, waiting and golden files for tests.
