//! How worlds begin and end, and that nothing is left of them.

use std::net::TcpListener;
use std::process::Stdio;

use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::world::{Home, eventually, in_namespace, inside, said};
use crate::{Outcome, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        the_whole_story_holds,
        a_world_that_is_told_to_stop_leaves_nothing,
        a_world_that_is_told_to_stop_before_it_is_ready_leaves_nothing,
        a_killed_world_leaves_no_process_and_the_next_one_removes_its_folder,
        worlds_side_by_side_do_not_disturb_each_other,
        a_name_or_port_that_is_taken_is_named_and_nothing_is_half_made,
        down_without_a_world_says_so,
        env_exports_lead_to_the_world,
    ]
}

fn the_whole_story_holds() -> Outcome {
    let home = Home::new()?;
    let output = home.output(&["demo", "--json"])?;
    let told: Value = serde_json::from_slice(&output.stdout).map_err(|_not_json| said(&output))?;
    assert!(output.status.success() && told["ok"] == true, "{}", said(&output));
    assert!(told["steps"].as_array().unwrap().len() > 20, "{told}");
    assert!(home.is_empty());
    Ok(())
}

fn a_world_that_is_told_to_stop_leaves_nothing() -> Outcome {
    let home = Home::new()?;
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let world = home.up("w")?;
        let namespace = std::fs::read_link(format!("/proc/{}/ns/pid_for_children", world.supervisor()))?;
        assert!(inside(world.supervisor()).len() > 5);
        assert_eq!(world.end(signal)?, Some(0));
        assert_eq!(in_namespace(&namespace), Vec::<String>::new());
        assert!(home.is_empty());
    }
    Ok(())
}

fn a_world_that_is_told_to_stop_before_it_is_ready_leaves_nothing() -> Outcome {
    let home = Home::new()?;
    let mut child = home.begin(&["--name", "early"])?;
    let supervisor = Pid::from_raw(i32::try_from(child.id())?);
    // As soon as there is something that could be left.
    eventually("the world's folder is there", || !home.is_empty())?;
    eventually("its first process is there", || !inside(supervisor).is_empty())?;
    kill(supervisor, Signal::SIGINT)?;
    child.wait()?;
    assert!(home.is_empty());
    Ok(())
}

fn a_killed_world_leaves_no_process_and_the_next_one_removes_its_folder() -> Outcome {
    let home = Home::new()?;
    let world = home.up("killed")?;
    let namespace = std::fs::read_link(format!("/proc/{}/ns/pid_for_children", world.supervisor()))?;
    let folder = std::path::PathBuf::from(world.ready["folder"].as_str().unwrap());
    world.end(Signal::SIGKILL)?;
    eventually("its processes are gone", || in_namespace(&namespace).is_empty())?;
    assert!(folder.exists());
    let next = home.up("next")?;
    assert!(!folder.exists());
    next.end(Signal::SIGTERM)?;

    home.up("again")?.end(Signal::SIGKILL)?;
    let down = home.output(&["down", "--name", "again"])?;
    assert!(down.status.success(), "{}", said(&down));
    assert!(home.is_empty());
    Ok(())
}

fn worlds_side_by_side_do_not_disturb_each_other() -> Outcome {
    let home = Home::new()?;
    let (one, two) = (home.up("one")?, home.up("two")?);
    for world in [&one, &two] {
        let output = world.run(&["-n", "only-here"], &["cat", "/etc/hosts"])?;
        // The first pod of each has the same address, in networks of their own.
        assert!(said(&output).contains("10.244.0.10 "), "{}", said(&output));
    }
    one.end(Signal::SIGKILL)?;
    assert!(two.run(&[], &["true"])?.status.success());
    assert_eq!(two.end(Signal::SIGTERM)?, Some(0));
    Ok(())
}

fn a_name_or_port_that_is_taken_is_named_and_nothing_is_half_made() -> Outcome {
    let home = Home::new()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    let output = home.output(&["up", "--azure-port", &port])?;
    assert!(
        !output.status.success() && said(&output).contains(&format!("port {port}")),
        "{}",
        said(&output)
    );
    assert!(said(&output).contains("--azure-port") && said(&output).trim().lines().count() == 1);
    assert!(home.is_empty());
    let world = home.up("w")?;
    let output = home.output(&["up", "--name", "w"])?;
    assert!(
        !output.status.success() && said(&output).contains("`w` is running already"),
        "{}",
        said(&output)
    );
    assert!(world.run(&[], &["true"])?.status.success());
    Ok(())
}

fn down_without_a_world_says_so() -> Outcome {
    let home = Home::new()?;
    let output = home.output(&["down"])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("no world `default` is running"),
        "{}",
        said(&output)
    );
    Ok(())
}

fn env_exports_lead_to_the_world() -> Outcome {
    let home = Home::new()?;
    let world = home.up("w")?;
    let exports = home.output(&["env", "--name", "w"])?;
    let mut shell = std::process::Command::new("sh");
    shell
        .args([
            "-c",
            &format!(
                "{}\necho \"$KUBECONFIG|$AZURE_RESOURCE_MANAGER_ENDPOINT|$SSL_CERT_FILE\"",
                said(&exports)
            ),
        ])
        .stdin(Stdio::null());
    let seen = said(&shell.output()?);
    let ready = &world.ready;
    let expected: Vec<&str> = [
        &ready["kubeconfig"],
        &ready["endpoints"]["resourceManager"],
        &ready["caFile"],
    ]
    .map(|value| value.as_str().unwrap())
    .to_vec();
    assert_eq!(seen.trim(), expected.join("|"));
    Ok(())
}
