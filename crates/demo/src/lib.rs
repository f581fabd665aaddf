//! The tutorial's sample workload.
