//! The rules that SDKs depend on, by their number in the conformance table.

use super::*;

#[tokio::test(start_paused = true)]
async fn rule_01_a_token_answer_is_an_object_of_strings_with_all_its_members() {
    let node = plain();
    let got = node.get("10.0.0.1", &format!("{T}{Q}")).await;
    assert_eq!(got.status, StatusCode::OK);
    assert_eq!(got.headers["content-type"], "application/json; charset=utf-8");
    let members: BTreeMap<&str, &str> = got
        .body
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str().expect("every value is a string")))
        .collect();
    assert_eq!(
        members,
        BTreeMap::from([
            ("access_token", "head.one.tail"),
            ("client_id", ONE),
            ("expires_in", "86400"),
            ("expires_on", "1700086400"),
            ("ext_expires_in", "86400"),
            ("not_before", "1699999940"),
            ("resource", "https://vault.azure.net"),
            ("token_type", "Bearer"),
        ])
    );
}

#[tokio::test(start_paused = true)]
async fn rule_03_there_is_no_refresh_in() {
    let node = plain();
    let got = node.get("10.0.0.1", &format!("{T}{Q}")).await;
    assert_eq!(got.token(), "head.one.tail");
    assert_eq!(got.body.get("refresh_in"), None);
}

#[tokio::test(start_paused = true)]
async fn rule_04_the_resource_comes_back_byte_for_byte() {
    let node = plain();
    for resource in [
        "https://vault.azure.net",
        "https://vault.azure.net/",
        "https://management.azure.com/",
        "api://X",
    ] {
        let target = format!("{T}?api-version=2018-02-01&resource={resource}");
        assert_eq!(node.get("10.0.0.1", &target).await.body["resource"], resource);
    }
    // With and without a slash are two audiences, and two tokens.
    assert_eq!(node.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn rule_05_what_is_left_is_told_anew_and_the_end_stays() {
    let node = plain();
    let at = format!("{T}{Q}");
    let first = node.get("10.0.0.1", &at).await;
    node.clock.advance(Duration::from_secs(2));
    let later = node.get("10.0.0.1", &at).await;
    let told = |got: &Got| ["expires_on", "expires_in"].map(|name| got.body[name].clone());
    assert_eq!(told(&first), [json!("1700086400"), json!("86400")]);
    assert_eq!(told(&later), [json!("1700086400"), json!("86398")]);
}

#[tokio::test(start_paused = true)]
async fn rule_06_one_call_serves_all_until_five_minutes_before_the_end() {
    let node = plain();
    let at = format!("{T}{Q}");
    let all = (0..50).map(|_| node.get("10.0.0.1", &at));
    let got = futures::future::join_all(all).await;
    assert!(got.iter().all(|got| got.token() == "head.one.tail"));
    assert_eq!(node.calls(), 1);
    node.clock.advance(Duration::from_secs(86_400 - 299));
    let renewed = node.get("10.0.0.1", &at).await;
    assert_eq!((node.calls(), &renewed.body["expires_in"]), (2, &json!("86400")));
}

#[tokio::test(start_paused = true)]
async fn rule_07_the_token_is_the_upstreams_own_and_a_bearer() {
    let node = plain();
    let got = node.get("10.0.0.1", &format!("{T}{Q}")).await;
    assert_eq!(got.body["token_type"], "Bearer");
    assert_eq!(
        got.token().split('.').collect::<Vec<_>>(),
        ["head", "one", "tail"]
    );
}

#[tokio::test(start_paused = true)]
async fn rule_08_no_metadata_header_is_400_at_once_whoever_asks_and_whatever_is_down() {
    let down: Trouble = || unreachable!("a probe asks no upstream");
    let mut node = node(Some(down), |_| {});
    // A watch that has seen nothing: the API server is down.
    let _never_listed = node.handler.world.feed::<Pods>();
    node.bindings.reset(vec![]);
    for from in ["10.0.0.1", "10.0.0.3", "10.9.9.9"] {
        for query in ["", "?api-version=2018-02-01", Q, "?resource=a&resource=b"] {
            let before = Instant::now();
            let got = node.ask(from, Method::GET, &format!("{T}{query}"), &[]).await;
            assert_eq!(got.error(), (400, "invalid_request"));
            // To the byte what the real service was seen to answer.
            assert_eq!(got.text(), "Required metadata header not specified");
            assert_eq!(before.elapsed(), Duration::ZERO);
        }
    }
}

/// A query that cannot be read is refused with this reason and a text that says why.
async fn refused_query(query: &str, reason: &str, text: &str) {
    let node = plain();
    let got = node.get("10.0.0.1", &format!("{T}{query}")).await;
    assert_eq!(
        (got.error(), got.reason()),
        ((400, "invalid_request"), reason),
        "{query}"
    );
    assert!(got.text().contains(text), "{}", got.text());
    assert_eq!(node.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn rule_09_no_resource_is_400_and_never_a_token() {
    for query in ["", "?api-version=2018-02-01", "?api-version=2018-02-01&resource="] {
        let text = "Required query variable 'resource' is missing";
        refused_query(query, "resource_missing", text).await;
    }
}

/// How a token request with these headers is answered.
async fn with_headers(headers: &[(&str, &str)]) -> u16 {
    let got = plain()
        .ask("10.0.0.1", Method::GET, &format!("{T}{Q}"), headers)
        .await;
    assert!(!got.headers.contains_key("content-encoding"));
    got.status.as_u16()
}

#[tokio::test(start_paused = true)]
async fn rule_11_the_header_in_any_case_is_true_or_refused() {
    for header in [("metadata", "true"), ("METADATA", "True"), ("Metadata", "true")] {
        assert_eq!(with_headers(&[header]).await, 200, "{header:?}");
    }
    for value in ["1", "", "false"] {
        assert_eq!(with_headers(&[("Metadata", value)]).await, 400, "{value:?}");
    }
    assert_eq!(
        with_headers(&[("Metadata", "true"), ("Metadata", "false")]).await,
        400
    );
}

#[tokio::test(start_paused = true)]
async fn rule_12_what_was_forwarded_is_refused() {
    let node = plain();
    let headers = [("Metadata", "true"), ("X-Forwarded-For", "1.2.3.4")];
    let got = node
        .ask("10.0.0.1", Method::GET, &format!("{T}{Q}"), &headers)
        .await;
    assert_eq!(
        (got.error(), got.reason()),
        ((400, "invalid_request"), "forwarded_for_present")
    );
    assert_eq!(node.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn rule_13_a_version_is_needed_and_every_later_one_is_taken() {
    let node = plain();
    for version in ["2018-02-01", "2019-08-01", "2020-09-01", "2025-04-07"] {
        let got = node
            .get("10.0.0.1", &format!("{T}?resource=r&api-version={version}"))
            .await;
        assert_eq!(got.status, StatusCode::OK, "{version}");
    }
    refused_query("?resource=r", "api_version_missing", "api-version").await;
    refused_query(
        "?resource=r&api-version=2017-04-02",
        "api_version_invalid",
        "api-version",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn rule_14_a_parameter_twice_is_400() {
    for query in ["&resource=r", "&x=1&x=2", "&api-version=2018-02-01"] {
        let query = format!("?api-version=2018-02-01&resource=r{query}");
        refused_query(&query, "duplicate_parameter", "twice").await;
    }
}

#[tokio::test(start_paused = true)]
async fn rule_15_the_query_is_form_data_raw_or_encoded_in_any_order() {
    let node = plain();
    for query in [
        "?resource=https://vault.azure.net&api-version=2018-02-01",
        "?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net",
        "?api%2Dversion=2018-02-01&resource=https%3a//vault.azure.net",
    ] {
        let got = node.get("10.0.0.1", &format!("{T}{query}")).await;
        assert_eq!(got.token(), "head.one.tail", "{query}");
        assert_eq!(got.body["resource"], "https://vault.azure.net");
    }
    assert_eq!(node.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn rule_16_other_headers_mean_nothing() {
    for other in [
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Accept", "text/html"),
        ("Accept-Encoding", "gzip"),
        ("x-client-SKU", "MSAL.Python"),
        ("x-unheard-of", "1"),
    ] {
        assert_eq!(
            with_headers(&[("Metadata", "true"), other]).await,
            200,
            "{other:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn rule_17_slashes_too_many_change_nothing() {
    let node = plain();
    for path in [
        T,
        "/metadata/identity/oauth2/token/",
        "//metadata/identity/oauth2/token",
        "//metadata/identity/oauth2/token/",
        "//metadata/../metadata/identity/oauth2/token/",
    ] {
        let got = node.get("10.0.0.1", &format!("{path}{Q}")).await;
        assert_eq!(got.token(), "head.one.tail", "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_18_what_is_not_known_is_ignored_and_no_pod_chooses_its_tenant() {
    let node = plain();
    let extra = "&authority=https://login.example/T&bypass_cache=true&x=y";
    for extra in ["", extra] {
        let got = node.get("10.0.0.1", &format!("{T}{Q}{extra}")).await;
        assert_eq!(got.token(), "head.one.tail");
    }
    // The same token: neither made a call of its own.
    assert_eq!(node.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn rule_19_an_identity_goes_by_all_its_names() {
    let node = plain();
    let upper = ONE.to_uppercase();
    for extra in [
        format!("&client_id={upper}"),
        format!("&object_id={OBJECT}"),
        format!("&principal_id={OBJECT}"),
        format!("&msi_res_id={ARM}"),
        format!("&mi_res_id={}", ARM.to_lowercase()),
        format!("&resource_id={}", ARM.to_uppercase()),
        format!("&msi-res-id={}", ARM.replace('/', "%2F")),
        "&client_id=".to_owned(),
    ] {
        let got = node.get("10.0.0.1", &format!("{T}{Q}{extra}")).await;
        assert_eq!(got.token(), "head.one.tail", "{extra}");
    }
    let second = node.get("10.0.0.2", &format!("{T}{Q}&client_id={TWO}")).await;
    assert_eq!(second.token(), "head.two.tail");
    assert_eq!(node.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn rule_20_two_different_names_exclude_each_other() {
    let query = format!("{Q}&client_id={ONE}&object_id={OBJECT}");
    refused_query(&query, "several_selectors", "exclude each other").await;
}

#[tokio::test(start_paused = true)]
async fn rule_21_an_identity_that_is_not_the_pods_is_refused_and_never_replaced() {
    let node = plain();
    for (from, extra, reason) in [
        ("10.0.0.1", format!("&client_id={TWO}"), "identity_not_bound"),
        ("10.0.0.1", "&client_id=me".to_owned(), "identity_not_bound"),
        ("10.0.0.3", String::new(), "no_binding_label"),
        ("10.0.0.4", String::new(), "no_binding"),
        // The same label in another namespace.
        ("10.0.0.6", String::new(), "no_binding"),
        ("10.0.0.6", format!("&client_id={ONE}"), "no_binding"),
    ] {
        let got = node.get(from, &format!("{T}{Q}{extra}")).await;
        assert_eq!(
            (got.error(), got.reason()),
            ((400, "invalid_request"), reason),
            "{from} {extra}"
        );
        assert!(got.text().starts_with("Identity not found"), "{}", got.text());
        assert!(!got.text().contains("bank/one") && !got.text().contains(TWO) || extra.contains(TWO));
    }
    assert_eq!(node.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn rule_22_several_identities_are_a_fixed_choice_or_the_real_services_refusal() {
    let first = plain();
    assert_eq!(
        first.get("10.0.0.2", &format!("{T}{Q}")).await.token(),
        "head.one.tail"
    );
    let refuse = node(None, |handler| {
        handler.policy.ambiguous = podid_core::decide::Ambiguous::Refuse;
    });
    let got = refuse.get("10.0.0.2", &format!("{T}{Q}")).await;
    assert_eq!(
        (got.error(), got.reason()),
        ((400, "invalid_request"), "identity_ambiguous")
    );
    assert!(got.text().starts_with(
        "Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request"
    ));
    assert_eq!(
        refuse.get("10.0.0.1", &format!("{T}{Q}")).await.token(),
        "head.one.tail"
    );
}

#[tokio::test(start_paused = true)]
async fn rule_23_every_refusal_is_an_object_that_says_what_and_why() {
    let node = plain();
    let metadata = &[("Metadata", "true")][..];
    for (from, method, target, headers, status) in [
        ("10.0.0.1", Method::GET, format!("{T}{Q}"), &[][..], 400),
        ("10.0.0.1", Method::GET, T.to_owned(), metadata, 400),
        ("10.0.0.1", Method::POST, format!("{T}{Q}"), metadata, 405),
        ("10.0.0.3", Method::GET, format!("{T}{Q}"), metadata, 400),
        ("10.9.9.9", Method::GET, format!("{T}{Q}"), metadata, 400),
        ("10.0.0.1", Method::GET, "/nothing/here".to_owned(), metadata, 404),
        (
            "10.0.0.1",
            Method::GET,
            "/metadata/identity%5Coauth2".to_owned(),
            metadata,
            400,
        ),
    ] {
        let got = node.ask(from, method, &target, headers).await;
        assert_eq!(got.status.as_u16(), status, "{target}");
        assert_eq!(got.headers["content-type"], "application/json; charset=utf-8");
        let members = got.body.as_object().unwrap();
        assert_eq!(
            members.keys().collect::<Vec<_>>(),
            ["error", "error_description"],
            "{target}"
        );
        assert!(
            members
                .values()
                .all(|value| value.as_str().is_some_and(|text| !text.is_empty())),
            "{target}: {members:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn rule_24_trouble_is_waited_out_and_then_told_with_a_time() {
    use podid_core::Retry;
    let cases: [(Trouble, u16, &str); 2] = [
        (
            || {
                SourceError::new(
                    "imds_connect",
                    TroubleKind::Unavailable,
                    Retry::Backoff,
                    "no answer",
                )
            },
            503,
            "temporarily_unavailable",
        ),
        (
            || SourceError::new("imds_throttled", TroubleKind::Throttled, Retry::Backoff, "busy"),
            429,
            "invalid_request",
        ),
    ];
    for (trouble, status, error) in cases {
        let node = node(Some(trouble), |_| {});
        let before = Instant::now();
        let got = node.get("10.0.0.1", &format!("{T}{Q}")).await;
        assert_eq!(got.error(), (status, error));
        let took = before.elapsed();
        assert!(
            took > Duration::from_secs(10) && took < Duration::from_secs(25),
            "{took:?}"
        );
        got.headers["retry-after"]
            .to_str()
            .unwrap()
            .parse::<u64>()
            .unwrap();
        assert!(node.calls() > 1);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_25_a_pod_at_full_speed_is_throttled_alone_and_never_below_twenty_a_second() {
    let node = node(None, twenty_a_second);
    let at = format!("{T}{Q}");
    for _ in 0..20 {
        assert_eq!(node.get("10.0.0.1", &at).await.status, StatusCode::OK);
    }
    let got = node.get("10.0.0.1", &at).await;
    assert_eq!(got.error(), (429, "invalid_request"));
    assert!(got.text().starts_with("Temporarily throttled, too many requests"));
    assert_eq!(node.get("10.0.0.2", &at).await.status, StatusCode::OK);
    // Probes are outside every limit.
    assert_eq!(
        node.ask("10.0.0.1", Method::GET, T, &[]).await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test(start_paused = true)]
async fn rule_26_what_entra_refuses_is_a_400_with_its_words() {
    let node = node(
        Some(|| {
            SourceError::new(
                "imds_invalid_resource",
                TroubleKind::InvalidResource,
                podid_core::Retry::Never,
                "AADSTS50001: The application named x was not found in the tenant",
            )
        }),
        |_| {},
    );
    let got = node.get("10.0.0.1", &format!("{T}{Q}")).await;
    assert_eq!(got.error(), (400, "invalid_resource"));
    assert!(got.text().contains("AADSTS50001"), "{}", got.text());
}

#[tokio::test(start_paused = true)]
async fn rule_27_only_get_gives_tokens() {
    let node = plain();
    for method in [
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
        Method::PATCH,
    ] {
        let got = node
            .ask(
                "10.0.0.1",
                method.clone(),
                &format!("{T}{Q}"),
                &[("Metadata", "true")],
            )
            .await;
        assert_eq!(
            (got.status.as_u16(), got.reason()),
            (405, "method_not_allowed"),
            "{method}"
        );
        assert_eq!(got.headers["allow"], "GET");
    }
    assert_eq!(node.calls(), 0);
}

/// Not there, at once, with and without the header, for pods and for strangers.
async fn not_there(paths: &[&str]) {
    let node = plain();
    for path in paths {
        for headers in [&[][..], &[("Metadata", "true")]] {
            for from in ["10.0.0.1", "10.9.9.9"] {
                let before = Instant::now();
                let got = node.ask(from, Method::GET, path, headers).await;
                assert_eq!(got.status, StatusCode::NOT_FOUND, "{path}");
                assert!(before.elapsed() < Duration::from_secs(1), "{path}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_28_the_second_version_of_managed_identity_is_not_there() {
    not_there(&[
        "/metadata/identity/getplatformmetadata?cred-api-version=2.0",
        "/metadata/identity/issuecredential",
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn rule_29_other_paths_are_a_404_at_once() {
    not_there(&[
        "/metadata/identity/info",
        "/metadata/attested/document",
        "/metadata/scheduledevents",
        "/latest/meta-data/instance-id",
        "/computeMetadata/v1/",
        "/host/token",
        "/",
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn rule_32_request_ids_come_back_when_asked_for() {
    let node = plain();
    let at = format!("{T}{Q}");
    let id = ("x-ms-client-request-id", "7f1d");
    let wanted = node
        .ask(
            "10.0.0.1",
            Method::GET,
            &at,
            &[id, ("x-ms-return-client-request-id", "true")],
        )
        .await;
    assert_eq!(wanted.headers["x-ms-client-request-id"], "7f1d");
    let unwanted = node
        .ask("10.0.0.1", Method::GET, &at, &[id, ("Metadata", "true")])
        .await;
    assert!(
        !unwanted.headers.contains_key("x-ms-client-request-id") && !unwanted.headers.contains_key("server")
    );
}
