//! `cargo xtask e2e az`: the AKS page (`docs/guides/aks.md`) with the real az, from its package, and the real kubectl:
//! against a sandbox, or against a real Kubernetes with podid installed by its chart.

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use crate::e2e::sandbox::Sandbox;
use crate::e2e::sdk::{prepare, text};
use crate::e2e::{guide, kube};
use crate::kube::tools::Tools;
use crate::printer;

/// The release of azure-cli that is held to work; newer ones may be tried by changing this.
const AZURE_CLI: &str = "azure-cli==2.91.0";
/// What is run.
const GUIDE: &str = "docs/guides/aks.md";

/// Flags of `cargo xtask e2e az` and `tutorial`.
#[derive(Args, Clone, Debug)]
pub(crate) struct AzArgs {
    /// Which Kubernetes it runs on
    #[arg(long, value_enum, default_value = "sandbox")]
    pub(crate) kube: Kubernetes,
    /// Leave the real Kubernetes up at the end, for a look (`cargo xtask kube env --state target/kube/az`)
    #[arg(long)]
    pub(crate) keep: bool,
}

/// A Kubernetes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kubernetes {
    /// The sandbox's own; needs no root
    Sandbox,
    /// A real one with two real nodes; needs root and Go
    Real,
}

/// Runs the suite.
pub(crate) fn run(args: &AzArgs) -> anyhow::Result<()> {
    let root = crate::root()?;
    let work = root.join("target/e2e/az");
    std::fs::create_dir_all(&work).with_context(|| format!("make the folder {}", work.display()))?;
    let bin = azure_cli(&root, &work)?;
    let done = match args.kube {
        Kubernetes::Sandbox => in_sandbox(&root, &work, &bin)?,
        Kubernetes::Real => {
            let mut done = guide::Done::default();
            kube::beside_azure("target/kube/az", args.keep, true, |inside| {
                let mut bash = inside.bash(&["bash", "--noprofile", "--norc"])?;
                let tools = inside.programs();
                surround(&mut bash, &fresh(&work, "real")?, &[bin.clone(), tools])?;
                done = guide::run(&root.join(GUIDE), bash, &work.join("real"), &[])?;
                Ok(())
            })?;
            done
        }
    };
    printer::line(&format!(
        "{} commands of {GUIDE} in {} s: all did what they should",
        done.commands, done.seconds
    ));
    Ok(())
}

fn in_sandbox(root: &Path, work: &Path, bin: &Path) -> anyhow::Result<guide::Done> {
    let mut programs = vec![bin.to_owned()];
    programs.extend(kubectl()?);
    let folder = fresh(work, "sandbox")?;
    let sandbox = Sandbox::up(root, "e2e-az")?;
    let mut bash = Command::new("bash");
    let settings = format!(
        "eval \"$('{}' env --name {})\"; exec bash --noprofile --norc",
        sandbox.program().display(),
        sandbox.name()
    );
    bash.args(["-c", &settings]);
    surround(&mut bash, &folder, &programs)?;
    let done = guide::run(&root.join(GUIDE), bash, &folder, &[]);
    sandbox.down()?;
    done
}

/// The folder of kubectl, if it is not in the PATH but was built.
pub(crate) fn kubectl() -> anyhow::Result<Vec<PathBuf>> {
    let kubectl = Command::new("kubectl").args(["version", "--client"]).output();
    if kubectl.is_ok_and(|output| output.status.success()) {
        return Ok(Vec::new());
    }
    let built = Tools::built()?.context(
        "kubectl is needed and could not be started; install it from https://kubernetes.io/docs/tasks/tools, or run \
         `cargo xtask kube build`",
    )?;
    Ok(vec![built.bin()])
}

/// An empty folder: az keeps tokens, extensions and keys there, and get-credentials writes there too.
pub(crate) fn fresh(work: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let folder = work.join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("empty the folder {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("make the folder {}", folder.display()))?;
    Ok(folder)
}

/// The PATH with these folders before the others.
pub(crate) fn path_with(programs: &[PathBuf]) -> anyhow::Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = programs.iter().cloned().chain(std::env::split_paths(&path));
    std::env::join_paths(all).context("put the programs in the PATH")
}

/// The shell's folder, and an environment in which az touches nothing outside of it.
pub(crate) fn surround(bash: &mut Command, folder: &Path, programs: &[PathBuf]) -> anyhow::Result<()> {
    bash.current_dir(folder)
        .env("PATH", path_with(programs)?)
        .env("HOME", folder)
        .env("AZURE_CONFIG_DIR", folder.join("azure"))
        .env("AZURE_CORE_COLLECT_TELEMETRY", "false");
    Ok(())
}

/// The folder of az, installed when it is not there.
pub(crate) fn azure_cli(root: &Path, work: &Path) -> anyhow::Result<PathBuf> {
    let venv = work.join("venv");
    let bin = venv.join("bin");
    if !bin.join("az").exists() {
        printer::note("installing azure-cli, which takes about two minutes");
        prepare("python3", &["-m", "venv", &text(&venv)?], root)?;
        let python = text(&bin.join("python"))?;
        let pip = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            AZURE_CLI,
        ];
        prepare(&python, &pip, root)?;
    }
    Ok(bin)
}
