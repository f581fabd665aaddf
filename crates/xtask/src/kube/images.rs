//! The images that every node of the real Kubernetes has: `localhost/pause:1` (a pod's sandbox) and `localhost/box:1`
//! (a shell and curl, to look at things from inside a pod).

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::tools::{run, runnable};
use crate::image::archive::{ImageConfig, Layer, archive};

/// Writes both to `folder`; the last one written says that all are there.
pub(super) fn write(busybox: &Path, folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("kubeall/pause.c");
    let pause = folder.join("pause");
    run(Command::new("cc")
        .args(["-Os", "-static", "-s", "-o"])
        .arg(&pause)
        .arg(&source))
    .context("build the pause program (a C compiler and the static libc are needed)")?;
    let mut layer = Layer::default();
    layer.file("pause", 0o755, fs::read(&pause)?);
    fs::remove_file(&pause)?;
    put(folder, "pause", &["/pause"], &layer)?;

    let mut layer = Layer::default();
    layer.file("bin/busybox", 0o755, fs::read(busybox)?);
    for applet in run(Command::new(busybox).arg("--list"))?.lines() {
        if applet != "busybox" {
            layer.link(&format!("bin/{applet}"), "busybox");
        }
    }
    layer.folder("tmp", 0o1777).folder("etc", 0o755);
    let curl = Path::new("/usr/bin/curl");
    if runnable(curl) {
        layer.file("usr/bin/curl", 0o755, fs::read(curl)?);
        for library in libraries(&run(Command::new("ldd").arg(curl))?) {
            layer.file(library, 0o755, fs::read(library)?);
        }
    }
    put(folder, "box", &["/bin/sh"], &layer)
}

fn put(folder: &Path, name: &str, entrypoint: &[&str], layer: &Layer) -> anyhow::Result<()> {
    let config = ImageConfig {
        name: format!("localhost/{name}:1"),
        architecture: architecture().to_owned(),
        entrypoint: entrypoint.iter().map(|&word| word.to_owned()).collect(),
        env: vec!["PATH=/bin:/usr/bin".to_owned()],
        ..ImageConfig::default()
    };
    let path = folder.join(format!("{name}.tar"));
    fs::write(&path, archive(&config, layer)?).with_context(|| format!("write {}", path.display()))
}

/// The paths in what ldd says.
fn libraries(ldd: &str) -> impl Iterator<Item = &str> {
    ldd.split_whitespace().filter(|word| word.starts_with('/'))
}

/// This machine's architecture as OCI calls it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_of_a_program_are_the_paths_that_ldd_names() {
        let said =
            "\tlinux-vdso.so.1 (0x7f)\n\tlibz.so.1 => /lib/libz.so.1 (0x7f)\n\t/lib64/ld.so.2 (0x7f)\n";
        assert_eq!(
            libraries(said).collect::<Vec<_>>(),
            ["/lib/libz.so.1", "/lib64/ld.so.2"]
        );
    }
}
