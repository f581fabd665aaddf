//! What this process may do to the machine: capabilities are given up, for good, but for those that are needed. It decides
//! nothing about which those are.
//!
//! ```text
//! main, one thread ─▶ keep(needed): bounding, ambient, inheritable, permitted, effective; no_new_privs
//!                        └─ threads and programs started later have no more than that
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::io;

use rustix::thread::{self, CapabilitySet, CapabilitySets};

/// A capability that some part of podid needs. Source: capabilities(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// Look into folders of others.
    DacReadSearch,
    /// Rules, routes, nf_tables, interfaces, transparent sockets.
    NetAdmin,
    /// Ports below 1024.
    NetBindService,
    /// Make and enter network namespaces.
    SysAdmin,
    /// Look at processes of others in `/proc`.
    SysPtrace,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::DacReadSearch,
        Self::NetAdmin,
        Self::NetBindService,
        Self::SysAdmin,
        Self::SysPtrace,
    ];

    /// As Kubernetes writes it, without `CAP_`.
    pub fn name(self) -> &'static str {
        match self {
            Self::DacReadSearch => "DAC_READ_SEARCH",
            Self::NetAdmin => "NET_ADMIN",
            Self::NetBindService => "NET_BIND_SERVICE",
            Self::SysAdmin => "SYS_ADMIN",
            Self::SysPtrace => "SYS_PTRACE",
        }
    }

    /// Its bit in the masks of `/proc/<pid>/status`.
    pub fn mask(self) -> u64 {
        self.set().bits()
    }

    fn set(self) -> CapabilitySet {
        match self {
            Self::DacReadSearch => CapabilitySet::DAC_READ_SEARCH,
            Self::NetAdmin => CapabilitySet::NET_ADMIN,
            Self::NetBindService => CapabilitySet::NET_BIND_SERVICE,
            Self::SysAdmin => CapabilitySet::SYS_ADMIN,
            Self::SysPtrace => CapabilitySet::SYS_PTRACE,
        }
    }
}

/// What became of [`keep`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What the process has now.
    pub held: BTreeSet<Capability>,
    /// What is needed and was not there to be kept.
    pub missing: BTreeSet<Capability>,
    /// Whether the bounding set was lowered too. Without SETPCAP it cannot be; what was given up does not come back
    /// all the same, because of no_new_privs.
    pub bounded: bool,
}

/// Privileges cannot be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegesError {
    /// Each thread has capabilities of its own, so this is for before there is a second one.
    #[error("capabilities can only be given up while there is one thread, and there are {0}")]
    Threads(usize),
    /// The kernel says no.
    #[error("cannot {what}")]
    Kernel {
        /// What was tried
        what: &'static str,
        /// What the kernel said
        #[source]
        source: io::Error,
    },
}

impl PrivilegesError {
    /// A stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Threads(_) => "privileges_threads",
            Self::Kernel { .. } => "privileges_kernel",
        }
    }
}

/// Gives up every capability but `needed`, in all five sets, and the way to get any by starting a program. To be called
/// before there is another thread.
pub fn keep(needed: &BTreeSet<Capability>) -> Result<Kept, PrivilegesError> {
    let threads = fs::read_dir("/proc/self/task")
        .map_err(failed("count this process's threads in /proc"))?
        .count();
    if threads != 1 {
        return Err(PrivilegesError::Threads(threads));
    }
    let wanted = needed
        .iter()
        .fold(CapabilitySet::empty(), |set, one| set | one.set());
    let own = thread::capabilities(None).map_err(failed("read this process's capabilities"))?;
    let kept = own.permitted & wanted;
    // First, while SETPCAP is there.
    let bounded = lower_bounding(wanted)?;
    thread::clear_ambient_capability_set().map_err(failed("clear the ambient capabilities"))?;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    thread::set_capabilities(None, sets).map_err(failed("give up capabilities"))?;
    thread::set_no_new_privs(true).map_err(failed("set no_new_privs"))?;
    let (held, missing) = needed.iter().partition(|one| kept.contains(one.set()));
    Ok(Kept {
        held,
        missing,
        bounded,
    })
}

/// Whom this process acts as: the owner of the files that it makes.
pub fn uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Takes all but `wanted` out of the bounding set; whether that could be done.
fn lower_bounding(wanted: CapabilitySet) -> Result<bool, PrivilegesError> {
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        match thread::capability_is_in_bounding_set(one) {
            Ok(true) if !wanted.contains(one) => {}
            Ok(_) => continue,
            // Past the last one that this kernel knows.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(failed("read the bounding set")(error)),
        }
        match thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            Err(rustix::io::Errno::PERM) => return Ok(false),
            Err(error) => return Err(failed("lower the bounding set")(error)),
        }
    }
    Ok(true)
}

fn failed<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> PrivilegesError {
    move |source| PrivilegesError::Kernel {
        what,
        source: source.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_a_second_thread_nothing_is_given_up() {
        // A test runs on a thread of its own beside the main one.
        let before = thread::capabilities(None).unwrap();
        let refused = keep(&BTreeSet::new()).unwrap_err();
        assert_eq!(refused.code(), "privileges_threads");
        assert_eq!(thread::capabilities(None).unwrap(), before);
    }
}
