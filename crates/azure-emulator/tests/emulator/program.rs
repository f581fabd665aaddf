//! The program itself: its ready line, faults of a scenario file, the guide's example for CI, what it says when it is stopped.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// A running `azure-emulator`. Dropped, it is killed.
struct Program {
    child: Child,
    ready: Value,
    http: reqwest::Client,
}

impl Program {
    async fn start(flags: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_azure-emulator"))
            .args(flags)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().expect("a ready line");
        let ready: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(ready["event"], "ready");
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let pem = ready["caPem"].as_str().map_or_else(
            || std::fs::read(ready["caFile"].as_str().unwrap()).unwrap(),
            |pem| pem.as_bytes().to_vec(),
        );
        let port = ready["arm"].as_str().unwrap().rsplit(':').next().unwrap();
        let address = format!("127.0.0.1:{port}").parse().unwrap();
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem).unwrap())
            .resolve("azure", address)
            // Shorter than anything waits for, and longer than an answer takes.
            .timeout(Duration::from_secs(5))
            .build()
            .unwrap();
        Self { child, ready, http }
    }

    async fn metadata(&self, path: &str) -> reqwest::Result<reqwest::Response> {
        let url = format!("{}{path}", self.ready["imds"].as_str().unwrap());
        self.http.get(url).header("Metadata", "true").send().await
    }

    /// Stops it as people do; gives what it said on the way.
    async fn stop(mut self) -> String {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut said).await.unwrap();
        assert!(self.child.wait().await.unwrap().success(), "{said}");
        said
    }
}

#[tokio::test]
async fn a_scenario_file_sets_every_kind_of_fault_on_its_route() {
    let folder = tempfile::tempdir().unwrap();
    let scenario = folder.path().join("scenario.json");
    let on = |path: &str| json!({ "service": "imds", "path": path });
    let with = |path: &str, more: Value| {
        let mut fault = on(path);
        fault
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        fault
    };
    let faults = json!([
        with(
            "/metadata/identity/*",
            json!({ "status": 500, "body": { "error": "broken" }, "headers": { "x-why": "test" }, "times": 1 })
        ),
        with("/metadata/identity/*", json!({ "delayMs": 300, "times": 1 })),
        with("/metadata/versions", json!({ "reset": true, "times": 1 })),
        with("/metadata/instance/compute", json!({ "hang": true })),
        with(
            "/metadata/instance",
            json!({ "throttle": { "requests": 1, "perSecs": 3_600, "retryAfterSecs": 9 } })
        ),
    ]);
    std::fs::write(&scenario, faults.to_string()).unwrap();
    let program = Program::start(&[
        "--listen=127.0.0.1:0",
        "--imds=127.0.0.1:0",
        &format!("--scenario={}", scenario.display()),
    ])
    .await;
    let token = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net";
    let answer = program.metadata(token).await.unwrap();
    assert_eq!(
        (
            answer.status().as_u16(),
            answer.headers()["x-why"].to_str().unwrap()
        ),
        (500, "test")
    );
    assert_eq!(
        answer.json::<Value>().await.unwrap(),
        json!({ "error": "broken" })
    );
    let begun = tokio::time::Instant::now();
    assert_eq!(program.metadata(token).await.unwrap().status(), 200);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert!(
        program
            .metadata("/metadata/versions")
            .await
            .unwrap_err()
            .is_request()
    );
    assert_eq!(
        program.metadata("/metadata/versions").await.unwrap().status(),
        200
    );
    let instance = "/metadata/instance?api-version=2021-02-01";
    assert_eq!(program.metadata(instance).await.unwrap().status(), 200);
    let throttled = program.metadata(instance).await.unwrap();
    assert_eq!(
        (
            throttled.status().as_u16(),
            throttled.headers()["retry-after"].to_str().unwrap()
        ),
        (429, "9")
    );
    let hanging = program
        .metadata("/metadata/instance/compute?api-version=2021-02-01")
        .await;
    assert!(hanging.unwrap_err().is_timeout());
    program.stop().await;
}

#[tokio::test]
async fn the_guides_service_for_ci_is_trusted_by_its_name_with_the_file_of_the_state_folder() {
    let guide = include_str!("../../../../docs/guides/azure-emulator.md");
    let flags = guide
        .lines()
        .find_map(|line| line.trim().strip_prefix("command: [")?.strip_suffix(']'))
        .expect("the guide's compose file has the emulator's command");
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let flags: Vec<String> = flags
        .split(',')
        .map(|flag| flag.trim().trim_matches('"'))
        // As written, but on this machine's loopback only, on free ports, and not in its root folder.
        .map(|flag| match flag {
            "0.0.0.0:8443" | "0.0.0.0:8169" => "127.0.0.1:0".to_owned(),
            "/state" => state.display().to_string(),
            other => other.to_owned(),
        })
        .collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let program = Program::start(&flags).await;
    assert_eq!(program.ready["caFile"], json!(state.join("ca.pem")));
    // The name that the guide's tests use, over the port that was taken here.
    let port = program.ready["arm"]
        .as_str()
        .unwrap()
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned();
    let url = format!("https://azure:{port}/metadata/endpoints?api-version=2022-09-01");
    let endpoints: Value = program.http.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(
        endpoints["resourceManager"],
        json!(format!("https://azure:{port}"))
    );
    program.stop().await;
    assert!(state.join("signing.key").exists());
}

#[tokio::test]
async fn stopped_it_lists_the_operations_that_it_did_not_know() {
    let program = Program::start(&["--listen=127.0.0.1:0", "--imds=127.0.0.1:0", "--unsupported"]).await;
    let text = |name: &str| program.ready[name].as_str().unwrap();
    let unknown = format!("{}/{}/oauth2/v2.0/devicecode", text("arm"), text("tenantId"));
    let operation = format!(
        "unknown operation: POST /{}/oauth2/v2.0/devicecode",
        text("tenantId")
    );
    let refused = program.http.post(&unknown).send().await.unwrap();
    assert!(!refused.status().is_success());
    let said = program.stop().await;
    assert!(said.contains(&operation), "{said}");
}
