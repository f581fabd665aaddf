//! Why a world could not be entered, in one sentence that names the setting. It decides nothing.

use std::fs;
use std::io;

use nix::errno::Errno;

use crate::netns::NamespaceError;

/// Which step the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Making the namespaces
    Unshare,
    /// Becoming root in the user namespace
    MapUser,
    /// Keeping our mounts to ourselves
    PrivateMounts,
    /// Starting the first process of the world
    Fork,
    /// Tying the world's life to its supervisor's
    Tie,
    /// Mounting `/proc` for the world's processes
    MountProc,
}

/// Why there is no world. The text is one sentence for a person.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// A thread had been started before.
    #[error("a private world must be entered before any thread is started, and there are {0} threads")]
    Threads(usize),
    /// `/proc` cannot be read.
    #[error("/proc cannot be read, so a private world cannot be entered")]
    Proc(#[source] io::Error),
    /// The new network namespace is of no use.
    #[error("the new network namespace is of no use")]
    Loopback(#[source] NamespaceError),
    /// The kernel, or what confines this process, forbids it.
    #[error("cannot {} ({errno}): {cause}", step.what())]
    Refused {
        /// What was tried
        step: Step,
        /// What the kernel said
        errno: Errno,
        /// The likely cause, with the setting to change
        cause: String,
    },
}

impl WorldError {
    /// A stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Threads(_) => "world_threads",
            Self::Proc(_) => "world_proc",
            Self::Loopback(_) => "world_loopback",
            Self::Refused { .. } => "world_refused",
        }
    }

    pub(super) fn refused(step: Step, errno: Errno) -> Self {
        Self::Refused {
            step,
            errno,
            cause: cause(step, errno, &Settings::read()),
        }
    }
}

impl Step {
    fn what(self) -> &'static str {
        match self {
            Self::Unshare => "make user, network, mount and PID namespaces",
            Self::MapUser => "become root in a new user namespace",
            Self::PrivateMounts => "make the mounts private",
            Self::Fork => "start the world's first process",
            Self::Tie => "tie the world's life to its supervisor's",
            Self::MountProc => "mount /proc in a new PID namespace",
        }
    }

    pub(super) fn number(self) -> u8 {
        match self {
            Self::Unshare => 0,
            Self::MapUser => 1,
            Self::PrivateMounts => 2,
            Self::Fork => 3,
            Self::Tie => 4,
            Self::MountProc => 5,
        }
    }

    pub(super) fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Unshare,
            1 => Self::MapUser,
            2 => Self::PrivateMounts,
            3 => Self::Fork,
            4 => Self::Tie,
            _ => Self::MountProc,
        }
    }
}

/// The settings that are known to forbid it, as read from `/proc`.
#[derive(Debug, Default)]
struct Settings {
    /// `kernel.unprivileged_userns_clone` is 0 (Debian's switch)
    userns_off: bool,
    /// The first `user.max_*_namespaces` that is 0
    max_zero: Option<&'static str>,
    /// `kernel.apparmor_restrict_unprivileged_userns` is 1 (Ubuntu ≥ 23.10)
    apparmor: bool,
    /// A seccomp filter is in force (a container's profile)
    seccomp: bool,
}

impl Settings {
    fn read() -> Self {
        let is = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
        let maxima = [
            "max_user_namespaces",
            "max_net_namespaces",
            "max_mnt_namespaces",
            "max_pid_namespaces",
            "max_uts_namespaces",
        ];
        Self {
            userns_off: is("/proc/sys/kernel/unprivileged_userns_clone", "0"),
            max_zero: maxima
                .into_iter()
                .find(|name| is(&format!("/proc/sys/user/{name}"), "0")),
            apparmor: is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
            seccomp: fs::read_to_string("/proc/self/status")
                .is_ok_and(|status| status.lines().any(|line| line == "Seccomp:\t2")),
        }
    }
}

fn cause(step: Step, errno: Errno, settings: &Settings) -> String {
    let denied = matches!(errno, Errno::EPERM | Errno::EACCES);
    if errno == Errno::ENOSPC {
        let name = settings.max_zero.unwrap_or("max_*_namespaces");
        return format!(
            "sysctl user.{name} does not allow another namespace; raise it, e.g. `sysctl -w user.{name}=10000`"
        )
        .replace("`sysctl -w user.max_*_namespaces=10000`", "user.max_user_namespaces");
    }
    if denied && settings.userns_off {
        return "sysctl kernel.unprivileged_userns_clone is 0; set it to 1, or run as root".to_owned();
    }
    if denied && settings.apparmor {
        return "sysctl kernel.apparmor_restrict_unprivileged_userns is 1; set it to 0, allow this program in an \
                AppArmor profile, or run as root"
            .to_owned();
    }
    if denied && step == Step::MountProc {
        return "parts of /proc are masked here, as container runtimes do; start the container with \
                `--security-opt systempaths=unconfined`, or run outside a container"
            .to_owned();
    }
    if denied && settings.seccomp {
        return "a seccomp filter is in force, as container runtimes set by default; start the container with \
                `--security-opt seccomp=unconfined` or with CAP_SYS_ADMIN"
            .to_owned();
    }
    if errno == Errno::EINVAL {
        return "the kernel was built without one of CONFIG_USER_NS, CONFIG_NET_NS, CONFIG_PID_NS".to_owned();
    }
    if errno == Errno::EUSERS {
        return "namespaces are nested too deeply".to_owned();
    }
    "the kernel or a security module forbids it; run as root, or on a machine that allows user namespaces"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_known_refusal_names_its_setting() {
        let with = |settings, step, errno, text: &str| {
            let said = cause(step, errno, &settings);
            assert!(said.contains(text), "{said}");
        };
        let debian = Settings {
            userns_off: true,
            ..Settings::default()
        };
        with(
            debian,
            Step::Unshare,
            Errno::EPERM,
            "kernel.unprivileged_userns_clone",
        );
        let ubuntu = Settings {
            apparmor: true,
            ..Settings::default()
        };
        with(
            ubuntu,
            Step::MapUser,
            Errno::EPERM,
            "kernel.apparmor_restrict_unprivileged_userns",
        );
        let none = Settings {
            max_zero: Some("max_net_namespaces"),
            ..Settings::default()
        };
        with(none, Step::Unshare, Errno::ENOSPC, "user.max_net_namespaces");
        let docker = Settings {
            seccomp: true,
            ..Settings::default()
        };
        with(docker, Step::Unshare, Errno::EPERM, "seccomp");
        with(
            Settings::default(),
            Step::MountProc,
            Errno::EPERM,
            "systempaths=unconfined",
        );
    }

    #[test]
    fn steps_survive_the_way_through_the_pipe() {
        for step in [
            Step::Unshare,
            Step::MapUser,
            Step::PrivateMounts,
            Step::Fork,
            Step::Tie,
            Step::MountProc,
        ] {
            assert_eq!(Step::from_number(step.number()), step);
        }
    }
}
