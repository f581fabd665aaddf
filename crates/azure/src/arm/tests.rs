//! What is sent to change identities, and what errors mean. The way over the wire is held in `tests/`.

use std::time::Duration;

use ::http::StatusCode;
use podid_core::{IdentityResourceId, Retry};
use serde_json::json;

use super::error;
use super::host::{Host, HostIdentities, HostKind, IdentityChange};

fn id(name: &str) -> IdentityResourceId {
    format!(
        "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
    )
    .parse()
    .unwrap()
}

fn change(add: &[&str], remove: &[&str]) -> IdentityChange {
    let ids = |names: &[&str]| names.iter().map(|name| id(name)).collect();
    IdentityChange {
        add: ids(add),
        remove: ids(remove),
    }
}

fn host(system_assigned: bool, user_assigned: &[&str]) -> HostIdentities {
    HostIdentities {
        system_assigned,
        user_assigned: user_assigned.iter().map(|name| id(name)).collect(),
        ..HostIdentities::default()
    }
}

/// Cases and bodies: aad-pod-identity v1.8.17 as run; two of them deliberately differ.
#[test]
fn only_what_changes_is_sent_and_the_hosts_own_identity_stays() {
    let (a, b) = (id("a").to_string(), id("b").to_string());
    let sent = |now: &HostIdentities, add: &[&str], remove: &[&str]| change(add, remove).bodies(now);
    assert_eq!(
        sent(&host(false, &[]), &["a"], &[]),
        [json!({"identity": {"type": "UserAssigned", "userAssignedIdentities": {&a: {}}}})]
    );
    assert!(sent(&host(false, &["a"]), &["A", "a"], &[]).is_empty());
    assert_eq!(
        sent(&host(false, &["a", "others"]), &["b"], &["A"]),
        [json!({"identity": {"type": "UserAssigned", "userAssignedIdentities": {&b: {}, &a: null}}})]
    );
    assert_eq!(
        sent(&host(false, &["a"]), &[], &["a"]),
        [json!({"identity": {"type": "None"}})]
    );
    assert_eq!(
        sent(&host(true, &[]), &["a"], &[]),
        [json!({"identity": {"type": "SystemAssigned, UserAssigned", "userAssignedIdentities": {&a: {}}}})]
    );
    assert_eq!(
        sent(&host(true, &["a"]), &[], &["a"]),
        [json!({"identity": {"type": "SystemAssigned"}})]
    );
    assert!(
        sent(&host(false, &["a"]), &["a"], &["a"]).is_empty(),
        "added and removed stays"
    );
    // The original sent `None` in both of these and so disabled the system-assigned identity in the first.
    assert!(sent(&host(true, &[]), &[], &["a"]).is_empty());
    assert!(sent(&host(false, &[]), &[], &["a"]).is_empty());
}

#[test]
fn large_changes_go_in_batches() {
    let names: Vec<String> = (0..200).map(|n| format!("id-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let sizes: Vec<_> = change(&names, &[])
        .bodies(&host(false, &[]))
        .iter()
        .map(|body| {
            body["identity"]["userAssignedIdentities"]
                .as_object()
                .unwrap()
                .len()
        })
        .collect();
    assert_eq!(sizes, [150, 50]);
}

#[test]
fn hosts_are_read_from_provider_ids_of_either_kind_and_compared_without_case() {
    let scale_set: Host = "azure:///subscriptions/S/resourceGroups/MC_g/providers/Microsoft.Compute/virtualMachineScaleSets/pool/virtualMachines/3"
        .parse()
        .unwrap();
    assert_eq!(scale_set.kind(), HostKind::ScaleSet);
    assert_eq!(
        scale_set,
        "/SUBSCRIPTIONS/s/resourcegroups/mc_G/providers/microsoft.compute/virtualmachinescalesets/POOL"
            .parse()
            .unwrap()
    );
    let vm: Host =
        "azure:///subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/node-0"
            .parse()
            .unwrap();
    assert_eq!(
        vm.id(),
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/node-0"
    );
    for wrong in [
        "kind://docker/kind/node",
        "azure:///subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/",
        "azure:///subscriptions/s/resourceGroups/../providers/Microsoft.Compute/virtualMachines/n",
        "azure:///subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/n?x",
        "",
    ] {
        assert!(wrong.parse::<Host>().is_err(), "{wrong}");
    }
}

#[test]
fn errors_in_both_of_arms_shapes_say_what_would_help() {
    let of = |status: u16, after: Option<u64>, body: &str| {
        error::of(
            StatusCode::from_u16(status).unwrap(),
            after.map(Duration::from_secs),
            body.as_bytes(),
        )
    };
    let nested = of(
        403,
        None,
        r#"{"error":{"code":"AuthorizationFailed","message":"The client has no permission"}}"#,
    );
    assert_eq!(
        (nested.code(), nested.arm_code(), nested.retry()),
        ("arm_forbidden", Some("AuthorizationFailed"), Retry::Backoff)
    );
    let flat = of(
        400,
        None,
        r#"{"code":"BadRequest","message":"no","details":null,"subcode":""}"#,
    );
    assert_eq!(
        (flat.code(), flat.arm_code(), flat.retry()),
        ("arm_refused", Some("BadRequest"), Retry::Never)
    );
    let empty = of(404, None, "");
    assert!(empty.is_not_found());
    assert_eq!(of(429, Some(7), "").retry(), Retry::After(Duration::from_secs(7)));
    assert_eq!(
        of(503, Some(7), "<html>").retry(),
        Retry::After(Duration::from_secs(7))
    );
    assert_eq!(of(503, None, "").retry(), Retry::Backoff);
    assert_eq!(of(412, None, "").code(), "arm_changed");
    assert!(matches!(of(409, None, "").retry(), Retry::After(_)));
}

/// Source of the message: aad-pod-identity v1.8.17's tests, shortened.
#[test]
fn the_identities_that_arm_blames_are_found() {
    let message = format!(
        "The client has permission to perform action on scope 'x', however the linked scope(s) '{},{}' failed. \
         LinkedAuthorizationFailed",
        id("bad-1"),
        id("BAD-2")
    );
    let body = json!({"error": {"code": "LinkedAuthorizationFailed", "message": message}}).to_string();
    let error = error::of(StatusCode::FORBIDDEN, None, body.as_bytes());
    assert_eq!(error.blamed_identities(), [id("bad-1"), id("bad-2")]);
    let other = json!({"error": {"code": "Other", "message": format!("'{}'", id("a"))}}).to_string();
    assert!(
        error::of(StatusCode::FORBIDDEN, None, other.as_bytes())
            .blamed_identities()
            .is_empty()
    );
}

#[test]
fn a_host_with_identities_of_other_shapes_is_not_taken_for_empty() {
    let now = super::host::read(
        br#"{"identity":{"type":"SystemAssigned, UserAssigned","userAssignedIdentities":{"/subscriptions/s/odd":{}}},
            "properties":{"provisioningState":"Succeeded"},"etag":"\"1\""}"#,
    )
    .unwrap();
    assert!(now.system_assigned && now.user_assigned.is_empty());
    let mut one_more = now.clone();
    one_more.user_assigned.push(id("a"));
    let body = &change(&[], &["a"]).bodies(&one_more)[0];
    assert_eq!(body["identity"]["type"], "SystemAssigned, UserAssigned");
    assert_eq!(now.etag.as_deref(), Some("\"1\""));
}
