//! The three processes of a world: supervisor outside, init, program. Everything here runs single-threaded, between
//! `fork` and the return to `main`.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::process::ExitCode;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, kill, signal, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, pipe2, setpgid};
use nix::{fcntl::OFlag, libc};

use super::{Side, Step, World, WorldError};

/// What the supervisor passes on. A stop of the supervisor (TSTP) is not: the world goes on meanwhile.
const FORWARDED: [Signal; 6] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Forks init, and init the program. Returns in the program at once and in the supervisor at the end.
pub(super) fn fork<T>(world: World, carried: T) -> Result<Side<T>, WorldError> {
    let tie = |errno| WorldError::refused(Step::Tie, errno);
    let (status, report) = pipe2(OFlag::O_CLOEXEC).map_err(tie)?;
    let (lifeline, life) = pipe2(OFlag::O_CLOEXEC).map_err(tie)?;
    // Held by supervisor and init for as long as they hold what is carried.
    let (released, holding) = pipe2(OFlag::O_CLOEXEC).map_err(tie)?;

    // An inherited SIG_IGN for SIGCHLD would take the children's exit codes away.
    // SAFETY: SIG_DFL runs no code of ours.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }.map_err(tie)?;
    let mut awaited = SigSet::from_iter(FORWARDED);
    awaited.add(Signal::SIGCHLD);
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&awaited), Some(&mut before)).map_err(tie)?;

    // SAFETY: this process has one thread (checked by the caller), so the child may go on like the parent.
    let forked = unsafe { nix::unistd::fork() };
    match forked.map_err(|errno| WorldError::refused(Step::Fork, errno))? {
        ForkResult::Parent { child } => {
            // What was opened for the inside must not stay open here: its ports would look alive after the
            // program has closed them.
            drop((carried, report, lifeline, released));
            drop(holding);
            let code = supervise(child, status, &awaited);
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None).map_err(tie)?;
            drop(life);
            code.map(|code| Side::Outside(ExitCode::from(code)))
        }
        ForkResult::Child => {
            drop((status, life));
            match begin(lifeline) {
                Ok(Born::Program) => {
                    drop((report, holding));
                    // Only then do ports close when the program closes them.
                    File::from(released)
                        .read_to_end(&mut Vec::new())
                        .map_err(WorldError::Proc)?;
                    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None).map_err(tie)?;
                    Ok(Side::Inside(world, carried))
                }
                Ok(Born::Init(program)) => {
                    close_all(holding);
                    leave(reap(program, &awaited))
                }
                Err((step, errno)) => {
                    let mut line = vec![step.number()];
                    line.extend((errno as i32).to_le_bytes());
                    // If the supervisor is gone there is nobody to tell.
                    let _ = File::from(report).write_all(&line);
                    leave(2)
                }
            }
        }
    }
}

/// Which process [`begin`] returns in.
enum Born {
    Init(Pid),
    Program,
}

/// The first steps of PID 1, up to and including the fork of the program.
fn begin(lifeline: OwnedFd) -> Result<Born, (Step, Errno)> {
    let tie = |errno| (Step::Tie, errno);
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(tie)?;
    // The supervisor may have died before the line above; then the other end of the pipe is closed already.
    let mut ends = [PollFd::new(lifeline.as_fd(), PollFlags::POLLIN)];
    if poll(&mut ends, PollTimeout::ZERO).map_err(tie)? > 0 {
        leave(137);
    }
    setpgid(Pid::from_raw(0), Pid::from_raw(0)).map_err(tie)?;
    // A background process group that reads from the terminal would be stopped, for ever.
    for stop in [Signal::SIGTTIN, Signal::SIGTTOU] {
        // SAFETY: SIG_IGN runs no code of ours.
        unsafe { signal(stop, SigHandler::SigIgn) }.map_err(tie)?;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>)
        .map_err(|errno| (Step::MountProc, errno))?;
    // SAFETY: still one thread.
    match unsafe { nix::unistd::fork() }.map_err(|errno| (Step::Fork, errno))? {
        ForkResult::Parent { child } => Ok(Born::Init(child)),
        ForkResult::Child => Ok(Born::Program),
    }
}

/// Waits for init's first report, then for its end; forwards signals meanwhile.
fn supervise(init: Pid, status: OwnedFd, awaited: &SigSet) -> Result<u8, WorldError> {
    let mut report = Vec::new();
    File::from(status)
        .read_to_end(&mut report)
        .map_err(WorldError::Proc)?;
    let code = reap(init, awaited);
    match report.as_slice() {
        [step, errno @ ..] if errno.len() == 4 => {
            let errno = errno.try_into().map(i32::from_le_bytes).unwrap_or_default();
            Err(WorldError::refused(
                Step::from_number(*step),
                Errno::from_raw(errno),
            ))
        }
        _ => Ok(code),
    }
}

/// Forwards signals to `child` and reaps whatever ends, until `child` does; its exit code.
fn reap(child: Pid, awaited: &SigSet) -> u8 {
    loop {
        match awaited.wait() {
            Ok(Signal::SIGCHLD) => {
                while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                    match status {
                        WaitStatus::Exited(pid, code) if pid == child => {
                            return u8::try_from(code & 0xff).unwrap_or(u8::MAX);
                        }
                        WaitStatus::Signaled(pid, signal, _) if pid == child => {
                            return u8::try_from(128 + signal as i32).unwrap_or(u8::MAX);
                        }
                        WaitStatus::StillAlive => break,
                        _ => {}
                    }
                }
            }
            // The child may have ended already; its SIGCHLD comes next.
            Ok(signal) => drop(kill(child, signal)),
            Err(_) => {}
        }
    }
}

/// Ends this process without running anything of the program's that was copied by `fork`.
fn leave(code: u8) -> ! {
    // SAFETY: ends the process; nothing runs after it.
    unsafe { libc::_exit(code.into()) }
}

/// Closes all but the standard streams, so that init keeps no port or pipe of the program's open; `last` after all
/// others.
fn close_all(last: OwnedFd) {
    let last = last.into_raw_fd();
    let highest = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
        .map_or(1024, |(soft, _)| i32::try_from(soft.min(65536)).unwrap_or(1024));
    let after = last.saturating_add(1);
    if !(close_range(3, last - 1) && close_range(after, i32::MAX)) {
        // Before Linux 5.9.
        for fd in (3..last).chain(after..highest) {
            // SAFETY: as in `close_range`.
            unsafe { libc::close(fd) };
        }
    }
    // SAFETY: as in `close_range`.
    unsafe { libc::close(last) };
}

/// Closes the descriptors from `first` to `last`; whether the kernel knows how.
fn close_range(first: i32, last: i32) -> bool {
    let (first, last) = (first.unsigned_abs(), last.unsigned_abs());
    // SAFETY: init uses no descriptor from here on and drops no owner of one: it leaves by `_exit`.
    // By number: libc has no name for it on every target.
    first > last || unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0
}
