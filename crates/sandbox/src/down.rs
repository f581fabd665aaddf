//! `down`: ends a running world, and removes what killed ones left.

use std::time::Duration;

use podid_cli::printer::Printer;

use crate::args::WorldArgs;
use crate::control::Request;
use crate::control::client::{Control, ControlError};
use crate::state::{Home, StateError};

/// How long a world may take to end.
const DEADLINE: Duration = Duration::from_secs(15);
/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

pub(crate) fn run(args: &WorldArgs, printer: &mut Printer) -> anyhow::Result<()> {
    let WorldArgs { name } = args;
    let home = Home::locate();
    let running = match Control::find(&home, name) {
        Ok(control) => Some(control),
        Err(ControlError::State(StateError::NotRunning(_))) => None,
        Err(error) => return Err(error.into()),
    };
    if let Some(control) = &running {
        match control.command(&Request::Down) {
            // It was killed just now, and its last process still holds the lock.
            Ok(()) | Err(ControlError::Silent { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let mut left = DEADLINE;
        while home.is_alive(name)? {
            anyhow::ensure!(
                !left.is_zero(),
                "the world `{name}` has not ended within {DEADLINE:?}"
            );
            #[expect(clippy::disallowed_methods, reason = "there is no runtime here to block")]
            std::thread::sleep(LOOK_AGAIN);
            left = left.saturating_sub(LOOK_AGAIN);
        }
    }
    let swept = home.sweep()?;
    if running.is_some() && !swept.contains(name) {
        printer.say(&format!("the world `{name}` has ended"));
    }
    for name in &swept {
        printer.say(&format!("removed what the killed world `{name}` had left"));
    }
    if running.is_none() && !swept.contains(name) {
        return Err(StateError::NotRunning(name.clone()).into());
    }
    Ok(())
}
