//! Namespaces and what is wired between them.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Stdio;

use libtest_mimic::Trial;
use podid_kernel::{Namespace, Room, cni};
use tokio::process::Command;

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

fn a_program_sees_its_room() -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let namespace = Namespace::create()?;
        let hosts = "127.0.0.1 localhost\n10.0.0.7 arm.podid.test\n";
        let folder = std::env::temp_dir().join(format!("podid-room-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("hosts"), hosts)?;
        std::fs::write(folder.join("token"), "t")?;
        let room = Room::default()
            .hostname("demo")
            .hosts(folder.join("hosts"))
            .empty("/run")
            .bind(folder.join("token"), "/var/run/secrets/azure/tokens/token");
        let script = "hostname; cat /etc/hosts; cat /run/secrets/azure/tokens/token; echo; ls /proc/self/ns/net -l; \
                      ps -o pgid= -p $$ | tr -d ' '; echo $$";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped());
        let output = namespace.spawn(&room, &mut command)?.wait_with_output().await?;
        let text = String::from_utf8(output.stdout)?;
        std::fs::remove_dir_all(&folder)?;
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..4], ["demo", "127.0.0.1 localhost", "10.0.0.7 arm.podid.test", "t"], "{text}");
        let here = std::fs::read_link("/proc/thread-self/ns/net")?.display().to_string();
        assert!(lines[4].contains("net:[") && !lines[4].contains(&here), "{text}");
        assert_eq!(lines[5], lines[6], "a process group of its own: {text}");
        // What was put up for the program is not seen here.
        assert!(!std::path::Path::new("/run/secrets/azure/tokens/token").exists());
        assert_ne!(std::fs::read_to_string("/etc/hosts")?, hosts);
        Ok(())
    })
}

fn a_namespace_is_opened_by_the_path_that_another_process_gave() -> Outcome {
    let namespace = Namespace::create()?;
    let again = Namespace::open(&namespace.path())?;
    assert_eq!(namespace.id()?, again.id()?);
    let listener = namespace.run(|| TcpListener::bind(("127.0.0.1", 0)))??;
    let address = listener.local_addr()?;
    let mut stream = again.run(|| TcpStream::connect(address))??;
    drop(listener.accept()?);
    assert_eq!(stream.read(&mut [0])?, 0);
    Ok(())
}
