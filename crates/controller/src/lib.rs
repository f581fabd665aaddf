//! The cluster side: PodIdentityProfile to custom resources and assignments.
