//! One OCI image as one archive (image-spec v1.1): a layer, its configuration, a manifest and an index. The same
//! input gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::tar::Tar;

/// How the program in an image is started, and what the image says of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct ImageConfig {
    /// Full name with tag, e.g. `localhost/pause:1`
    pub(crate) name: String,
    /// OCI architecture, e.g. `amd64`
    pub(crate) architecture: String,
    /// Program and its fixed arguments
    pub(crate) entrypoint: Vec<String>,
    /// User by number; empty is root
    pub(crate) user: String,
    /// `NAME=value`
    pub(crate) env: Vec<String>,
    /// `org.opencontainers.image.*` and others
    pub(crate) labels: BTreeMap<String, String>,
}

/// What a layer holds at a path.
#[derive(Clone, Debug)]
enum Entry {
    Folder { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Link { target: String },
}

/// An image's only layer. Folders above a file come by themselves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layer {
    entries: BTreeMap<String, Entry>,
}

impl Layer {
    /// A file at `path` (absolute or not, all the same).
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: Vec<u8>) -> &mut Self {
        self.put(path, Entry::File { mode, content })
    }

    /// A symbolic link at `path`.
    pub(crate) fn link(&mut self, path: &str, target: &str) -> &mut Self {
        let target = target.to_owned();
        self.put(path, Entry::Link { target })
    }

    /// An empty folder at `path`.
    pub(crate) fn folder(&mut self, path: &str, mode: u32) -> &mut Self {
        self.put(path, Entry::Folder { mode })
    }

    fn put(&mut self, path: &str, entry: Entry) -> &mut Self {
        self.entries.insert(path.trim_matches('/').to_owned(), entry);
        self
    }

    fn tar(&self) -> anyhow::Result<Vec<u8>> {
        let mut tar = Tar::default();
        let mut made = BTreeSet::new();
        for (path, entry) in &self.entries {
            for (at, _) in path.match_indices('/') {
                let above = path.get(..at).unwrap_or_default();
                if !self.entries.contains_key(above) && made.insert(above.to_owned()) {
                    tar.folder(above, 0o755)?;
                }
            }
            match entry {
                Entry::Folder { mode } => tar.folder(path, *mode)?,
                Entry::File { mode, content } => tar.file(path, *mode, content)?,
                Entry::Link { target } => tar.link(path, target)?,
            }
        }
        Ok(tar.finish())
    }
}

/// The archive of an image with one layer.
pub(crate) fn archive(config: &ImageConfig, layer: &Layer) -> anyhow::Result<Vec<u8>> {
    let mut blobs = BTreeMap::new();
    let layer = layer.tar()?;
    let diff = digest(&layer);
    let layer = blob(&mut blobs, layer, "application/vnd.oci.image.layer.v1.tar");
    let document = json!({
        "architecture": config.architecture,
        "os": "linux",
        "config": {
            "User": config.user,
            "Env": config.env,
            "Entrypoint": config.entrypoint,
            "Labels": config.labels,
        },
        "rootfs": { "type": "layers", "diff_ids": [diff] },
    });
    let image = blob(
        &mut blobs,
        serde_json::to_vec(&document)?,
        "application/vnd.oci.image.config.v1+json",
    );
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": image,
        "layers": [layer],
        "annotations": config.labels,
    });
    let mut manifest = blob(&mut blobs, serde_json::to_vec(&manifest)?, manifest_type);
    let (_, tag) = config
        .name
        .rsplit_once(':')
        .with_context(|| format!("the image name {} has no tag", config.name))?;
    if let Some(object) = manifest.as_object_mut() {
        object.insert(
            "platform".to_owned(),
            json!({ "architecture": config.architecture, "os": "linux" }),
        );
        // containerd takes the first, others the second.
        let names = json!({
            "io.containerd.image.name": config.name,
            "org.opencontainers.image.ref.name": tag,
        });
        object.insert("annotations".to_owned(), names);
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });

    let mut tar = Tar::default();
    tar.folder("blobs", 0o755)?;
    tar.folder("blobs/sha256", 0o755)?;
    for (digest, bytes) in &blobs {
        tar.file(&format!("blobs/{}", digest.replace(':', "/")), 0o644, bytes)?;
    }
    tar.file("index.json", 0o644, &serde_json::to_vec(&index)?)?;
    tar.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(tar.finish())
}

/// Keeps the bytes and gives the descriptor by which others name them.
fn blob(blobs: &mut BTreeMap<String, Vec<u8>>, bytes: Vec<u8>, media_type: &str) -> Value {
    let digest = digest(&bytes);
    let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
    blobs.insert(digest, bytes);
    descriptor
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_image_is_the_same_bytes() {
        let config = ImageConfig {
            name: "localhost/x:1".to_owned(),
            architecture: "amd64".to_owned(),
            ..ImageConfig::default()
        };
        let mut one = Layer::default();
        one.file("/b/c", 0o755, b"c".to_vec()).link("/a", "b/c");
        let mut other = Layer::default();
        other.link("a", "b/c").file("b/c", 0o755, b"c".to_vec());
        assert_eq!(archive(&config, &one).unwrap(), archive(&config, &other).unwrap());
    }

    #[test]
    fn a_name_without_a_tag_is_refused() {
        let refused = archive(&ImageConfig::default(), &Layer::default()).unwrap_err();
        assert!(refused.to_string().contains("has no tag"), "{refused}");
    }
}
