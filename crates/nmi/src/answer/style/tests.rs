//! Each row of the table, as a client reads it.

use http_body_util::BodyExt;
use podid_core::{Guid, Reason};

use super::*;

const CLIENT: &str = "aabc0000-a83e-4b4d-9f01-2c0a66b0c1f9";

/// Who asks and how: managed or standard mode, an identity named or not, an excepted pod.
#[derive(Clone, Copy, Debug)]
enum Asks {
    Managed,
    ManagedNamed,
    ManagedByResourceId,
    Standard,
    StandardNamed,
    Excepted,
}

async fn told(refusal: &Refusal, asks: Asks, retry_after: bool) -> (u16, Option<String>, String, String) {
    let errors = Errors {
        style: ErrorStyle::AadPodIdentity,
        retry_after,
    };
    let pod = ObjectName::new("shop", "demo");
    let by_client = Selector::ClientId(Guid::parse(CLIENT).unwrap());
    let by_resource = Selector::ResourceId("/subscriptions/s".into());
    let about = About {
        mode: match asks {
            Asks::Standard | Asks::StandardNamed => Mode::Standard { namespaced: true },
            _ => Mode::Managed,
        },
        peer: [10, 0, 0, 7].into(),
        pod: Some(&pod),
        selector: match asks {
            Asks::ManagedNamed | Asks::StandardNamed => Some(&by_client),
            Asks::ManagedByResourceId => Some(&by_resource),
            _ => None,
        },
        excepted: matches!(asks, Asks::Excepted),
    };
    let (parts, body) = errors.answer(refusal, &about).into_parts();
    let header = |name: &str| {
        parts
            .headers
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    let sniff = header("x-content-type-options");
    let text = header("content-type").unwrap();
    assert_eq!(sniff.as_deref(), text.starts_with("text/").then_some("nosniff"));
    let bytes = body.collect().await.unwrap().to_bytes();
    let body = String::from_utf8(bytes.to_vec()).unwrap();
    (parts.status.as_u16(), header("retry-after"), text, body)
}

fn upstream(code: &'static str) -> Refusal {
    Refusal::unavailable(code, "what happened", 7)
}

#[tokio::test]
async fn every_row_has_the_originals_status_and_text() {
    let blocked = Refusal {
        status: StatusCode::FORBIDDEN,
        ..Refusal::because(Reason::PathBlocked, String::new())
    };
    let because = |reason| Refusal::because(reason, "pod shop/demo".to_owned());
    let created = "getting assigned identities for pod shop/demo in CREATED state failed after 16 attempts, retry duration \
         [5]s, error: <nil>. Check MIC pod logs for identity assignment errors";
    let named = format!("clientID in request: aabc##### REDACTED #####c1f9, {created}");
    let assigned = "getting assigned identities for pod shop/demo in ASSIGNED state failed after 20 attempts, retry duration \
         [5]s, error: <nil>. Check MIC pod logs for identity assignment errors";
    let refresh = |status: u16, body: &str| {
        format!("adal: Refresh request failed. Status Code = '{status}'. Response body: {body}")
    };
    let refused = |code| {
        let error = "invalid_request";
        Refusal {
            error,
            ..Refusal::bad_request(code, "Identity not found")
        }
    };
    let said = r#"{"error":"invalid_request","error_description":"Identity not found"}"#;
    let late = r#"{"error":"temporarily_unavailable","error_description":"what happened"}"#;
    let execute = "adal: Failed to execute the refresh request. Error = 'what happened'";
    let unmarshal =
        "adal: Failed to unmarshal the service principal token during refresh. Error = 'what happened'";
    let mut cases: Vec<(Refusal, Asks, u16, String)> = vec![
        (
            because(Reason::MetadataHeaderMissing),
            Asks::Managed,
            400,
            r#"{"error":"invalid_request","error_description":"Required metadata header not specified"}"#
                .to_owned(),
        ),
        (
            because(Reason::PathInvalid),
            Asks::Managed,
            400,
            "Invalid request".to_owned(),
        ),
        (
            blocked,
            Asks::Managed,
            403,
            "Request blocked by AAD Pod Identity NMI".to_owned(),
        ),
        (
            because(Reason::ResourceMissing),
            Asks::Managed,
            400,
            "parameter resource cannot be empty".to_owned(),
        ),
        (
            because(Reason::HostHeadersMissing),
            Asks::Managed,
            400,
            "missing 'podname' and 'podns' from request header".to_owned(),
        ),
        (
            because(Reason::HostCallerRefused),
            Asks::Managed,
            500,
            "request remote address is not from a host".to_owned(),
        ),
        (
            because(Reason::NamedPodNotFound),
            Asks::Managed,
            404,
            "failed to get pod shop/demo, error: pod shop/demo doesn't exist".to_owned(),
        ),
        (
            because(Reason::NamedPodNotFound),
            Asks::Standard,
            404,
            created.to_owned(),
        ),
        (
            because(Reason::PodNotFound),
            Asks::Managed,
            500,
            "pod list is empty".to_owned(),
        ),
        (
            because(Reason::PodGone),
            Asks::Managed,
            500,
            "pod list is empty".to_owned(),
        ),
        (
            because(Reason::PodFinished),
            Asks::Managed,
            500,
            "pod list is empty".to_owned(),
        ),
        (
            because(Reason::AddressAmbiguous),
            Asks::Managed,
            500,
            "failed to match pod IP 10.0.0.7 with []".to_owned(),
        ),
        (
            because(Reason::HostNetwork),
            Asks::Managed,
            500,
            "failed to match pod IP 10.0.0.7 with []".to_owned(),
        ),
        (
            because(Reason::NoBinding),
            Asks::ManagedByResourceId,
            404,
            "no azure identity found for request clientID ".to_owned(),
        ),
        (
            because(Reason::NoBinding),
            Asks::Standard,
            404,
            created.to_owned(),
        ),
        (because(Reason::IdentityNotBound), Asks::StandardNamed, 404, named),
        (
            because(Reason::IdentityNotAssigned),
            Asks::StandardNamed,
            404,
            assigned.to_owned(),
        ),
        (
            Refusal::unavailable("metadata_service_failed", "gone", 5),
            Asks::Managed,
            500,
            "gone".to_owned(),
        ),
        (
            Refusal::unavailable("metadata_service_failed", "gone", 5),
            Asks::Excepted,
            403,
            "failed to get service principal token, error: gone".to_owned(),
        ),
        (
            Refusal::bad_request("metadata_service_refused", "no"),
            Asks::Excepted,
            403,
            "failed to get service principal token, error: no".to_owned(),
        ),
        (
            refused("imds_identity_not_found"),
            Asks::Managed,
            403,
            refresh(400, said),
        ),
        (
            refused("entra_invalid_credential"),
            Asks::Managed,
            403,
            refresh(401, said),
        ),
        // Throttling at an end is final, as it was.
        (upstream("imds_throttled"), Asks::Managed, 403, refresh(429, late)),
        (
            upstream("entra_unavailable"),
            Asks::Managed,
            403,
            refresh(503, late),
        ),
        (
            upstream("imds_answer_invalid"),
            Asks::Managed,
            403,
            unmarshal.to_owned(),
        ),
        (upstream("upstream_slow"), Asks::Managed, 503, execute.to_owned()),
        (upstream("imds_timeout"), Asks::Managed, 503, execute.to_owned()),
        (
            upstream("secret_unusable"),
            Asks::Managed,
            503,
            "failed to get Kubernetes secret, err: what happened".to_owned(),
        ),
        (
            upstream("entra_tenant_invalid"),
            Asks::Managed,
            503,
            "what happened".to_owned(),
        ),
        (
            Refusal::bug(),
            Asks::Managed,
            500,
            "The agent of this node failed on this request".to_owned(),
        ),
    ];
    for code in NO_IDENTITY {
        let text = "no azure identity found for request clientID aabc##### REDACTED #####c1f9".to_owned();
        cases.push((Refusal::bad_request(code, "ours"), Asks::ManagedNamed, 404, text));
    }
    for (refusal, asks, status, text) in &cases {
        let got = told(refusal, *asks, false).await;
        assert_eq!(
            (got.0, &got.3),
            (*status, &format!("{text}\n")),
            "{} {asks:?}",
            refusal.reason
        );
        assert_eq!(got.1, None, "{}: Retry-After only with the flag", refusal.reason);
        let json = refusal.reason == Reason::MetadataHeaderMissing.code();
        assert_eq!(
            got.2,
            if json {
                "application/json; charset=utf-8"
            } else {
                "text/plain; charset=utf-8"
            }
        );
        // The flag changes what is 404 and nothing else.
        let with_flag = told(refusal, *asks, true).await;
        let expected = if *status == 404 {
            (503, Some("20".to_owned()))
        } else {
            (*status, None)
        };
        assert_eq!((with_flag.0, with_flag.1), expected, "{}", refusal.reason);
    }
    let tried = |row: &&Row| {
        let tried = |code: &&&str| cases.iter().any(|(refusal, ..)| refusal.reason == **code);
        row.codes.iter().any(|code| tried(&code))
    };
    assert_eq!(
        TABLE.iter().filter(tried).count(),
        TABLE.len(),
        "a row without a case"
    );
}

#[tokio::test]
async fn what_the_original_never_refused_keeps_our_status_as_text() {
    for (reason, status, retry_after) in [
        (Reason::MethodNotAllowed, 405, None),
        (Reason::ForwardedFor, 400, None),
        (Reason::DuplicateParameter, 400, None),
        (Reason::PathNotFound, 404, None),
        (Reason::PathClosed, 404, None),
        (Reason::RateLimited, 429, Some("1")),
        (Reason::NotSynced, 503, Some("5")),
        (Reason::AttestationFailed, 400, None),
    ] {
        let got = told(&Refusal::because(reason, String::new()), Asks::Managed, true).await;
        assert_eq!(
            (got.0, got.1.as_deref()),
            (status, retry_after),
            "{}",
            reason.code()
        );
        assert!(
            got.2.starts_with("text/plain") && got.3.ends_with(&format!("[{}]\n", reason.code())),
            "{got:?}"
        );
    }
}

#[test]
fn every_status_of_an_upstream_belongs_to_a_row_and_ids_lose_their_middle() {
    let row = TABLE.iter().find(|row| row.body.contains("{status}")).unwrap();
    let answered: Vec<_> = ANSWERED.iter().map(|(code, _)| *code).collect();
    assert_eq!(row.codes, answered);
    assert_eq!(
        redacted("aabc0000-a83v-9h4m-000j-2c0a66b0c1f9"),
        "aabc##### REDACTED #####c1f9"
    );
    for short in ["", "abc", "abcd1234"] {
        assert_eq!(redacted(short), "##### REDACTED #####");
    }
}
