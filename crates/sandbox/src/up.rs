//! `up`: what is done outside before the world is entered, and after it has ended. Here is no runtime and no thread.

use std::io::stdin;
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::Context as _;
use podid_cli::printer::{self, Printer};
use podid_kernel::world::{Side, enter};
use podid_rt::logging;

use crate::args::{UpArgs, in_runtime};
use crate::detach;
use crate::relay::Doors;
use crate::state::{Folder, Home};
use crate::world::{self, Outside};

/// Makes a world and keeps it until told to stop.
pub(crate) fn run(args: UpArgs) -> ExitCode {
    if args.detach {
        return detach::run(&mut Printer::to_terminal()).unwrap_or_else(|error| {
            printer::report(&error);
            ExitCode::FAILURE
        });
    }
    let (folder, outside) = match prepare(&args) {
        Ok(prepared) => prepared,
        Err(error) => {
            printer::report(&error);
            return ExitCode::FAILURE;
        }
    };
    match enter(outside) {
        Ok(Side::Inside(world, outside)) => {
            let log = args.log.clone();
            in_runtime(async move {
                logging::init(&log)?;
                world::run(args, outside, world.supervisor()).await?;
                Ok(ExitCode::SUCCESS)
            })
        }
        Ok(Side::Outside(code)) => match folder.remove() {
            Ok(()) => code,
            Err(error) => {
                printer::report(&error.into());
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            printer::report(&error.into());
            if let Err(error) = folder.remove() {
                printer::report(&error.into());
            }
            ExitCode::from(2)
        }
    }
}

fn prepare(args: &UpArgs) -> anyhow::Result<(Folder, Outside)> {
    let home = Home::locate();
    for name in home.sweep()? {
        Printer::to_terminal().say(&format!("removed what the killed world `{name}` had left"));
    }
    let folder = home.claim(&args.name)?;
    let doors = match Doors::bind(args.kubernetes_port, args.azure_port, args.metadata_port) {
        Ok(doors) => doors,
        Err(error) => {
            folder.remove()?;
            return Err(error.into());
        }
    };
    if args.detached {
        // Away from the terminal, whose signals are not for it. Failing means that it leads its group already.
        let _leads = nix::unistd::setsid();
    }
    let lifeline = if args.while_stdin {
        // Whoever started this one passes its signals on as he sees fit. Failing means that it leads its group already.
        let _leads = nix::unistd::setsid();
        let stdin = stdin().as_fd().try_clone_to_owned();
        Some(stdin.context("standard input cannot be kept")?)
    } else {
        None
    };
    let outside = Outside {
        doors,
        folder: folder.path().to_owned(),
        path: std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()),
        lifeline,
    };
    Ok((folder, outside))
}
