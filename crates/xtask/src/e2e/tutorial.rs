//! `cargo xtask e2e tutorial`: podid's own tutorial (`docs/guides/tutorial.md`), every line of one of its parts: on this
//! machine with the real kubectl, or on a real Kubernetes with the real az. `cargo test` runs what needs neither.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::e2e::az::{AzArgs, Kubernetes, azure_cli, fresh, kubectl, path_with, surround};
use crate::e2e::{guide, kube};
use crate::printer;

/// What is run.
const GUIDE: &str = "docs/guides/tutorial.md";
/// How az finds Azure; a reader has signed in.
const SIGN_IN: &str = "set -e; export AZURE_CORE_INSTANCE_DISCOVERY=false; \
    { az cloud register -n podid --endpoint-resource-manager $AZURE_RESOURCE_MANAGER_ENDPOINT; az cloud set -n podid; \
    az login --service-principal -u $AZURE_CLIENT_ID -p $AZURE_CLIENT_SECRET --tenant $AZURE_TENANT_ID; } >/dev/null; \
    set +e; exec bash --noprofile --norc";

/// Runs the suite.
pub(crate) fn run(args: &AzArgs) -> anyhow::Result<()> {
    let root = crate::root()?;
    let done = match args.kube {
        Kubernetes::Sandbox => on_a_laptop(&root)?,
        Kubernetes::Real => on_a_cluster(&root, args.keep)?,
    };
    printer::line(&format!(
        "{} commands of {GUIDE} in {} s: all did what they should",
        done.commands, done.seconds
    ));
    Ok(())
}

fn on_a_laptop(root: &Path) -> anyhow::Result<guide::Done> {
    // Where the guide has its reader go.
    let folder = root.join("target/tutorial");
    std::fs::create_dir_all(&folder).with_context(|| format!("make the folder {}", folder.display()))?;
    let home = tempfile::Builder::new()
        .prefix("tut")
        .tempdir()
        .context("make a folder for the world")?;
    let mut bash = Command::new("bash");
    bash.args(["--noprofile", "--norc"]);
    bash.current_dir(root)
        .env("PATH", path_with(&kubectl()?)?)
        .env("XDG_RUNTIME_DIR", home.path())
        .env_remove("PODID_WORLD");
    let done = guide::run(&root.join(GUIDE), bash, &folder, &["cluster"]);
    if done.is_err() {
        // The world is not the shell's child, and would stay. It may be gone already.
        let _ended = Command::new(root.join("target/debug/podid-sandbox"))
            .arg("down")
            .env("XDG_RUNTIME_DIR", home.path())
            .output();
    }
    done
}

fn on_a_cluster(root: &Path, keep: bool) -> anyhow::Result<guide::Done> {
    let work = root.join("target/e2e/az");
    std::fs::create_dir_all(&work).with_context(|| format!("make the folder {}", work.display()))?;
    let az = azure_cli(root, &work)?;
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--package", "podid-cli"])
        .current_dir(root)
        .status()
        .context("start cargo")?;
    ensure!(built.success(), "podid does not build");
    let folder = fresh(&work, "tutorial")?;
    let mut done = guide::Done::default();
    kube::beside_azure("target/kube/az", keep, false, |inside| {
        let mut bash = inside.bash(&["bash", "-c", SIGN_IN])?;
        let programs = [az.clone(), inside.programs(), root.join("target/debug")];
        surround(&mut bash, &folder, &programs)?;
        done = guide::run(&root.join(GUIDE), bash, &folder, &["laptop"])?;
        Ok(())
    })?;
    Ok(done)
}
