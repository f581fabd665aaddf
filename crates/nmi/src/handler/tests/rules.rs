//! The rules that SDKs depend on, by their number in the conformance table.

use super::*;

#[tokio::test(start_paused = true)]
async fn rules_1_3_4_and_7_a_token_answer_is_what_every_sdk_can_read() {
    let node = plain();
    for resource in [
        "https://vault.azure.net",
        "https://management.azure.com/",
        "api://X",
    ] {
        let got = node
            .get(
                "10.0.0.1",
                &format!("{T}?api-version=2018-02-01&resource={resource}"),
            )
            .await;
        assert_eq!(got.status, StatusCode::OK);
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
                ("resource", resource),
                ("token_type", "Bearer"),
            ])
        );
    }
}

#[tokio::test(start_paused = true)]
async fn rules_5_and_6_expiry_is_told_anew_and_one_call_serves_all_until_five_minutes_before_the_end() {
    let node = plain();
    let at = format!("{T}{Q}");
    let all = (0..50).map(|_| node.get("10.0.0.1", &at));
    let got = futures::future::join_all(all).await;
    assert!(got.iter().all(|got| got.token() == "head.one.tail"));
    assert_eq!(node.calls(), 1);
    node.clock.advance(Duration::from_secs(2));
    let later = node.get("10.0.0.1", &at).await;
    assert_eq!(
        (&later.body["expires_on"], &later.body["expires_in"]),
        (&json!("1700086400"), &json!("86398"))
    );
    node.clock.advance(Duration::from_secs(86_400 - 2 - 299));
    let renewed = node.get("10.0.0.1", &at).await;
    assert_eq!((node.calls(), &renewed.body["expires_in"]), (2, &json!("86400")));
}

#[tokio::test(start_paused = true)]
async fn rule_8_probes_are_answered_at_once_whoever_asks_and_whatever_is_down() {
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

#[tokio::test(start_paused = true)]
async fn rules_9_13_14_and_20_faults_of_the_query_are_named() {
    let node = plain();
    for (query, reason, text) in [
        (
            "",
            "resource_missing",
            "Required query variable 'resource' is missing",
        ),
        (
            "?api-version=2018-02-01",
            "resource_missing",
            "Required query variable 'resource' is missing",
        ),
        ("?resource=r", "api_version_missing", "api-version"),
        (
            "?resource=r&api-version=2017-04-02",
            "api_version_invalid",
            "api-version",
        ),
        (
            "?api-version=2018-02-01&resource=r&resource=r",
            "duplicate_parameter",
            "twice",
        ),
        (
            "?api-version=2018-02-01&resource=r&client_id=11111111-1111-4111-8111-111111111111&object_id=33333333-3333-4333-8333-333333333333",
            "several_selectors",
            "exclude each other",
        ),
    ] {
        let got = node.get("10.0.0.1", &format!("{T}{query}")).await;
        assert_eq!(
            (got.error(), got.reason()),
            ((400, "invalid_request"), reason),
            "{query}"
        );
        assert!(got.text().contains(text), "{}", got.text());
    }
    for version in ["2018-02-01", "2019-08-01", "2020-09-01", "2025-04-07"] {
        let got = node
            .get("10.0.0.1", &format!("{T}?resource=r&api-version={version}"))
            .await;
        assert_eq!(got.status, StatusCode::OK, "{version}");
    }
    assert_eq!(node.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn rules_11_12_and_16_headers_that_matter_and_headers_that_do_not() {
    let node = plain();
    let at = format!("{T}{Q}");
    for (headers, status) in [
        (vec![("metadata", "true")], 200),
        (vec![("METADATA", "True")], 200),
        (
            vec![
                ("Metadata", "true"),
                ("Content-Type", "application/x-www-form-urlencoded"),
                ("Accept", "text/html"),
            ],
            200,
        ),
        (
            vec![
                ("Metadata", "true"),
                ("Accept-Encoding", "gzip"),
                ("x-client-SKU", "MSAL.Python"),
            ],
            200,
        ),
        (vec![("Metadata", "1")], 400),
        (vec![("Metadata", "")], 400),
        (vec![("Metadata", "true"), ("Metadata", "false")], 400),
        (vec![("Metadata", "true"), ("X-Forwarded-For", "1.2.3.4")], 400),
    ] {
        let got = node.ask("10.0.0.1", Method::GET, &at, &headers).await;
        assert_eq!(got.status.as_u16(), status, "{headers:?}");
        assert!(!got.headers.contains_key("content-encoding"));
    }
}

#[tokio::test(start_paused = true)]
async fn rules_15_17_18_and_19_spellings_and_names_that_clients_use() {
    let node = plain();
    for path in [
        T,
        "/metadata/identity/oauth2/token/",
        "//metadata/identity/oauth2/token",
        "//metadata/identity/oauth2/token/",
    ] {
        assert_eq!(
            node.get("10.0.0.1", &format!("{path}{Q}")).await.token(),
            "head.one.tail",
            "{path}"
        );
    }
    let upper = ONE.to_uppercase();
    for extra in [
        "&authority=https://login.example/T&bypass_cache=true".to_owned(),
        format!("&client_id={upper}"),
        format!("&object_id={OBJECT}"),
        format!("&principal_id={OBJECT}"),
        format!("&msi_res_id={ARM}"),
        format!("&mi_res_id={}", ARM.to_lowercase()),
        format!("&resource_id={}", ARM.to_uppercase()),
        format!("&msi-res-id={}", ARM.replace('/', "%2F")),
        "&client_id=".to_owned(),
    ] {
        let target = format!("{T}?resource=https://vault.azure.net&api-version=2018-02-01{extra}");
        assert_eq!(
            node.get("10.0.0.1", &target).await.token(),
            "head.one.tail",
            "{extra}"
        );
    }
    assert_eq!(
        node.get("10.0.0.2", &format!("{T}{Q}&client_id={TWO}"))
            .await
            .token(),
        "head.two.tail"
    );
    assert_eq!(node.calls(), 2);
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
        handler.policy.ambiguous = decide::Ambiguous::Refuse;
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
    let node = node(None, |handler| {
        let rates = Rates::new(RateLimit {
            per_second: 20,
            burst: 20,
        });
        handler.callers = Callers::new(Attestation::Off, None, rates, Arc::clone(&handler.metrics));
    });
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

#[tokio::test(start_paused = true)]
async fn rules_28_and_29_what_is_not_there_is_a_404_at_once() {
    let node = plain();
    for path in [
        "/metadata/identity/getplatformmetadata?cred-api-version=2.0",
        "/metadata/identity/issuecredential",
        "/metadata/identity/info",
        "/metadata/attested/document",
        "/metadata/scheduledevents",
        "/latest/meta-data/instance-id",
        "/computeMetadata/v1/",
        "/host/token",
        "/",
    ] {
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
