//! An emulator that runs for as long as somebody holds it: for tests, which want no tasks of their own to look after.

use std::ops::Deref;
use std::time::Duration;

use podid_rt::stop::Stop;
use podid_rt::tasks::{Tasks, TasksError};

use crate::app::{App, Config, SharedEmulator};
use crate::error::EmulatorError;

/// A running emulator, used as its handle. Dropped, it ends at once, and the last changes may be missing in a state folder.
pub struct Running {
    emulator: SharedEmulator,
    tasks: Tasks,
}

/// How long open requests may take at the end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

impl Running {
    /// Ends it as a signal ends the program: open requests are answered, a state folder is kept up to date.
    pub async fn stop(self) -> Result<(), TasksError> {
        self.tasks.stop().request();
        self.tasks.run(DRAIN_DEADLINE).await
    }
}

/// Binds and serves. `Config::default()` takes free ports of loopback and keeps nothing.
pub async fn start(config: Config) -> Result<Running, EmulatorError> {
    let app = App::bind(config).await?;
    let emulator = app.handle();
    let mut tasks = Tasks::new(Stop::new());
    app.spawn(&mut tasks);
    Ok(Running { emulator, tasks })
}

impl Deref for Running {
    type Target = SharedEmulator;

    fn deref(&self) -> &SharedEmulator {
        &self.emulator
    }
}
