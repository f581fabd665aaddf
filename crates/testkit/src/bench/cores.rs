//! Who runs on which core: what is measured has the first one to itself, as far as we can say, everything else the rest.

use std::io;
use std::sync::OnceLock;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// One part of the cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Of the program that is measured: one core.
    Measured,
    /// The load generator's, and of all that it stands on: the others.
    Ours,
}

/// The calling thread.
const THIS: Pid = Pid::from_raw(0);

/// The cores that this process was given, as they were at the first call.
pub fn all() -> io::Result<&'static [usize]> {
    static ALL: OnceLock<Vec<usize>> = OnceLock::new();
    if let Some(all) = ALL.get() {
        return Ok(all);
    }
    let set = sched_getaffinity(THIS)?;
    let cores = (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or_default());
    Ok(ALL.get_or_init(|| cores.collect()))
}

/// Moves the calling thread, and what it starts from now on. With one core there is nowhere to move.
pub fn move_to(side: Side) -> io::Result<()> {
    let (first, rest) = all()?.split_first().ok_or(io::ErrorKind::NotFound)?;
    let wanted = match side {
        Side::Ours if !rest.is_empty() => rest,
        Side::Measured | Side::Ours => std::slice::from_ref(first),
    };
    let mut set = CpuSet::new();
    for core in wanted {
        set.set(*core)?;
    }
    Ok(sched_setaffinity(THIS, &set)?)
}
