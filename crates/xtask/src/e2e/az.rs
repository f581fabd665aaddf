//! `cargo xtask e2e az`: the tutorial's lines (`e2e/az/tutorial.sh`) with the real az, from its package, and the real kubectl,
//! against a sandbox.

use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::e2e::sandbox::Sandbox;
use crate::e2e::sdk::{prepare, text};
use crate::printer;

/// The release of azure-cli that is held to work; newer ones may be tried by changing this.
const AZURE_CLI: &str = "azure-cli==2.91.0";

/// Runs the suite.
pub(crate) fn run() -> anyhow::Result<()> {
    let kubectl = Command::new("kubectl").args(["version", "--client"]).output();
    ensure!(
        kubectl.is_ok_and(|output| output.status.success()),
        "kubectl is needed and could not be started; install it from https://kubernetes.io/docs/tasks/tools"
    );
    let root = crate::root()?;
    let work = root.join("target/e2e/az");
    std::fs::create_dir_all(&work).with_context(|| format!("make the folder {}", work.display()))?;
    let venv = work.join("venv");
    if !venv.join("bin/az").exists() {
        printer::note("installing azure-cli, which takes about two minutes");
        prepare("python3", &["-m", "venv", &text(&venv)?], &root)?;
        let python = text(&venv.join("bin/python"))?;
        prepare(
            &python,
            &[
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                AZURE_CLI,
            ],
            &root,
        )?;
    }
    // A home of the run's own: az keeps tokens, extensions and keys there, and get-credentials writes there too.
    let home = work.join("home");
    if home.exists() {
        std::fs::remove_dir_all(&home).with_context(|| format!("empty the folder {}", home.display()))?;
    }
    std::fs::create_dir_all(&home).with_context(|| format!("make the folder {}", home.display()))?;
    let sandbox = Sandbox::up(&root, "e2e-az")?;
    let script = format!(
        "eval \"$({} env --name {})\"; export PATH=\"{}:$PATH\" HOME=\"{home}\" AZURE_CONFIG_DIR=\"{home}/azure\" \
         KUBECONFIG=\"{home}/kubeconfig\" AZURE_CORE_COLLECT_TELEMETRY=false; exec bash {}",
        sandbox.program().display(),
        sandbox.name(),
        venv.join("bin").display(),
        root.join("e2e/az/tutorial.sh").display(),
        home = home.display(),
    );
    let ran = Command::new("bash")
        .args(["-c", &script])
        .status()
        .context("start bash")?;
    sandbox.down()?;
    ensure!(
        ran.success(),
        "the tutorial did not run to its end; the last command above is the one that failed"
    );
    printer::line("1 passed, 0 failed");
    Ok(())
}
