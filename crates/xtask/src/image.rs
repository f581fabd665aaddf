//! `cargo xtask image`: OCI images without a container engine, as archives that containerd, Docker and Podman import.
//! A static program, certificates of the public authorities, the list of what went in, and nothing else.

pub(crate) mod archive;
mod program;
mod sbom;
mod tar;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use self::archive::{ImageConfig, Layer, archive};
pub(crate) use self::program::Programs;
use crate::kube::tools::target_folder;
use crate::printer;

/// The authorities that public endpoints are checked against, where Debian, Alpine and others keep them.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Where programs look for them.
pub(crate) const AUTHORITIES_INSIDE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Where the list of what went in is.
const SBOM_INSIDE: &str = "/usr/share/podid/sbom.cdx.json";
/// An ordinary user without a name.
const NOBODY: &str = "65532:65532";

/// One image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Image {
    /// The last part of its name; also its program and its package
    pub(crate) name: &'static str,
    /// What it is, for its label
    pub(crate) title: &'static str,
    /// The user it runs as
    pub(crate) user: &'static str,
}

/// All that are shipped. The agent is root on its node: it routes and looks into network namespaces.
pub(crate) const IMAGES: [Image; 4] = [
    Image {
        name: "podid-nmi",
        title: "podid's node agent",
        user: "0:0",
    },
    Image {
        name: "podid-controller",
        title: "podid's cluster side",
        user: NOBODY,
    },
    Image {
        name: "podid-demo",
        title: "podid's sample workload",
        user: NOBODY,
    },
    Image {
        name: "podid-cli",
        title: "podid's command line",
        user: NOBODY,
    },
];

/// Flags of `cargo xtask image`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ImageArgs {
    /// Which images [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// What to build for
    #[arg(long, value_name = "TRIPLE", default_value_t = default_target())]
    target: String,
    /// Cargo's profile
    #[arg(long, default_value = "dist")]
    profile: String,
    /// What stands before the names: a registry and a path in it
    #[arg(long, default_value = "localhost")]
    repository: String,
    /// What stands behind them
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
    /// Folder for the archives [default: target/image]
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Builds the images and prints the archives' paths.
pub(crate) fn run(args: &ImageArgs) -> anyhow::Result<()> {
    let ImageArgs {
        names,
        target,
        profile,
        repository,
        tag,
        out,
    } = args;
    let chosen = choose(names)?;
    let out = match out {
        Some(out) => out.clone(),
        None => target_folder()?.join("image"),
    };
    fs::create_dir_all(&out).with_context(|| format!("make {}", out.display()))?;
    let programs = Programs::build(target, profile)?;
    for image in chosen {
        let (mut config, layer) = contents(&programs, image)?;
        config.name = format!("{repository}/{}:{tag}", image.name);
        let path = out.join(format!("{}-{tag}-{}.tar", image.name, config.architecture));
        write(&path, &config, &layer)?;
        printer::line(&path.display().to_string());
    }
    Ok(())
}

/// The image of a program as it is shipped, still without a name.
pub(crate) fn contents(programs: &Programs, image: Image) -> anyhow::Result<(ImageConfig, Layer)> {
    let mut layer = Layer::default();
    let program = programs.path(image.name)?;
    let inside = format!("/{}", program.file_name().unwrap_or_default().to_string_lossy());
    layer.file(&inside, 0o755, read(&program)?);
    layer.file(AUTHORITIES_INSIDE, 0o644, read(Path::new(AUTHORITIES))?);
    layer.file(SBOM_INSIDE, 0o644, programs.sbom(image.name)?);
    layer.folder("tmp", 0o1777);
    let label = |name: &str, value: &str| (format!("org.opencontainers.image.{name}"), value.to_owned());
    let config = ImageConfig {
        name: String::new(),
        architecture: programs.architecture()?.to_owned(),
        entrypoint: vec![inside],
        user: image.user.to_owned(),
        env: vec![format!("SSL_CERT_FILE={AUTHORITIES_INSIDE}")],
        labels: BTreeMap::from([
            label("title", image.title),
            label("version", env!("CARGO_PKG_VERSION")),
            label("licenses", "Apache-2.0"),
            label("vendor", "podid"),
            label("base.name", "scratch"),
            ("dev.podid.sbom".to_owned(), SBOM_INSIDE.to_owned()),
        ]),
    };
    Ok((config, layer))
}

/// Writes an archive; it appears only when it is complete.
pub(crate) fn write(path: &Path, config: &ImageConfig, layer: &Layer) -> anyhow::Result<()> {
    let unfinished = path.with_extension("part");
    fs::write(&unfinished, archive(config, layer)?)
        .and_then(|()| fs::rename(&unfinished, path))
        .with_context(|| format!("write {}", path.display()))
}

/// Programs for images of a run of this machine's: unoptimised, for its own architecture.
pub(crate) fn build_for_this_machine() -> anyhow::Result<Programs> {
    Programs::build(&default_target(), "dev")
}

fn choose(names: &[String]) -> anyhow::Result<Vec<Image>> {
    if names.is_empty() {
        return Ok(IMAGES.to_vec());
    }
    let find = |name: &String| {
        let found = IMAGES.iter().copied().find(|image| image.name == name);
        found.with_context(|| {
            let all: Vec<&str> = IMAGES.iter().map(|image| image.name).collect();
            format!("there is no image {name}; there are {}", all.join(", "))
        })
    };
    names.iter().map(find).collect()
}

/// Static programs for this machine's architecture.
fn default_target() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    match fs::read(path) {
        Ok(bytes) => Ok(bytes),
        Err(error) if path == Path::new(AUTHORITIES) => {
            bail!("{AUTHORITIES} cannot be read ({error}); install ca-certificates")
        }
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of the Dockerfile's last stage that begin with an instruction, without it.
    fn last_stage(dockerfile: &str, instruction: &str) -> Vec<String> {
        let stage = dockerfile.rsplit("\nFROM ").next().unwrap();
        let lines = stage.lines().filter_map(|line| line.strip_prefix(instruction));
        lines.map(|line| line.trim().to_owned()).collect()
    }

    #[test]
    fn the_dockerfile_makes_the_same_image() {
        let root = crate::root().unwrap();
        let dockerfile = fs::read_to_string(root.join("Dockerfile")).unwrap();
        let mut files: Vec<String> = last_stage(&dockerfile, "COPY ")
            .iter()
            .map(|copy| copy.rsplit(' ').next().unwrap().to_owned())
            .collect();
        files.sort();
        // No list of what went in: that is the builder's to add (`docker build --sbom=true`).
        assert_eq!(files, [AUTHORITIES_INSIDE, "/program", "/tmp"]);
        assert_eq!(
            last_stage(&dockerfile, "ENV "),
            [format!("SSL_CERT_FILE={AUTHORITIES_INSIDE}")]
        );
        assert_eq!(last_stage(&dockerfile, "USER "), [NOBODY]);
        let labels = last_stage(&dockerfile, "LABEL ").join(" ");
        assert!(
            labels.contains("org.opencontainers.image.licenses=Apache-2.0"),
            "{labels}"
        );
        let packages: Vec<&str> = IMAGES.iter().map(|image| image.name).collect();
        let named = dockerfile
            .lines()
            .find(|line| line.starts_with("# PACKAGE is"))
            .unwrap();
        assert!(packages.iter().all(|package| named.contains(package)), "{named}");
    }

    #[test]
    fn the_dockerfile_takes_the_toolchain_that_the_workspace_pins() {
        let root = crate::root().unwrap();
        let dockerfile = fs::read_to_string(root.join("Dockerfile")).unwrap();
        let pinned = fs::read_to_string(root.join("rust-toolchain.toml")).unwrap();
        let version = pinned.split('"').nth(1).unwrap();
        assert!(
            dockerfile.contains(&format!("FROM rust:{version}-alpine ")),
            "{version}"
        );
    }

    #[test]
    fn an_unknown_image_is_named_beside_the_known() {
        let refused = choose(&["podid-x".to_owned()]).unwrap_err().to_string();
        assert!(
            refused.contains("podid-x") && refused.contains("podid-nmi"),
            "{refused}"
        );
    }
}
