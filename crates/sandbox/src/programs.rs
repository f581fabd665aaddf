//! The programs of a world, each started by running this program itself with a hidden subcommand, or the one that a
//! flag names instead. Nothing is looked for in PATH.

use std::path::PathBuf;

use clap::Args;
use tokio::process::Command;

/// This program, whatever became of its file.
const SELF: &str = "/proc/self/exe";

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The node agent.
    Nmi,
    /// The cluster side.
    Controller,
    /// ARM, Entra and IMDS.
    AzureEmulator,
    /// The Kubernetes API.
    KubeEmulator,
    /// The tutorial's sample workload.
    Demo,
    /// What the story's pods run.
    Ask,
}

/// Programs to run instead of this one.
#[derive(Args, Clone, Debug, Default)]
#[expect(clippy::struct_field_names, reason = "the flags are called so")]
#[command(next_help_heading = "Other programs")]
pub struct Programs {
    /// Program to run as the node agent, instead of the one built in
    #[arg(long, value_name = "PATH", value_parser = program)]
    pub nmi_bin: Option<PathBuf>,
    /// Program to run as the controller
    #[arg(long, value_name = "PATH", value_parser = program)]
    pub controller_bin: Option<PathBuf>,
    /// Program to run as ARM, Entra and IMDS
    #[arg(long, value_name = "PATH", value_parser = program)]
    pub azure_emulator_bin: Option<PathBuf>,
    /// Program to run as the Kubernetes API
    #[arg(long, value_name = "PATH", value_parser = program)]
    pub kube_emulator_bin: Option<PathBuf>,
    /// Program to run for the tutorial's sample image
    #[arg(long, value_name = "PATH", value_parser = program)]
    pub demo_bin: Option<PathBuf>,
}

impl Programs {
    /// A command for it, without the environment of this process. Its name in lists of processes is its own.
    pub fn command(&self, program: Program) -> Command {
        let (instead, hidden, name) = match program {
            Program::Nmi => (&self.nmi_bin, "__nmi", "podid-nmi"),
            Program::Controller => (&self.controller_bin, "__controller", "podid-controller"),
            Program::AzureEmulator => (&self.azure_emulator_bin, "__azure-emulator", "azure-emulator"),
            Program::KubeEmulator => (&self.kube_emulator_bin, "__kube-emulator", "kube-emulator"),
            Program::Demo => (&self.demo_bin, "__demo", "podid-demo"),
            Program::Ask => (&None, "__ask", "podid-ask"),
        };
        let mut command = if let Some(path) = instead {
            Command::new(path)
        } else {
            let mut command = Command::new(SELF);
            command.arg(hidden);
            command
        };
        command.arg0(name).env_clear();
        command
    }

    /// The flags that give another instance of this program the same programs.
    pub fn flags(&self) -> Vec<std::ffi::OsString> {
        let all = [
            ("--nmi-bin", &self.nmi_bin),
            ("--controller-bin", &self.controller_bin),
            ("--azure-emulator-bin", &self.azure_emulator_bin),
            ("--kube-emulator-bin", &self.kube_emulator_bin),
            ("--demo-bin", &self.demo_bin),
        ];
        all.into_iter()
            .filter_map(|(flag, path)| Some([flag.into(), path.clone()?.into_os_string()]))
            .flatten()
            .collect()
    }
}

/// An absolute path to a file that can be run.
fn program(text: &str) -> Result<PathBuf, String> {
    use std::os::unix::fs::PermissionsExt;
    let path = std::fs::canonicalize(text).map_err(|error| format!("`{text}`: {error}"))?;
    let seen = path.metadata().map_err(|error| format!("`{text}`: {error}"))?;
    if seen.is_file() && seen.permissions().mode() & 0o111 != 0 {
        Ok(path)
    } else {
        Err(format!("`{text}` is not a program"))
    }
}
