//! The client's side of the control socket. Blocking, but for what comes after a `run` was started.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use super::{Info, Reply, Request};
use crate::handover;
use crate::state::{CONTROL_SOCKET, Home, StateError, WorldName};

/// A world cannot be asked, or says no.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is none.
    #[error(transparent)]
    State(#[from] StateError),
    /// It does not answer.
    #[error("the world `{world}` does not answer at {}", path.display())]
    Silent {
        /// Its name.
        world: WorldName,
        /// Its socket.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// It speaks otherwise.
    #[error(
        "the world answers in a way that this program does not understand; are they of the same version?"
    )]
    Odd(#[source] serde_json::Error),
    /// It says no.
    #[error("{0}")]
    Refused(String),
}

impl ControlError {
    /// A stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::State(error) => error.code(),
            Self::Silent { .. } => "control_silent",
            Self::Odd(_) => "control_odd",
            Self::Refused(_) => "control_refused",
        }
    }
}

/// A world to ask.
#[derive(Clone, Debug)]
pub struct Control {
    world: WorldName,
    path: PathBuf,
}

impl Control {
    /// The living world of that name.
    pub fn find(home: &Home, world: &WorldName) -> Result<Self, ControlError> {
        if !home.is_alive(world)? {
            return Err(StateError::NotRunning(world.clone()).into());
        }
        Ok(Self {
            world: world.clone(),
            path: home.folder(world).join(CONTROL_SOCKET),
        })
    }

    /// Asks, and gives the first answer with the connection, which `run` goes on with.
    pub fn ask(
        &self,
        request: &Request,
        files: &[BorrowedFd<'_>],
    ) -> Result<(Reply, UnixStream), ControlError> {
        let silent = |source| ControlError::Silent {
            world: self.world.clone(),
            path: self.path.clone(),
            source,
        };
        let stream = UnixStream::connect(&self.path).map_err(silent)?;
        let text = serde_json::to_string(request).map_err(ControlError::Odd)?;
        handover::send(&stream, &text, files).map_err(silent)?;
        let Some((text, _)) = handover::receive(&stream).map_err(silent)? else {
            return Err(silent(io::ErrorKind::UnexpectedEof.into()));
        };
        match serde_json::from_str(&text).map_err(ControlError::Odd)? {
            Reply::Refused { why } => Err(ControlError::Refused(why)),
            reply => Ok((reply, stream)),
        }
    }

    /// How to reach the world.
    pub fn info(&self) -> Result<Info, ControlError> {
        match self.ask(&Request::Info, &[])?.0 {
            Reply::Info(info) => Ok(*info),
            other => Err(ControlError::Refused(format!(
                "the world answered {other:?} when asked about itself"
            ))),
        }
    }

    /// A request that is answered with `Done`.
    pub fn command(&self, request: &Request) -> Result<(), ControlError> {
        match self.ask(request, &[])?.0 {
            Reply::Done => Ok(()),
            other => Err(ControlError::Refused(format!(
                "the world answered {other:?} to {request:?}"
            ))),
        }
    }
}
