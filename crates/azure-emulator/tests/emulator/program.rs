//! The program itself: its ready line, and what it says when it is stopped.

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::{Certificate, Client};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Command;

#[tokio::test]
async fn stopped_it_lists_the_operations_that_it_did_not_know() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_azure-emulator"))
        .args([
            "--listen",
            "127.0.0.1:0",
            "--imds",
            "127.0.0.1:0",
            "--unsupported",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).await.unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(ready["event"], "ready");
    // Err means that another test's emulator has installed one.
    let _already_there = rustls::crypto::ring::default_provider().install_default();
    let text = |name: &str| ready[name].as_str().unwrap().to_owned();
    let http = Client::builder()
        .no_proxy()
        .tls_certs_only(Certificate::from_pem_bundle(text("caPem").as_bytes()).unwrap())
        .build()
        .unwrap();
    let unknown = format!("{}/{}/oauth2/v2.0/devicecode", text("arm"), text("tenantId"));
    let refused = http.post(&unknown).send().await.unwrap();
    assert!(!refused.status().is_success());
    kill(
        Pid::from_raw(child.id().unwrap().try_into().unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .await
        .unwrap();
    assert!(child.wait().await.unwrap().success(), "{said}");
    let operation = format!(
        "unknown operation: POST /{}/oauth2/v2.0/devicecode",
        text("tenantId")
    );
    assert!(said.contains(&operation), "{said}");
}
