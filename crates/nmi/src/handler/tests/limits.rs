//! What one connection may do, on the wire: heads, bodies, pace, and what is answered when it does more.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;
use crate::server::serve;

/// Serves a connection from `from`; what comes back until it ends, and after how long.
async fn talk<F>(node: Node, from: &str, crowded: bool, client: impl FnOnce(DuplexStream) -> F) -> F::Output
where
    F: Future,
{
    let (ours, theirs) = duplex(64 * 1024);
    let Node { handler, _tasks, .. } = node;
    let connection = if crowded {
        connection(from).crowded()
    } else {
        connection(from)
    };
    let served = serve(ours, connection, Arc::new(handler), Stop::new());
    tokio::join!(served, client(theirs)).1
}

/// Writes `bytes`, leaves the connection open, and reads until the other side ends it.
async fn all(node: Node, from: &str, bytes: Vec<u8>) -> (String, Duration) {
    talk(node, from, false, async |mut wire| {
        let start = Instant::now();
        // The other side may have heard enough before all is written.
        let _ended = wire.write_all(&bytes).await;
        let mut got = String::new();
        wire.read_to_string(&mut got).await.unwrap();
        (got, start.elapsed())
    })
    .await
}

/// Status, reason and whether the body is an error object.
fn read(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let reason = head
        .lines()
        .find_map(|line| line.strip_prefix("x-podid-reason: "))
        .unwrap_or_default();
    let body: Value = serde_json::from_str(body).unwrap();
    assert!(
        body["error"].is_string() && body["error_description"].is_string(),
        "{body}"
    );
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        reason.to_owned(),
    )
}

#[tokio::test(start_paused = true)]
async fn what_is_no_request_is_a_400_or_431_in_the_shape_of_all_errors() {
    let many = (0..80).fold(String::new(), |many, n| many + &format!("x-{n}: 1\r\n"));
    let long = "a".repeat(20 * 1024);
    for (bytes, expected) in [
        (
            "\u{16}\u{3}\u{1} this is TLS\r\n\r\n".to_owned(),
            (400, "request_unreadable"),
        ),
        ("GET /\r\n\r\n".to_owned(), (400, "request_unreadable")),
        (
            format!("GET {T}{Q} HTTP/1.1\r\nbad header\r\n\r\n"),
            (400, "request_unreadable"),
        ),
        (
            format!("GET {T}{Q} HTTP/1.1\r\n{many}\r\n"),
            (431, "head_too_large"),
        ),
        (
            format!("GET {T}{Q} HTTP/1.1\r\nx: {long}\r\n\r\n"),
            (431, "head_too_large"),
        ),
        (
            format!("GET {T}{Q}&x={long} HTTP/1.1\r\nhost: x\r\n\r\n"),
            (431, "head_too_large"),
        ),
    ] {
        let (answer, took) = all(plain(), "10.0.0.1", bytes.clone().into_bytes()).await;
        let (status, reason) = read(&answer);
        assert_eq!((status, &*reason), expected, "{bytes:.60}");
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_end_is_cut_off_and_an_idle_connection_lives_on_for_a_minute() {
    let half = format!("GET {T}{Q} HTTP/1.1\r\nMetad");
    let (answer, took) = all(plain(), "10.0.0.1", half.into_bytes()).await;
    assert_eq!((answer.as_str(), took), ("", crate::pace::HEAD));

    let one = format!("GET {T} HTTP/1.1\r\nhost: x\r\n\r\n");
    let (answer, took) = all(plain(), "10.0.0.1", one.into_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(
        took >= Duration::from_mins(1) && took < Duration::from_secs(90),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_taken_ends_the_connection() {
    let (ours, mut theirs) = duplex(64);
    let Node { handler, _tasks, .. } = plain();
    let ask = format!("GET {T}{Q} HTTP/1.1\r\nhost: x\r\nmetadata: true\r\n\r\n");
    let client = async {
        theirs.write_all(ask.as_bytes()).await.unwrap();
        theirs
    };
    let start = Instant::now();
    let served = serve(ours, connection("10.0.0.1"), Arc::new(handler), Stop::new());
    let ((), _never_read) = tokio::join!(served, client);
    assert_eq!(start.elapsed(), crate::pace::TAKE);
}

#[tokio::test(start_paused = true)]
async fn bodies_that_are_too_long_or_too_late_are_refused() {
    let head = |length: usize| {
        format!(
            "POST /metadata/scheduledevents HTTP/1.1\r\nhost: x\r\nmetadata: true\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let mut long = head(100_000).into_bytes();
    long.resize(long.len() + 100_000, b'x');
    let (answer, _) = all(plain(), "10.0.0.5", long).await;
    assert_eq!(read(&answer), (413, "body_too_large".to_owned()));
    let (answer, took) = all(plain(), "10.0.0.5", (head(10) + "12345").into_bytes()).await;
    assert_eq!(read(&answer), (408, "body_late".to_owned()));
    assert!(took < Duration::from_secs(25), "{took:?}");
    // A body where none is read ends the connection instead of being waited for.
    let token = format!("POST {T}{Q} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n12345");
    let (answer, took) = all(plain(), "10.0.0.1", token.into_bytes()).await;
    assert_eq!(read(&answer), (405, "method_not_allowed".to_owned()));
    assert!(took <= crate::pace::HEAD, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn on_one_connection_too_many_a_probe_is_answered_and_nothing_else() {
    for (target, headers, expected) in [
        (T.to_owned(), "", (400, "metadata_header_missing")),
        (format!("{T}{Q}"), "", (400, "metadata_header_missing")),
        (
            format!("{T}{Q}"),
            "metadata: true\r\n",
            (429, "too_many_connections"),
        ),
        (
            "/metadata/instance".to_owned(),
            "metadata: true\r\n",
            (429, "too_many_connections"),
        ),
        (
            "/metadata/identity/getplatformmetadata".to_owned(),
            "",
            (404, "path_not_found"),
        ),
    ] {
        let ask = format!("GET {target} HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        let answer = talk(plain(), "10.0.0.1", true, async |mut wire| {
            wire.write_all(ask.as_bytes()).await.unwrap();
            let mut got = String::new();
            // Ended by the other side after one answer.
            wire.read_to_string(&mut got).await.unwrap();
            got
        })
        .await;
        let (status, reason) = read(&answer);
        assert_eq!((status, &*reason), expected, "{target} {headers}");
        assert_eq!(answer.contains("retry-after: 1\r\n"), status == 429);
    }
}

#[tokio::test(start_paused = true)]
async fn paths_that_are_open_to_everybody_have_a_rate_too_and_probes_have_none() {
    let node = node(None, twenty_a_second);
    let path = "/metadata/instance?api-version=2021-02-01";
    for _ in 0..20 {
        assert_eq!(
            node.get("10.0.0.1", path).await.reason(),
            "metadata_service_failed"
        );
    }
    let got = node.get("10.0.0.1", path).await;
    assert_eq!(
        (got.error(), got.reason()),
        ((429, "invalid_request"), "rate_limited")
    );
    // Another address is not touched, nor are this pod's own tokens.
    assert_eq!(
        node.get("10.0.0.2", path).await.reason(),
        "metadata_service_failed"
    );
    assert_eq!(
        node.get("10.0.0.1", &format!("{T}{Q}")).await.status,
        StatusCode::OK
    );
    for _ in 0..1000 {
        assert_eq!(
            node.ask("10.0.0.1", Method::GET, T, &[]).await.status,
            StatusCode::BAD_REQUEST
        );
    }
}
