//! Entra's answers and what is never sent. What is sent is held against a server in `tests/`.

use super::*;

fn refused(status: u16, body: &str) -> EntraError {
    refusal(StatusCode::from_u16(status).unwrap(), None, body.as_bytes())
}

#[test]
fn answers_are_told_apart_by_what_asking_again_helps_and_who_can_repair_them() {
    for (status, error, description, code, retry) in [
        (
            401,
            "invalid_client",
            "AADSTS7000215: Invalid client secret provided.",
            "entra_invalid_credential",
            Retry::Never,
        ),
        (
            401,
            "invalid_client",
            "AADSTS7000222: The provided client secret keys for app are expired.",
            "entra_invalid_credential",
            Retry::Never,
        ),
        (
            400,
            "unauthorized_client",
            "AADSTS700016: Application with identifier was not found.",
            "entra_identity_not_found",
            Retry::Never,
        ),
        (
            400,
            "invalid_resource",
            "AADSTS500011: The resource principal was not found.",
            "entra_invalid_resource",
            Retry::Never,
        ),
        (
            400,
            "invalid_scope",
            "AADSTS70011: The provided request must include a 'scope'.",
            "entra_invalid_resource",
            Retry::Never,
        ),
        (
            400,
            "invalid_request",
            "AADSTS70021: No matching federated identity record found.",
            "entra_invalid_credential",
            Retry::Never,
        ),
        (
            400,
            "invalid_request",
            "AADSTS90033: A transient error has occurred.",
            "entra_unavailable",
            Retry::Backoff,
        ),
        (
            400,
            "temporarily_unavailable",
            "",
            "entra_unavailable",
            Retry::Backoff,
        ),
        (
            400,
            "invalid_request",
            "AADSTS50196: The server terminated an operation because it encountered a loop.",
            "entra_throttled",
            Retry::Backoff,
        ),
        (
            400,
            "something_new",
            "AADSTS999999: New.",
            "entra_refused",
            Retry::Never,
        ),
        (404, "", "", "entra_refused", Retry::Never),
        (503, "", "", "entra_unavailable", Retry::Backoff),
        (302, "", "", "entra_unavailable", Retry::Backoff),
        (429, "", "", "entra_throttled", Retry::Backoff),
    ] {
        let body = serde_json::json!({"error": error, "error_description": description}).to_string();
        let seen = refused(status, &body);
        assert_eq!((seen.code(), seen.retry()), (code, retry), "{status} {body}");
        assert!(!SourceError::from(seen).text.is_empty(), "{status} {body}");
    }
}

#[test]
fn a_tenant_cannot_lead_elsewhere() {
    let authorities = Authorities::new("https://entra.example".parse().unwrap());
    let entra = Entra::new(authorities, &TlsRoots::default(), std::sync::Arc::new(|| 0)).unwrap();
    let secret = Secret::new("s".to_owned());
    let ask = |tenant| TokenAsk {
        authority: None,
        tenant,
        client_id: Guid::from_u128(1),
        resource: "r",
        endpoint: Endpoint::V2,
        proof: Proof::Secret(&secret),
    };
    assert_eq!(
        entra.endpoint(ask("contoso.onmicrosoft.com")).unwrap().as_str(),
        "https://entra.example/contoso.onmicrosoft.com/oauth2/v2.0/token"
    );
    for tenant in [
        "",
        "..",
        ".",
        "https://evil.example",
        "//evil.example",
        "a/b",
        "a?b",
        "a#b",
        "a%2fb",
        "a b",
        "@evil",
    ] {
        assert_eq!(
            entra.endpoint(ask(tenant)).unwrap_err().code(),
            "entra_tenant_invalid",
            "{tenant}"
        );
    }
}
