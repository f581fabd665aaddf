//! Which local program an image stands for. Nothing is ever pulled.

use crate::programs::Program;

/// The image of programs of this machine, which `run` uses.
pub(crate) const LOCAL: &str = "podid.dev/local";
/// The image of what the story's pods run.
pub(crate) const ASK: &str = "podid.dev/ask";
/// The tutorial's sample workload.
const DEMO: &str = "mcr.microsoft.com/oss/azure/aad-pod-identity/demo";
/// Names of an image whose programs a machine mostly has itself.
const BUSYBOX: [&str; 3] = ["busybox", "library/busybox", "docker.io/library/busybox"];

/// What an image stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Image {
    /// One of ours, which is what runs unless the container says otherwise.
    Ours(Program),
    /// Programs of this machine; the shell unless the container says otherwise.
    Machine,
}

/// No local program stands for an image.
#[derive(Debug, thiserror::Error)]
#[error(
    "the sandbox pulls no images and has no local program for {0:?}; it knows {DEMO}, busybox and {LOCAL} (with the \
     command of a program of this machine)"
)]
pub(crate) struct UnknownImage(String);

impl Image {
    /// What `image` stands for, whatever its tag or digest.
    pub(crate) fn find(image: &str) -> Result<Self, UnknownImage> {
        match repository(image) {
            DEMO => Ok(Self::Ours(Program::Demo)),
            ASK => Ok(Self::Ours(Program::Ask)),
            LOCAL => Ok(Self::Machine),
            other if BUSYBOX.contains(&other) => Ok(Self::Machine),
            _ => Err(UnknownImage(image.to_owned())),
        }
    }
}

/// An image's name without tag and digest; a colon before the last slash belongs to a port.
fn repository(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(name, _digest)| name);
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tutorials_image_is_our_demo_in_any_version() {
        for image in [
            "mcr.microsoft.com/oss/azure/aad-pod-identity/demo:v1.6.3",
            "mcr.microsoft.com/oss/azure/aad-pod-identity/demo",
            "mcr.microsoft.com/oss/azure/aad-pod-identity/demo@sha256:00",
        ] {
            assert_eq!(Image::find(image).unwrap(), Image::Ours(Program::Demo), "{image}");
        }
        assert_eq!(Image::find("busybox:1.36").unwrap(), Image::Machine);
    }

    #[test]
    fn a_look_alike_is_unknown_and_named() {
        for image in [
            "nginx",
            "localhost:5000/busybox:1",
            "mcr.microsoft.com/oss/azure/aad-pod-identity/demo/x",
            "evil/podid.dev/local",
        ] {
            let text = Image::find(image).unwrap_err().to_string();
            assert!(text.contains(image), "{text}");
        }
    }
}
