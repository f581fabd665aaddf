//! OCI images without a container engine: archives that containerd, Docker and Podman import.

pub(crate) mod archive;
mod tar;
