//! The original's error style, through the handler: what a client of old reads.

use super::*;

/// Status, content type and body of a request that is refused in the original's style.
async fn old(node: &Node, from: &str, target: &str, headers: &[(&str, &str)]) -> (u16, String, String) {
    let mut request = Request::builder().uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = Full::new(Bytes::new()).map_err(|never| match never {});
    let answer = node
        .handler
        .answer(&connection(from), request.body(body).unwrap())
        .await;
    let (parts, body) = answer.into_parts();
    let content = parts.headers["content-type"].to_str().unwrap().to_owned();
    let bytes = body.collect().await.unwrap().to_bytes();
    (
        parts.status.as_u16(),
        content,
        String::from_utf8(bytes.to_vec()).unwrap(),
    )
}

fn aad_pod_identity(retry_after: bool) -> Node {
    node(None, |handler| {
        handler.errors = Errors {
            style: ErrorStyle::AadPodIdentity,
            retry_after,
        };
        handler.policy.instance = Access::Blocked;
    })
}

#[tokio::test(start_paused = true)]
async fn refusals_read_as_the_originals_and_tokens_as_always() {
    let node = aad_pod_identity(false);
    let (text, metadata) = ("text/plain; charset=utf-8", &[("Metadata", "true")][..]);
    let named = "no azure identity found for request clientID 2222##### REDACTED #####2222\n";
    for (from, target, headers, expected) in [
        (
            "10.0.0.1",
            format!("{T}{Q}"),
            &[][..],
            (
                400,
                "application/json; charset=utf-8",
                "{\"error\":\"invalid_request\",\"error_description\":\"Required metadata header not specified\"}\n",
            ),
        ),
        (
            "10.0.0.1",
            T.to_owned(),
            metadata,
            (400, text, "parameter resource cannot be empty\n"),
        ),
        (
            "10.0.0.1",
            "/metadata/identity%5Coauth2/token".to_owned(),
            &[][..],
            (400, text, "Invalid request\n"),
        ),
        (
            "10.0.0.1",
            "/metadata/instance".to_owned(),
            &[][..],
            (403, text, "Request blocked by AAD Pod Identity NMI\n"),
        ),
        (
            "10.9.9.9",
            format!("{T}{Q}"),
            metadata,
            (500, text, "pod list is empty\n"),
        ),
        (
            "10.0.0.4",
            format!("{T}{Q}"),
            metadata,
            (404, text, "no azure identity found for request clientID \n"),
        ),
        (
            "10.0.0.1",
            format!("{T}{Q}&client_id={TWO}"),
            metadata,
            (404, text, named),
        ),
        // An excepted pod; nobody answers where the real service should be.
        (
            "10.0.0.5",
            format!("{T}{Q}"),
            metadata,
            (
                403,
                text,
                "failed to get service principal token, error: The metadata service did not answer\n",
            ),
        ),
    ] {
        let (status, content, body) = old(&node, from, &target, headers).await;
        assert_eq!((status, &*content, &*body), expected, "{from} {target}");
    }
    assert_eq!(
        node.get("10.0.0.1", &format!("{T}{Q}")).await.token(),
        "head.one.tail"
    );
}

#[tokio::test(start_paused = true)]
async fn an_upstreams_refusal_is_the_403_that_it_was() {
    let node = node(
        Some(|| {
            SourceError::new(
                "imds_identity_not_found",
                TroubleKind::IdentityNotFound,
                podid_core::Retry::Never,
                "Identity not found",
            )
        }),
        |handler| handler.errors.style = ErrorStyle::AadPodIdentity,
    );
    let (status, _, body) = old(&node, "10.0.0.1", &format!("{T}{Q}"), &[("Metadata", "true")]).await;
    assert_eq!(status, 403);
    assert_eq!(
        body,
        "adal: Refresh request failed. Status Code = '400'. Response body: \
         {\"error\":\"invalid_request\",\"error_description\":\"Identity not found\"}\n"
    );
}

#[tokio::test(start_paused = true)]
async fn with_the_originals_flag_what_was_404_is_503_with_a_time() {
    let node = aad_pod_identity(true);
    let request = Request::builder()
        .uri(format!("{T}{Q}"))
        .header("Metadata", "true");
    let body = Full::new(Bytes::new()).map_err(|never| match never {});
    let answer = node
        .handler
        .answer(&connection("10.0.0.3"), request.body(body).unwrap())
        .await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["retry-after"]),
        (503, &HeaderValue::from(20))
    );
}
