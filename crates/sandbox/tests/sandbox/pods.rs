//! What pods of a world see and get: pod → interception → agent → emulator → token, and programs run as pods.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use podid_sandbox::control::Request;
use podid_sandbox::control::client::Control;
use podid_sandbox::state;
use serde_json::{Value, json};

use crate::world::{Home, SANDBOX, World, said};
use crate::{Outcome, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        only_the_pod_that_is_labelled_gets_a_signed_token,
        while_the_agents_are_dead_no_pod_gets_an_answer,
        a_program_keeps_its_streams_exit_code_and_signals,
        a_run_without_a_world_makes_one_and_leaves_nothing,
        an_unknown_image_is_told_in_status_and_events,
        a_container_that_fails_is_started_again,
    ]
}

const URL: &str = "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com%2F";

/// A client of the world's cluster.
async fn cluster(world: &World<'_>) -> Result<kube::Client, Failed> {
    let _already_there = rustls::crypto::ring::default_provider().install_default();
    let file = kube::config::Kubeconfig::read_from(world.ready["kubeconfig"].as_str().unwrap())?;
    let config =
        kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}

fn in_runtime<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work)
}

/// The keys that the world's Entra publishes.
fn published_keys(world: &World<'_>) -> Result<String, Failed> {
    let _already_there = rustls::crypto::ring::default_provider().install_default();
    let text = |pointer: &str| world.ready.pointer(pointer).and_then(Value::as_str).unwrap();
    let authorities = reqwest::Certificate::from_pem_bundle(&std::fs::read(text("/caFile"))?)?;
    let http = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only(authorities)
        .build()?;
    let url = format!(
        "{}/{}/discovery/v2.0/keys",
        text("/endpoints/authority"),
        text("/tenantId")
    );
    Ok(in_runtime(async {
        http.get(url).send().await?.error_for_status()?.text().await
    })?)
}

/// What a pod with these flags is answered.
fn asked(world: &World<'_>, flags: &[&str], keys: &str) -> Result<Value, Failed> {
    let output = world.run(
        flags,
        &[SANDBOX, "__ask", URL, "--timeout-ms", "4000", "--keys", keys],
    )?;
    Ok(serde_json::from_slice(&output.stdout).map_err(|_not_json| said(&output))?)
}

fn only_the_pod_that_is_labelled_gets_a_signed_token() -> Outcome {
    let home = Home::new()?;
    let world = home.up("w")?;
    let keys = published_keys(&world)?;
    let bound = world.run(
        &["-n", "app", "--identity", "app-id"],
        &["sh", "-c", "echo $PODID_CLIENT_ID"],
    )?;
    let client_id = said(&bound).trim().to_owned();
    let answer = asked(&world, &["-n", "app", "-l", "aadpodidbinding=app-id"], &keys)?;
    assert_eq!(
        (&answer["outcome"], &answer["claims"]["appid"]),
        (&json!("token"), &json!(client_id)),
        "{answer}"
    );
    for flags in [
        &["-n", "app"][..],
        &["-n", "other", "-l", "aadpodidbinding=app-id"],
    ] {
        let answer = asked(&world, flags, &keys)?;
        assert_eq!(
            (&answer["outcome"], &answer["status"]),
            (&json!("answered"), &json!(400)),
            "{flags:?} {answer}"
        );
    }
    Ok(())
}

fn while_the_agents_are_dead_no_pod_gets_an_answer() -> Outcome {
    let home = Home::new()?;
    let world = home.up("w")?;
    let keys = published_keys(&world)?;
    let folder = std::path::PathBuf::from(world.ready["folder"].as_str().unwrap());
    let control = Control::find(&state::Home::at(folder.parent().unwrap()), &"w".parse()?)?;
    let flags = ["-n", "app", "--identity", "app-id"];
    assert_eq!(asked(&world, &flags, &keys)?["outcome"], "token");
    control.command(&Request::HoldAgents)?;
    // Two pods, one on each kind of pod network.
    for _ in 0..2 {
        assert_eq!(asked(&world, &flags, &keys)?["outcome"], "no_answer");
    }
    control.command(&Request::ReleaseAgents)?;
    assert_eq!(asked(&world, &flags, &keys)?["outcome"], "token");
    Ok(())
}

fn a_program_keeps_its_streams_exit_code_and_signals() -> Outcome {
    let home = Home::new()?;
    let world = home.up("w")?;
    let script = r#"read line; echo "out $line $1"; echo err >&2; exit 42"#;
    let mut child = home
        .command(&[
            "run",
            "--name",
            "w",
            "--",
            "sh",
            "-c",
            script,
            "sh",
            "$(HOME) a b",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().unwrap().write_all(b"in\n")?;
    let output = child.wait_with_output()?;
    assert_eq!(
        (
            output.status.code(),
            output.stdout.as_slice(),
            output.stderr.as_slice()
        ),
        (Some(42), &b"out in $(HOME) a b\n"[..], &b"err\n"[..])
    );

    let script = r#"trap "exit 9" TERM; echo ready; while :; do sleep 0.05; done"#;
    let mut child = home
        .command(&["run", "--name", "w", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line)?;
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
    assert_eq!((line.as_str(), child.wait()?.code()), ("ready\n", Some(9)));

    let missing = world.run(&[], &["no-such-program"])?;
    assert!(
        missing.status.code() == Some(127) && said(&missing).contains("no-such-program"),
        "{}",
        said(&missing)
    );
    Ok(())
}

fn a_run_without_a_world_makes_one_and_leaves_nothing() -> Outcome {
    let home = Home::new()?;
    let output = home.output(&[
        "run",
        "-n",
        "app",
        "--identity",
        "app-id",
        "--",
        "sh",
        "-c",
        "echo $PODID_RESOURCE_ID; exit 3",
    ])?;
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(
        said(&output)
            .to_lowercase()
            .contains("userassignedidentities/app-id"),
        "{}",
        said(&output)
    );
    assert!(home.is_empty());
    Ok(())
}

/// Makes a pod and waits until its first container's status is as wanted.
async fn pod_until(
    client: &kube::Client,
    spec: Value,
    wanted: impl Fn(&Value) -> bool + Send + Sync,
) -> Result<Value, Failed> {
    let api = Api::<Pod>::namespaced(client.clone(), "default");
    let pod = json!({ "metadata": { "name": "p" }, "spec": spec });
    api.create(&kube::api::PostParams::default(), &serde_json::from_value(pod)?)
        .await?;
    let status =
        |pod: Option<&Pod>| serde_json::to_value(pod.and_then(|pod| pod.status.as_ref())).unwrap_or_default();
    let seen = kube::runtime::wait::await_condition(api, "p", |pod: Option<&Pod>| wanted(&status(pod)));
    let pod = tokio::time::timeout(Duration::from_secs(30), seen)
        .await
        .map_err(|_late| "the status never came")??;
    Ok(status(pod.as_ref()))
}

fn an_unknown_image_is_told_in_status_and_events() -> Outcome {
    let home = Home::new()?;
    let world = home.up("w")?;
    in_runtime(async {
        let client = cluster(&world).await?;
        let spec = json!({ "containers": [{ "name": "c", "image": "nginx:1" }] });
        let reason = "/containerStatuses/0/state/waiting/reason";
        let status = pod_until(&client, spec, |status| {
            status.pointer(reason) == Some(&json!("ErrImagePull"))
        })
        .await?;
        assert_eq!(status["phase"], "Pending");
        let events = Api::<k8s_openapi::api::core::v1::Event>::namespaced(client, "default");
        let all = events.list(&kube::api::ListParams::default()).await?;
        let told = |event: &k8s_openapi::api::core::v1::Event| {
            event
                .message
                .as_deref()
                .is_some_and(|text| text.contains("nginx:1"))
        };
        assert!(all.items.iter().any(told));
        Ok(())
    })
}

fn a_container_that_fails_is_started_again() -> Outcome {
    let home = Home::new()?;
    let world = home.up("w")?;
    in_runtime(async {
        let client = cluster(&world).await?;
        let spec = json!({
            "initContainers": [{ "name": "i", "image": "busybox", "command": ["true"] }],
            "containers": [{ "name": "c", "image": "busybox", "command": ["sh", "-c", "exit 5"] }],
        });
        let status = pod_until(&client, spec, |status| {
            let restarts = status
                .pointer("/containerStatuses/0/restartCount")
                .and_then(Value::as_u64);
            restarts.is_some_and(|restarts| restarts >= 2)
        })
        .await?;
        let pointer = |path: &str| status.pointer(path).cloned().unwrap_or_default();
        assert_eq!(pointer("/containerStatuses/0/lastState/terminated/exitCode"), 5);
        assert_eq!(pointer("/initContainerStatuses/0/state/terminated/exitCode"), 0);
        assert_eq!(pointer("/phase"), "Running");
        Ok(())
    })
}
