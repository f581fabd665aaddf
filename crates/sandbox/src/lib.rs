//! One machine as a cluster with pod identity.
