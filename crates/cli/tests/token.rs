//! `podid token` and `podid explain --admin-socket` at an admin socket that answers as the agent does.

#![expect(clippy::unwrap_used, reason = "test helpers")]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use clap::Parser;
use parking_lot::Mutex;
use podid_cli::printer::Printer;
use podid_cli::{CliError, Cluster, Podid};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixListener;

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

/// Runs a command line while one connection is answered so; gives its result, its data and the request line.
async fn ask(socket: &Path, line: &str, status: &str, body: &str) -> (Result<(), CliError>, String, String) {
    let listener = UnixListener::bind(socket).unwrap();
    let served = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            stream.read_line(&mut head).await.unwrap();
        }
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        head.lines().next().unwrap_or_default().to_owned()
    };
    let line = format!("podid {line} --admin-socket={}", socket.display());
    let args = Podid::try_parse_from(line.split_whitespace()).unwrap().args;
    let data = Text::default();
    let mut printer = Printer::new(data.clone(), std::io::sink());
    let cluster = Cluster::By(args.connect);
    let ((result, text), request) = tokio::join!(
        async {
            let result = args.command.run(&cluster, &mut printer).await;
            let text = String::from_utf8(data.0.lock().clone()).unwrap();
            (result.map_err(|error| error.downcast().unwrap()), text)
        },
        served
    );
    std::fs::remove_file(socket).unwrap();
    (result, text, request)
}

#[tokio::test]
async fn a_token_is_printed_alone_and_a_refusal_in_the_agents_words() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("admin.sock");
    let line = "token get web -n my-app --client-id 11111111-2222-3333-4444-555555555555";
    let (result, data, request) = ask(
        &socket,
        line,
        "200 OK",
        r#"{"access_token":"t.o.k","expires_in":"5"}"#,
    )
    .await;
    result.unwrap();
    assert_eq!(data, "t.o.k\n");
    assert_eq!(
        request,
        "POST /tokens?pod=my-app%2Fweb&client_id=11111111-2222-3333-4444-555555555555 HTTP/1.1"
    );

    let body = r#"{"error":{"code":"pod_not_found","message":"no pod my-app/web on this node (n1)"}}"#;
    let (result, data, _) = ask(&socket, "token get web -n my-app", "404 Not Found", body).await;
    let error = result.unwrap_err();
    assert_eq!(data, "");
    assert_eq!(
        error.to_string(),
        "the agent refused: no pod my-app/web on this node (n1) (pod_not_found)"
    );
    assert!(error.hint().unwrap().contains("kubectl get pod -o wide"));
    assert_eq!(error.exit_code(), std::process::ExitCode::from(3));

    let body = r#"{"error":"invalid_request","error_description":"Identity not found"}"#;
    let (result, ..) = ask(&socket, "token get web", "400 Bad Request", body).await;
    assert_eq!(
        result.unwrap_err().to_string(),
        "the agent refused: Identity not found (invalid_request)"
    );
}

#[tokio::test]
async fn a_refresh_that_fails_in_part_fails_and_shows_what_did() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("admin.sock");
    let body = r#"{"identity":"my-app/web","refreshed":false,"tokens":[
        {"resource":"r1","expires_in":5,"expires_on":7},
        {"resource":"r2","error":{"code":"imds_throttled","message":"too many"}}]}"#;
    let (result, data, request) = ask(&socket, "token refresh web -n my-app", "200 OK", body).await;
    assert_eq!(request, "POST /tokens/refresh?pod=my-app%2Fweb HTTP/1.1");
    assert_eq!(
        data,
        "IDENTITY     RESOURCE   SECONDS   ERROR\n\
         my-app/web   r1         5         <none>\n\
         my-app/web   r2         <none>    too many\n"
    );
    assert_eq!(
        result.unwrap_err().to_string(),
        "1 of the kept tokens could not be fetched anew; the old ones are kept"
    );
}

#[tokio::test]
async fn the_agents_own_explanation_is_shown_step_by_step() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("admin.sock");
    let body = r#"{"reason":"no_binding","text":"Identity not found","steps":[{"looked_at":"pod","found":"my-app/web"}]}"#;
    let (result, data, request) = ask(&socket, "explain web -n my-app", "200 OK", body).await;
    result.unwrap();
    assert_eq!(request, "GET /explain?pod=my-app%2Fweb HTTP/1.1");
    assert_eq!(data, "pod   my-app/web\nso    no_binding: Identity not found\n");
}
