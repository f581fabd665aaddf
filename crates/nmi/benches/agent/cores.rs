//! Who runs on which core: the agent has the first one to itself, as far as we can say, everything else the rest.

use std::sync::OnceLock;

use anyhow::Context as _;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// One part of the cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The agent's.
    Agent,
    /// The load generator's, the emulator's and the stand-in's.
    Ours,
}

/// The calling thread.
const THIS: Pid = Pid::from_raw(0);

/// The cores that this process was given, as they were at the first call.
pub(crate) fn all() -> anyhow::Result<&'static [usize]> {
    static ALL: OnceLock<Vec<usize>> = OnceLock::new();
    if let Some(all) = ALL.get() {
        return Ok(all);
    }
    let set = sched_getaffinity(THIS).context("read the cores")?;
    let cores = (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or_default());
    Ok(ALL.get_or_init(|| cores.collect()))
}

/// Moves the calling thread, and what it starts from now on. With one core there is nowhere to move.
pub(crate) fn move_to(side: Side) -> anyhow::Result<()> {
    let (first, rest) = all()?.split_first().context("a core")?;
    let wanted = match side {
        Side::Ours if !rest.is_empty() => rest,
        Side::Agent | Side::Ours => std::slice::from_ref(first),
    };
    let mut set = CpuSet::new();
    for core in wanted {
        set.set(*core)?;
    }
    sched_setaffinity(THIS, &set).context("move to other cores")
}
