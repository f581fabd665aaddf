//! The static programs that go into images, built by cargo in a target folder of their own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::{IMAGES, sbom};
use crate::kube::tools::target_folder;

/// What was built, for one target.
#[derive(Debug)]
pub(crate) struct Programs {
    target: String,
    executables: BTreeMap<String, PathBuf>,
}

impl Programs {
    /// Builds the programs of all images, whichever are wanted: cargo builds dependencies with the features of all packages
    /// that it builds at once, so a program alone would have other bytes. Symbols are left out; no path of this machine
    /// stays in them.
    pub(super) fn build(target: &str, profile: &str) -> anyhow::Result<Self> {
        if !installed(target) {
            bail!("the Rust target {target} is not installed; run `rustup target add {target}`");
        }
        let root = crate::root()?;
        let folder = target_folder()?.join("image");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .current_dir(&root)
            .args(["build", "--locked", "--message-format=json-render-diagnostics"])
            .args(["--target", target, "--profile", profile, "--target-dir"])
            .arg(&folder);
        for image in IMAGES {
            cargo.args(["--package", image.name]);
        }
        cargo.arg("--bins");
        let key = profile.to_uppercase();
        cargo
            .env(format!("CARGO_PROFILE_{key}_DEBUG"), "0")
            .env(format!("CARGO_PROFILE_{key}_STRIP"), "symbols")
            .env("CARGO_ENCODED_RUSTFLAGS", remapped(&root))
            .env("CARGO_TERM_COLOR", "never");
        for (name, value) in toolchain(target, in_path)? {
            if std::env::var_os(&name).is_none() {
                cargo.env(name, value);
            }
        }
        let output = cargo
            .stderr(std::process::Stdio::inherit())
            .output()
            .context("run cargo build")?;
        if !output.status.success() {
            bail!("the programs for {target} were not built; what cargo said is above");
        }
        let mut executables = BTreeMap::new();
        for message in cargo_metadata::Message::parse_stream(output.stdout.as_slice()) {
            if let cargo_metadata::Message::CompilerArtifact(artifact) =
                message.context("read cargo's messages")?
                && let Some(executable) = artifact.executable
            {
                // `…/podid-nmi/crates/…#podid-nmi@0.1.0` and `path+file://…#0.1.0` are both package ids: the manifest
                // is what tells.
                executables.insert(
                    package_of(artifact.manifest_path.as_std_path()),
                    executable.into_std_path_buf(),
                );
            }
        }
        Ok(Self {
            target: target.to_owned(),
            executables,
        })
    }

    /// A package's program.
    pub(crate) fn path(&self, package: &str) -> anyhow::Result<PathBuf> {
        let folder = package.trim_start_matches("podid-");
        self.executables
            .get(folder)
            .cloned()
            .with_context(|| format!("cargo built no program of {package}"))
    }

    /// The list of what is in a package's program.
    pub(super) fn sbom(&self, package: &str) -> anyhow::Result<Vec<u8>> {
        sbom::of(&crate::root()?, package, &self.target)
    }

    /// The target's architecture as OCI calls it.
    pub(super) fn architecture(&self) -> anyhow::Result<&'static str> {
        architecture(&self.target)
    }
}

/// The folder's name of a package of ours.
fn package_of(manifest: &Path) -> String {
    let folder = manifest.parent().and_then(Path::file_name).unwrap_or_default();
    folder.to_string_lossy().into_owned()
}

fn architecture(target: &str) -> anyhow::Result<&'static str> {
    match target.split('-').next() {
        Some("x86_64") => Ok("amd64"),
        Some("aarch64") => Ok("arm64"),
        _ => bail!("{target} is no target that images are made for: x86_64-… or aarch64-…"),
    }
}

/// Compiler flags, separated as cargo wants them: the same bytes wherever the sources and the registry lie.
fn remapped(root: &Path) -> String {
    let mut flags = vec![format!("--remap-path-prefix={}=podid", root.display())];
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    if let Some(home) = home {
        flags.push(format!("--remap-path-prefix={}=cargo", home.display()));
    }
    flags.join("\u{1f}")
}

/// What compiles the little C that ring has and links, as cargo and cc-rs are told.
fn toolchain(target: &str, found: impl Fn(&str) -> bool) -> anyhow::Result<Vec<(String, String)>> {
    let name = target.replace('-', "_");
    let architecture = target.split('-').next().unwrap_or_default();
    if architecture == std::env::consts::ARCH {
        if !target.ends_with("-musl") {
            return Ok(Vec::new());
        }
        // The machine's own is enough for that C; the linker is rustc's choice.
        let compiler = if found("musl-gcc") { "musl-gcc" } else { "cc" };
        return Ok(vec![(format!("CC_{name}"), compiler.to_owned())]);
    }
    let candidates = [
        format!("{architecture}-linux-musl-gcc"),
        format!("{architecture}-linux-gnu-gcc"),
    ];
    let Some(compiler) = candidates.iter().find(|name| found(name)) else {
        bail!(
            "images for {target} need a C compiler for it, one of {}; on Debian: apt-get install gcc-{}-linux-gnu",
            candidates.join(", "),
            architecture.replace('_', "-")
        );
    };
    Ok(vec![
        (format!("CC_{name}"), compiler.clone()),
        (
            format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()),
            compiler.clone(),
        ),
    ])
}

/// Whether a program is in the PATH.
fn in_path(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

fn installed(target: &str) -> bool {
    let Ok(output) = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", target])
        .output()
    else {
        return false;
    };
    Path::new(String::from_utf8_lossy(&output.stdout).trim()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_target_is_compiled_and_linked_by_its_own_compiler_or_says_which_is_missing() {
        let target = "riscv64gc-unknown-linux-musl";
        let refused = toolchain(target, |_| false).unwrap_err().to_string();
        assert!(refused.contains("riscv64gc-linux-gnu-gcc"), "{refused}");
        let found = toolchain(target, |name| name.ends_with("-gnu-gcc")).unwrap();
        let gcc = "riscv64gc-linux-gnu-gcc".to_owned();
        let expected = [
            ("CC_riscv64gc_unknown_linux_musl".to_owned(), gcc.clone()),
            ("CARGO_TARGET_RISCV64GC_UNKNOWN_LINUX_MUSL_LINKER".to_owned(), gcc),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn architectures_are_named_as_oci_does() {
        assert_eq!(architecture("aarch64-unknown-linux-musl").unwrap(), "arm64");
        let refused = architecture("riscv64gc-unknown-linux-gnu")
            .unwrap_err()
            .to_string();
        assert!(refused.contains("riscv64gc"), "{refused}");
    }
}
