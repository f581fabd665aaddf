//! A private world: user, network, mount and PID namespaces of our own, entered without root where the kernel allows
//! it. Nothing here touches the machine's own network, and nothing stays on disk.
//!
//! ```text
//! supervisor ──unshare, fork──▶ init (PID 1) ──fork──▶ program (PID 2)
//!  waits, forwards signals       mounts /proc, reaps     gets what was opened outside, runs main
//!        ▲       └─ dies: SIGKILL ─▶ ▲   └─ dies: the kernel kills everything inside
//!        └──────── exit code ────────┴──────── exit code
//! ```

mod init;
mod refusal;

use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid, getpid};

pub use refusal::{Step, WorldError};

use crate::netns::Links;

/// What the program knows of the world it runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct World {
    supervisor: u32,
    rootless: bool,
}

/// Where [`enter`] returns: the process that called it goes on in two.
#[derive(Debug)]
pub enum Side<T> {
    /// In the process that called: the world has ended, and this is its program's exit code (128 + signal if it was
    /// killed). Return it from `main`.
    Outside(ExitCode),
    /// In the world: the program goes on here, with what it had opened outside.
    Inside(World, T),
}

impl World {
    /// The process id by which the machine knows this world: a signal sent to it reaches the program inside, and
    /// when it is killed the world ends with it.
    pub fn supervisor(&self) -> u32 {
        self.supervisor
    }

    /// Whether the world has a user namespace of its own, that is, was entered without privileges.
    pub fn rootless(&self) -> bool {
        self.rootless
    }
}

/// Enters a new world. To be called first thing in `main`, before any thread or runtime exists.
///
/// Inside, the program is root (rootless: its user id outside is mapped to 0, all others are unmapped), it has an own
/// network with nothing but a loopback interface, private mounts, and an own `/proc`. Sockets in
/// `carried` were made outside and stay there: that is how people reach a world.
///
/// The program's process group is its own, so Ctrl-C reaches only the supervisor, which forwards INT, TERM, HUP,
/// QUIT, USR1 and USR2 exactly once. For the same reason it cannot read from a terminal (it gets an error, it does
/// not stop); hand such input in through a pipe.
pub fn enter<T>(carried: T) -> Result<Side<T>, WorldError> {
    single_threaded()?;
    let supervisor = getpid().as_raw().unsigned_abs();
    let rootless = unshare_all()?;
    Links::open()
        .and_then(|links| links.up("lo"))
        .map_err(WorldError::Loopback)?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .map_err(|errno| WorldError::refused(Step::PrivateMounts, errno))?;
    init::fork(World { supervisor, rootless }, carried)
}

/// The whole of a `main` that lives in a world: enters it, runs `inside` there and gives the exit code to return. Where
/// the kernel forbids it, says why in one sentence on standard error and gives 2.
///
/// A test binary that needs namespaces (`harness = false`, libtest-mimic) is
/// `fn main() -> ExitCode { podid_kernel::world::run((), |_, ()| libtest_mimic::run(&args, trials()).exit_code()) }`.
pub fn run<T>(carried: T, inside: impl FnOnce(World, T) -> ExitCode) -> ExitCode {
    match enter(carried) {
        Ok(Side::Inside(world, carried)) => inside(world, carried),
        Ok(Side::Outside(code)) => code,
        Err(error) => {
            // Nothing is left to try when standard error is closed; the exit code says it too.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::from(2)
        }
    }
}

/// `unshare(CLONE_NEWUSER)` and a fork without exec are only sound with one thread.
fn single_threaded() -> Result<(), WorldError> {
    let threads = fs::read_dir("/proc/self/task").map_err(WorldError::Proc)?.count();
    if threads == 1 {
        Ok(())
    } else {
        Err(WorldError::Threads(threads))
    }
}

/// Makes the namespaces; whether that took a user namespace. Root without `CAP_SYS_ADMIN` (in a container) is tried
/// as an ordinary user.
fn unshare_all() -> Result<bool, WorldError> {
    let all = CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS;
    let (uid, gid) = (geteuid(), getegid());
    if uid.is_root() {
        match unshare(all) {
            Ok(()) => return Ok(false),
            Err(Errno::EPERM) => {}
            Err(errno) => return Err(WorldError::refused(Step::Unshare, errno)),
        }
    }
    let refused = |errno| WorldError::refused(Step::Unshare, errno);
    unshare(CloneFlags::CLONE_NEWUSER).map_err(refused)?;
    // Since Linux 3.19 an ordinary user may map groups only after giving up setgroups (user_namespaces(7)).
    write_map("setgroups", "deny")?;
    write_map("uid_map", &format!("0 {uid} 1"))?;
    write_map("gid_map", &format!("0 {gid} 1"))?;
    // Only now: a network namespace gives its files of /proc to the root that is mapped when it is made, and without one
    // they are nobody's here to read.
    unshare(all).map_err(refused)?;
    Ok(true)
}

fn write_map(file: &str, text: &str) -> Result<(), WorldError> {
    fs::write(format!("/proc/self/{file}"), text).map_err(|error| {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
        WorldError::refused(Step::MapUser, errno)
    })
}
