//! The part of the Kubernetes API that podid and kubectl use.
