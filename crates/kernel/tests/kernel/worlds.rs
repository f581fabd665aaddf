//! Worlds from outside: exit codes, signals, what lives and what dies. The tests run this binary again as a program
//! that enters a world of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};

use libtest_mimic::Trial;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use podid_kernel::world::{self, Side};

use crate::{Outcome, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        the_programs_exit_code_is_the_supervisors,
        a_signal_reaches_the_program_exactly_once,
        killing_the_supervisor_kills_everything_inside,
        init_reaps_orphans,
        a_listener_made_outside_is_served_inside_and_closed_with_it,
        a_world_is_refused_after_a_thread_has_started,
        a_setting_that_forbids_a_world_is_named,
    ]
}

/// What this binary does when started with the name of a part.
pub(crate) fn part(name: &str) -> Option<fn() -> ExitCode> {
    Some(match name {
        "part:exit" => || world::run((), |_, ()| ExitCode::from(42)),
        "part:signal" => || world::run((), |_, ()| tell_signals()),
        "part:stay" => || world::run((), |_, ()| stay()),
        "part:orphan" => || world::run((), |_, ()| orphan()),
        "part:parent" => leave_a_child,
        "part:forbidden" => forbidden,
        "part:nothing" => || ExitCode::SUCCESS,
        "part:open" => crate::namespaces::open_and_ask,
        "part:room" => crate::namespaces::tell_room,
        "part:serve" => serve,
        "part:thread" => || {
            std::thread::scope(|scope| {
                scope
                    .spawn(|| world::run((), |_, ()| ExitCode::SUCCESS))
                    .join()
                    .unwrap()
            })
        },
        _ => return None,
    })
}

fn start(part: &str) -> std::io::Result<(Child, BufReader<ChildStdout>)> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(part)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let output = child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
    Ok((child, BufReader::new(output)))
}

fn line(from: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

pub(crate) fn say(text: impl std::fmt::Display) {
    let mut out = std::io::stdout();
    writeln!(out, "{text}").and_then(|()| out.flush()).unwrap();
}

fn the_programs_exit_code_is_the_supervisors() -> Outcome {
    let (mut child, _) = start("part:exit")?;
    assert_eq!(child.wait()?.code(), Some(42));
    Ok(())
}

/// Says each signal that comes, until USR1.
fn tell_signals() -> ExitCode {
    let mut awaited = SigSet::empty();
    awaited.add(Signal::SIGINT);
    awaited.add(Signal::SIGUSR1);
    awaited.thread_block().unwrap();
    say("ready");
    loop {
        let signal = awaited.wait().unwrap();
        say(signal);
        if signal == Signal::SIGUSR1 {
            return ExitCode::SUCCESS;
        }
    }
}

fn a_signal_reaches_the_program_exactly_once() -> Outcome {
    let (mut child, mut output) = start("part:signal")?;
    assert_eq!(line(&mut output)?, "ready");
    let pid = i32::try_from(child.id())?;
    // To the whole process group, as a terminal does.
    kill(Pid::from_raw(-pid), Signal::SIGINT)?;
    assert_eq!(line(&mut output)?, "SIGINT");
    // Of several pending signals the lowest number is taken first: a second INT would come before this one.
    kill(Pid::from_raw(pid), Signal::SIGUSR1)?;
    assert_eq!(line(&mut output)?, "SIGUSR1");
    assert!(child.wait()?.success());
    Ok(())
}

/// Starts another process, says so, and waits for ever.
fn stay() -> ExitCode {
    let mut child = Command::new("/proc/self/exe")
        .arg("part:signal")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut inner = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(line(&mut inner).unwrap(), "ready");
    say("ready");
    child.wait().unwrap();
    ExitCode::FAILURE
}

fn killing_the_supervisor_kills_everything_inside() -> Outcome {
    let (mut child, mut output) = start("part:stay")?;
    assert_eq!(line(&mut output)?, "ready");
    child.kill()?;
    assert_eq!(child.wait()?.signal(), Some(9));
    // Every process of the world holds this pipe: its end is the end of the last one.
    let mut rest = String::new();
    output.read_to_string(&mut rest)?;
    assert_eq!(rest, "");
    Ok(())
}

#[expect(clippy::zombie_processes, reason = "init is to do it: that is the test")]
fn leave_a_child() -> ExitCode {
    Command::new("/proc/self/exe")
        .arg("part:nothing")
        .spawn()
        .unwrap();
    ExitCode::SUCCESS
}

/// A grandchild whose parent is gone, and which ends: it must not stay as a zombie.
fn orphan() -> ExitCode {
    Command::new("/proc/self/exe")
        .arg("part:parent")
        .status()
        .unwrap();
    let zombies = || {
        fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            fs::read_to_string(entry.path().join("stat")).is_ok_and(|stat| stat.contains(") Z "))
        })
    };
    let others = || {
        let pids = fs::read_dir("/proc").unwrap().flatten();
        pids.filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .parse::<u32>()
                .is_ok_and(|pid| pid > 2)
        })
        .count()
    };
    // Bounded by the test's own patience, not by a clock: either it is reaped or the test hangs and is seen.
    while others() > 0 || zombies() {
        std::thread::yield_now();
    }
    ExitCode::SUCCESS
}

fn init_reaps_orphans() -> Outcome {
    let (mut child, _) = start("part:orphan")?;
    assert!(child.wait()?.success());
    Ok(())
}

/// Opens a listener outside, serves one connection inside, closes it, waits.
fn serve() -> ExitCode {
    let outside = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    world::run(outside, |_, listener| {
        say(listener.local_addr().unwrap().port());
        let (mut stream, _) = listener.accept().unwrap();
        // It is not on the world's own loopback.
        let inside = TcpStream::connect(listener.local_addr().unwrap()).is_err();
        write!(stream, "inside {inside}").unwrap();
        drop((stream, listener));
        say("closed");
        let mut byte = [0];
        std::io::stdin()
            .read_exact(&mut byte)
            .map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
    })
}

fn a_listener_made_outside_is_served_inside_and_closed_with_it() -> Outcome {
    let (mut child, mut output) = start("part:serve")?;
    let port: u16 = line(&mut output)?.parse()?;
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    assert_eq!(answer, "inside true");
    assert_eq!(line(&mut output)?, "closed");
    // Neither supervisor nor init keeps the port open.
    let refused = TcpStream::connect(("127.0.0.1", port)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    child
        .stdin
        .take()
        .ok_or(std::io::ErrorKind::BrokenPipe)?
        .write_all(b"x")?;
    assert!(child.wait()?.success());
    Ok(())
}

fn a_world_is_refused_after_a_thread_has_started() -> Outcome {
    let (child, _) = start("part:thread")?;
    let output = child.wait_with_output()?;
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr)?;
    assert!(said.contains("before any thread is started"), "{said}");
    // And from here, where libtest-mimic's threads run.
    assert!(!matches!(world::enter(()), Ok(Side::Inside(..))));
    Ok(())
}

/// Forbids itself network namespaces, by a setting of its own user namespace, and tries to enter a world.
fn forbidden() -> ExitCode {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).unwrap();
    fs::write("/proc/self/setgroups", "deny").unwrap();
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/self/{map}"), "0 0 1").unwrap();
    }
    fs::write("/proc/sys/user/max_net_namespaces", "0").unwrap();
    world::run((), |_, ()| ExitCode::SUCCESS)
}

fn a_setting_that_forbids_a_world_is_named() -> Outcome {
    let (child, _) = start("part:forbidden")?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("sysctl user.max_net_namespaces") && said.lines().count() == 1,
        "{said}"
    );
    Ok(())
}
