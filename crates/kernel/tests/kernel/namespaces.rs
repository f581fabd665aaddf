//! Namespaces and what is wired between them.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{ExitCode, Stdio};

use libtest_mimic::Trial;
use podid_kernel::{Namespace, Room, cni};
use tokio::process::Command;

use crate::worlds::say;
use crate::{Outcome, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_namespace_has_only_its_own_sockets,
        a_bridge_pod_and_a_point_to_point_pod_reach_each_other_with_their_own_addresses,
        a_program_sees_its_room,
        a_namespace_is_opened_by_the_path_that_another_process_gave,
    ]
}

fn a_namespace_has_only_its_own_sockets() -> Outcome {
    let (one, other) = (Namespace::create()?, Namespace::create()?);
    let listener = one.run(|| TcpListener::bind(("127.0.0.1", 0)))??;
    let port = listener.local_addr()?.port();
    one.run(|| TcpStream::connect(("127.0.0.1", port)))??;
    other
        .run(|| TcpStream::connect(("127.0.0.1", port)))?
        .unwrap_err();
    assert_ne!(one.id()?, other.id()?);
    assert_eq!(one.id()?, one.run(Namespace::current)??.id()?);
    Ok(())
}

fn a_bridge_pod_and_a_point_to_point_pod_reach_each_other_with_their_own_addresses() -> Outcome {
    let (gateway, a, b) = (
        Ipv4Addr::new(10, 244, 0, 1),
        Ipv4Addr::new(10, 244, 0, 11),
        Ipv4Addr::new(10, 244, 1, 12),
    );
    let (node, on_bridge, direct) = (Namespace::create()?, Namespace::create()?, Namespace::create()?);
    cni::forward(&node)?;
    cni::bridge(&node, "cni0", gateway, 24)?;
    cni::join_bridge(&node, "cni0", "veth-a", &on_bridge, a, 24, gateway)?;
    cni::join_point_to_point(&node, "azv-b", &direct, b)?;
    for (server, at, client, from) in [(&on_bridge, a, &direct, b), (&direct, b, &on_bridge, a)] {
        let listener = server.run(|| TcpListener::bind((at, 0)))??;
        let address = listener.local_addr()?;
        let _stream = client.run(|| TcpStream::connect(address))??;
        let (_, peer) = listener.accept()?;
        assert_eq!(peer.ip(), from);
    }
    Ok(())
}

const SECRET: &str = "/var/run/secrets/azure/tokens/token";

/// The program in the room: says what it sees.
pub(crate) fn tell_room() -> ExitCode {
    say(nix::unistd::gethostname().unwrap().display());
    say(std::fs::read_to_string("/etc/hosts").unwrap().trim());
    say(std::fs::read_to_string(SECRET).unwrap());
    say(std::fs::read_link("/proc/self/ns/net").unwrap().display());
    say(nix::unistd::getpgrp() == nix::unistd::getpid());
    ExitCode::SUCCESS
}

fn a_program_sees_its_room() -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let namespace = Namespace::create()?;
        let folder = tempfile::tempdir()?;
        let hosts = "127.0.0.1 localhost\n10.0.0.7 arm.podid.test\n";
        std::fs::write(folder.path().join("hosts"), hosts)?;
        std::fs::write(folder.path().join("token"), "t")?;
        let room = Room::default()
            .hostname("demo")
            .hosts(folder.path().join("hosts"))
            .empty("/run")
            .bind(folder.path().join("token"), SECRET);
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("part:room")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let output = namespace.spawn(&room, &mut command)?.wait_with_output().await?;
        let text = String::from_utf8(output.stdout)?;
        let net = namespace.run(|| std::fs::read_link("/proc/thread-self/ns/net"))??;
        let seen = [
            "demo",
            "127.0.0.1 localhost",
            "10.0.0.7 arm.podid.test",
            "t",
            &net.display().to_string(),
            "true",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), seen);
        // What was put up for the program is not seen here.
        assert!(!std::path::Path::new(SECRET).exists());
        assert_ne!(std::fs::read_to_string("/etc/hosts")?, hosts);
        Ok(())
    })
}

/// The other process: opens what it is given and asks the port there.
pub(crate) fn open_and_ask() -> ExitCode {
    let mut given = std::env::args().skip(2);
    let path = given.next().unwrap();
    let port: u16 = given.next().unwrap().parse().unwrap();
    let namespace = Namespace::open(path.as_ref()).unwrap();
    namespace
        .run(|| TcpStream::connect(("127.0.0.1", port)))
        .unwrap()
        .unwrap();
    ExitCode::SUCCESS
}

fn a_namespace_is_opened_by_the_path_that_another_process_gave() -> Outcome {
    let namespace = Namespace::create()?;
    let listener = namespace.run(|| TcpListener::bind(("127.0.0.1", 0)))??;
    let port = listener.local_addr()?.port();
    let status = std::process::Command::new("/proc/self/exe")
        .args(["part:open".into(), namespace.path(), port.to_string().into()])
        .status()?;
    assert!(status.success());
    assert_eq!(Namespace::open(&namespace.path())?.id()?, namespace.id()?);
    Ok(())
}
