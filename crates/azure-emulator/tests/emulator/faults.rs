//! Faults on demand, the request log, unknown operations, and who may use the control API.

use std::time::Duration;

use podid_azure_emulator::{Fault, Throttle};
use reqwest::Method;
use serde_json::json;

use crate::support::Azure;

#[tokio::test]
async fn a_status_comes_as_often_as_asked_and_only_on_its_route() {
    let azure = Azure::default().await;
    let fault = json!({ "service": "imds", "path": "/metadata/identity/*", "status": 503, "headers": { "Retry-After": "3" }, "times": 2 });
    let id = azure
        .control(Method::POST, "faults", Some(fault))
        .await
        .expect(201)["id"]
        .as_u64()
        .unwrap();
    azure
        .metadata("/metadata/instance?api-version=2021-02-01")
        .await
        .expect(200);
    for _ in 0..2 {
        let reply = azure.machine_token("").await;
        assert_eq!((reply.status, reply.header("retry-after")), (503, "3"));
        assert!(reply.body["error_description"].is_string());
    }
    azure.machine_token("").await.expect(200);
    let listed = azure.control(Method::GET, "faults", None).await.expect(200);
    assert_eq!(
        (&listed["faults"][0]["id"], &listed["faults"][0]["hits"]),
        (&json!(id), &json!(2))
    );
    let requests = azure.emulator.requests(0);
    assert_eq!(requests.iter().filter(|entry| entry.fault == Some(id)).count(), 2);
}

#[tokio::test]
async fn a_fault_of_arm_does_not_change_anything_and_ends_when_it_is_taken_back() {
    let azure = Azure::default().await;
    let fault = Fault {
        service: Some("arm".to_owned()),
        method: Some("PUT".to_owned()),
        status: Some(429),
        ..Fault::default()
    };
    let id = azure.emulator.set_fault(fault).unwrap();
    assert_eq!(
        azure
            .put("/resourcegroups/g", json!({ "location": "eastus" }))
            .await
            .refused(429),
        "TooManyRequests"
    );
    azure.get("/resourcegroups/g").await.expect(404);
    azure.emulator.clear_faults(Some(id));
    azure.group("g").await;
}

#[tokio::test]
async fn a_cut_or_hanging_request_gets_no_answer_until_the_fault_is_gone() {
    let azure = Azure::default().await;
    let imds = |reset, hang| Fault {
        service: Some("imds".to_owned()),
        reset,
        hang,
        ..Fault::default()
    };
    let url = format!("{}/metadata/versions", azure.imds());
    let id = azure.emulator.set_fault(imds(true, false)).unwrap();
    azure.http.get(&url).send().await.unwrap_err();
    assert_eq!(azure.emulator.requests(0).pop().unwrap().status, None);
    azure.emulator.clear_faults(Some(id));
    let before = azure.emulator.requests(0).len();
    let id = azure.emulator.set_fault(imds(false, true)).unwrap();
    let hanging = azure.http.get(&url).send();
    let free = async {
        podid_testkit::eventually("the request has come", || async {
            if azure.emulator.requests(0).len() > before {
                Ok(())
            } else {
                Err("not yet")
            }
        })
        .await
        .unwrap();
        azure.emulator.clear_faults(Some(id));
    };
    let (answer, ()) = tokio::join!(hanging, free);
    answer.unwrap_err();
    azure.metadata("/metadata/versions").await.expect(200);
}

#[tokio::test]
async fn a_throttle_lets_its_rate_pass_and_a_delay_only_delays() {
    let azure = Azure::default().await;
    let throttle = Throttle {
        requests: 2,
        per_secs: 3_600,
        retry_after_secs: Some(7),
    };
    azure
        .emulator
        .set_fault(Fault {
            path: Some("*/locations".to_owned()),
            throttle: Some(throttle),
            ..Fault::default()
        })
        .unwrap();
    azure.get("/locations").await.expect(200);
    azure.get("/locations").await.expect(200);
    let refused = azure.get("/locations").await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, "7"));
    azure.emulator.clear_faults(None);
    azure
        .emulator
        .set_fault(Fault {
            delay_ms: 200,
            ..Fault::default()
        })
        .unwrap();
    let start = tokio::time::Instant::now();
    azure.get("/locations").await.expect(200);
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn the_control_api_sets_every_kind_of_fault_and_takes_it_back() {
    let azure = Azure::default().await;
    let set = async |fault: serde_json::Value| {
        let made = azure.control(Method::POST, "faults", Some(fault)).await;
        made.expect(201)["id"].as_u64().unwrap()
    };
    let take_back = async |id: u64| {
        azure
            .control(Method::DELETE, &format!("faults/{id}"), None)
            .await
            .expect(204)
    };
    let read = || azure.get("/locations");
    let id = set(json!({ "method": "get", "path": "*/LOCATIONS", "status": 418 })).await;
    read().await.refused(418);
    azure.get("/resourcegroups").await.expect(200);
    take_back(id).await;
    let id =
        set(json!({ "service": "arm", "throttle": { "requests": 0, "perSecs": 1, "retryAfterSecs": 3 } }))
            .await;
    assert_eq!(read().await.header("retry-after"), "3");
    take_back(id).await;
    let id = set(json!({ "source": "127.0.0.1", "delayMs": 200 })).await;
    let begun = tokio::time::Instant::now();
    read().await.expect(200);
    assert!(begun.elapsed() >= Duration::from_millis(200));
    take_back(id).await;
    let versions = format!("{}/metadata/versions", azure.imds());
    let id = set(json!({ "service": "imds", "reset": true })).await;
    azure.http.get(&versions).send().await.unwrap_err();
    read().await.expect(200);
    take_back(id).await;
    let id = set(json!({ "service": "imds", "hang": true, "after": 1 })).await;
    azure.metadata("/metadata/versions").await.expect(200);
    let hanging = azure
        .http
        .get(&versions)
        .timeout(Duration::from_millis(300))
        .send();
    assert!(hanging.await.unwrap_err().is_timeout());
    take_back(id).await;
    azure.metadata("/metadata/versions").await.expect(200);
    let left = azure.control(Method::GET, "faults", None).await.expect(200);
    assert_eq!(left["faults"], json!([]));
    let again = azure.control(Method::DELETE, &format!("faults/{id}"), None).await;
    assert_eq!(again.status, 404);
}

#[tokio::test]
async fn a_fault_that_means_nothing_is_refused() {
    let azure = Azure::default().await;
    for (wrong, says) in [
        (json!({}), "does nothing"),
        (json!({ "status": 42 }), "`42` is not an HTTP status"),
        (
            json!({ "service": "arms", "status": 500 }),
            "`arms` is no service",
        ),
        (json!({ "statsu": 500 }), "statsu"),
    ] {
        let refused = azure.control(Method::POST, "faults", Some(wrong)).await;
        assert!(
            refused.status == 400 && refused.text("/error/message").contains(says),
            "{}",
            refused.body
        );
    }
}

#[tokio::test]
async fn an_operation_that_is_not_there_is_refused_loudly_and_counted() {
    let azure = Azure::default().await;
    azure.group("g").await;
    let path = "/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v";
    for _ in 0..2 {
        assert_eq!(azure.put(path, json!({})).await.refused(501), "NotImplemented");
    }
    assert_eq!(
        azure
            .put("/resourceGroups/g/providers/Contoso.Things/x/y", json!({}))
            .await
            .refused(404),
        "InvalidResourceNamespace"
    );
    let operation = format!("PUT {}{path}", azure.sub());
    assert_eq!(azure.emulator.unsupported(), [(operation, 2)].into());
    let url = format!("{}{}/resourcegroups", azure.arm(), azure.sub());
    let token = azure
        .sign_in(
            azure.emulator.client_id(),
            azure.emulator.client_secret(),
            crate::support::ARM,
        )
        .await;
    let versionless = azure
        .send(azure.http.get(url).bearer_auth(token.text("/access_token")))
        .await;
    assert_eq!(versionless.refused(400), "MissingApiVersionParameter");
    let elsewhere = azure
        .get("/subscriptions/0a2e0000-0000-4000-8000-00000000dead/resourcegroups")
        .await;
    assert_eq!(elsewhere.refused(404), "SubscriptionNotFound");
}

#[tokio::test]
async fn the_control_api_wants_the_key_and_its_log_has_no_secret() {
    let azure = Azure::default().await;
    let url = format!("{}/_emulator/requests", azure.arm());
    assert_eq!(azure.send(azure.http.get(&url)).await.refused(401), "EmulatorKey");
    assert_eq!(
        azure
            .send(azure.http.get(&url).header("x-emulator-key", "x"))
            .await
            .refused(401),
        "EmulatorKey"
    );
    let on_imds = azure
        .http
        .get(format!("{}/_emulator/requests", azure.imds()))
        .header("x-emulator-key", azure.emulator.client_secret());
    assert_eq!(azure.send(on_imds).await.status, 404);
    azure.get("/resourcegroups?sig=verysecret").await.expect(200);
    azure.machine_token("").await.expect(200);
    let log = azure.control(Method::GET, "requests", None).await.expect(200);
    let text = log.to_string();
    assert!(
        !text.contains("eyJ")
            && !text.contains("verysecret")
            && !text.contains(azure.emulator.client_secret()),
        "{text}"
    );
    let last = log["last"].as_u64().unwrap();
    azure.machine_token("").await.expect(200);
    let newer = azure
        .control(Method::GET, &format!("requests?since={last}&wait=10"), None)
        .await
        .expect(200);
    assert_eq!(
        (
            newer["requests"].as_array().unwrap().len(),
            &newer["requests"][0]["listener"]
        ),
        (1, &json!("imds"))
    );
    assert_eq!(newer["requests"][0]["source"], "127.0.0.1");
}
