//! The sample workload against scripted servers: what it asks, what it says, and what it never says.

#![expect(clippy::unwrap_used, reason = "test helpers")]

use std::io::Write;
use std::sync::Arc;

use clap::Parser;
use parking_lot::Mutex;
use podid_demo::DemoArgs;
use podid_demo::printer::Printer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const TOKEN: &str = "header.payload.signature-that-must-stay-secret";
const CLIENT: &str = "11111111-2222-3333-4444-555555555555";

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    demo: DemoArgs,
}

#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Write for Text {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Text {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }
}

/// Answers each request (head as text) by the script, as long as connections come.
async fn serve(listener: TcpListener, script: impl Fn(&str) -> (u16, String) + Send + Sync) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).await.unwrap() == 0 {
                break;
            }
            head.extend_from_slice(&byte);
        }
        let head = String::from_utf8(head).unwrap();
        let (status, body) = script(&head);
        let answer = format!(
            "HTTP/1.1 {status} Scripted\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

/// What a run gave.
struct Seen {
    result: Result<(), String>,
    lines: String,
    details: String,
    requests: Vec<String>,
}

async fn run(flags: &[&str], script: impl Fn(&str, &str) -> (u16, String) + Send + Sync) -> Seen {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let mut command = vec!["podid-demo", "--metadata", &base, "--resource-manager", &base];
    command.extend_from_slice(flags);
    let args = Cli::try_parse_from(command).unwrap().demo;
    let (lines, details) = (Text::default(), Text::default());
    let requests = Mutex::new(Vec::new());
    let server = serve(listener, |head| {
        requests.lock().push(head.to_owned());
        script(&base, head)
    });
    let result = tokio::select! {
        () = server => panic!("the server ended"),
        result = args.run_with(Printer::new(lines.clone(), details.clone())) => result,
    };
    Seen {
        result: result.map_err(|error| format!("{error:#}")),
        lines: lines.text(),
        details: details.text(),
        requests: requests.into_inner(),
    }
}

fn all_well(_base: &str, head: &str) -> (u16, String) {
    let body = if head.starts_with("GET /metadata/identity/oauth2/token?") {
        format!(
            r#"{{"access_token":"{TOKEN}","client_id":"{CLIENT}","expires_in":"86399","expires_on":"1764000000","resource":"https://management.azure.com/","token_type":"Bearer"}}"#
        )
    } else if head.starts_with("GET /metadata/instance?") {
        r#"{"compute":{"name":"aks-nodepool1_0","location":"eastus"},"network":{}}"#.to_owned()
    } else if head
        .starts_with("GET /subscriptions/S/resourceGroups/G/providers/Microsoft.Compute/virtualMachines?")
    {
        r#"{"value":[]}"#.to_owned()
    } else {
        return (404, r#"{"error":"unexpected"}"#.to_owned());
    };
    (200, body)
}

const FLAGS: [&str; 5] = [
    "--subscriptionid=S",
    "--clientid",
    CLIENT,
    "--resourcegroup=G",
    "--rounds=1",
];

#[tokio::test]
async fn all_is_well_says_exactly_the_four_lines_of_the_tutorial() {
    let seen = run(&FLAGS, all_well).await;
    let base = "http://127.0.0.1:";
    let port: String = seen
        .lines
        .split(base)
        .nth(1)
        .unwrap()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    let expected = format!(
        "successfully doARMOperations vm count 0\n\
         successfully acquired a token using the MSI, msiEndpoint({base}{port}/metadata/identity/oauth2/token)\n\
         successfully acquired a token, userAssignedID MSI, msiEndpoint({base}{port}/metadata/identity/oauth2/token) clientID({CLIENT})\n\
         successfully made GET on instance metadata\n"
    );
    assert_eq!(seen.lines, expected);
    assert_eq!(seen.result, Ok(()));
    assert!(
        seen.details.lines().all(|line| line.starts_with('{')),
        "{}",
        seen.details
    );
}

#[tokio::test]
async fn no_output_ever_holds_a_token() {
    let seen = run(&FLAGS, all_well).await;
    assert!(
        seen.requests.iter().any(|head| head.contains(TOKEN)),
        "ARM was not asked with the token"
    );
    assert!(!seen.lines.contains(TOKEN) && !seen.details.contains(TOKEN));
}

#[tokio::test]
async fn each_metadata_request_has_the_header_and_only_named_ones_the_client_id() {
    let seen = run(&FLAGS, all_well).await;
    let metadata: Vec<_> = seen
        .requests
        .iter()
        .filter(|head| head.starts_with("GET /metadata/"))
        .collect();
    assert!(
        metadata
            .iter()
            .all(|head| head.to_lowercase().contains("metadata: true"))
    );
    let tokens = metadata.iter().filter(|head| head.contains("/oauth2/token"));
    let named: Vec<_> = tokens.map(|head| head.contains(CLIENT)).collect();
    assert_eq!(named, [true, false, true], "for ARM, without, with client id");
}

#[tokio::test]
async fn a_refusal_is_said_once_and_fails_the_run() {
    let seen = run(&FLAGS, |base, head| {
        if head.contains("/oauth2/token") {
            (
                400,
                r#"{"error":"invalid_request","error_description":"Identity not found"}"#.to_owned(),
            )
        } else {
            all_well(base, head)
        }
    })
    .await;
    assert_eq!(seen.result, Err("3 checks failed in 1 rounds".to_owned()));
    assert_eq!(seen.requests.len(), 4, "nothing is tried twice");
    assert!(!seen.lines.contains("successfully acquired"), "{}", seen.lines);
    assert!(seen.lines.contains("Identity not found"), "{}", seen.lines);
    assert!(
        seen.lines
            .contains("successfully made GET on instance metadata\n"),
        "{}",
        seen.lines
    );
}

#[tokio::test]
async fn pages_are_followed_at_the_same_origin_only() {
    let two_pages = |base: &str, head: &str| {
        if head.contains("skiptoken") {
            (200, r#"{"value":[{},{}]}"#.to_owned())
        } else if head.starts_with("GET /subscriptions/") {
            (
                200,
                format!(r#"{{"value":[{{}}],"nextLink":"{base}/subscriptions/S/x?$skiptoken=2"}}"#),
            )
        } else {
            all_well(base, head)
        }
    };
    assert!(
        run(&FLAGS, two_pages)
            .await
            .lines
            .starts_with("successfully doARMOperations vm count 3\n")
    );

    let stray = |base: &str, head: &str| {
        if head.starts_with("GET /subscriptions/") {
            (
                200,
                r#"{"value":[],"nextLink":"https://elsewhere.test/x"}"#.to_owned(),
            )
        } else {
            all_well(base, head)
        }
    };
    let seen = run(&FLAGS, stray).await;
    assert!(
        seen.lines
            .contains("the next page is at another origin, https://elsewhere.test/x"),
        "{}",
        seen.lines
    );
}

#[tokio::test]
async fn the_next_round_is_what_retries() {
    let first = Mutex::new(true);
    let seen = run(
        &[
            "--subscriptionid=S",
            "--clientid",
            CLIENT,
            "--resourcegroup=G",
            "--rounds=2",
            "--period=1ms",
        ],
        |base, head| {
            if head.starts_with("GET /metadata/instance") && std::mem::take(&mut *first.lock()) {
                (503, "{}".to_owned())
            } else {
                all_well(base, head)
            }
        },
    )
    .await;
    assert_eq!(seen.result, Err("1 checks failed in 2 rounds".to_owned()));
    assert_eq!(
        seen.lines
            .matches("successfully made GET on instance metadata")
            .count(),
        1
    );
    assert_eq!(
        seen.lines
            .matches("failed to make GET on instance metadata")
            .count(),
        1
    );
}

#[test]
fn a_place_left_empty_in_the_manifest_is_named() {
    let Err(error) = Cli::try_parse_from([
        "podid-demo",
        "--subscriptionid=S",
        "--clientid=",
        "--resourcegroup=G",
    ]) else {
        panic!("an empty client id was taken");
    };
    assert!(error.to_string().contains("--clientid"), "{error}");
}
