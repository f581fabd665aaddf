//! What an object must have, and what becomes of it.

use serde_json::json;

use super::*;

const CLIENT: &str = "9e5b0bc4-1a2b-4c3d-8e9f-001122334455";
const ARM: &str =
    "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/app";

fn azure_identity(spec: serde_json::Value, annotations: serde_json::Value) -> AzureIdentity {
    serde_json::from_value(json!({
        "apiVersion": "aadpodidentity.k8s.io/v1",
        "kind": "AzureIdentity",
        "metadata": { "name": "app", "namespace": "shop", "annotations": annotations },
        "spec": spec,
    }))
    .unwrap()
}

#[test]
fn a_managed_identity_keeps_its_ids_and_annotations() {
    let resource = azure_identity(
        json!({ "ClientID": CLIENT.to_uppercase(), "resourceID": ARM }),
        json!({ "podid.dev/object-id": CLIENT, "podid.dev/source": "federation", "aadpodidentity.k8s.io/Behavior": "namespaced" }),
    );
    let read = identity(&resource).unwrap();
    assert_eq!(
        read,
        Identity {
            object: ObjectName::new("shop", "app"),
            client_id: Guid::parse(CLIENT),
            object_id: Guid::parse(CLIENT),
            resource_id: Some(ARM.parse().unwrap()),
            credential: Credential::Managed(TokenSource::Federation),
            namespaced: true,
        }
    );
}

#[test]
fn a_service_principal_needs_its_own_namespaces_secret_and_a_safe_authority() {
    let spec = json!({ "type": 1, "clientID": CLIENT, "tenantID": "contoso.com", "clientPassword": { "name": "s" } });
    let read = identity(&azure_identity(spec.clone(), json!({}))).unwrap();
    assert_eq!(
        read.credential,
        Credential::ClientSecret {
            tenant: "contoso.com".into(),
            auxiliary_tenants: vec![],
            secret: ObjectName::new("shop", "s"),
            authority: None,
        }
    );
    for (field, value) in [
        (
            "clientPassword",
            json!({ "name": "s", "namespace": "kube-system" }),
        ),
        ("adEndpoint", json!("http://login.microsoftonline.com")),
        ("tenantID", json!("https://evil.example/x")),
        ("tenantID", json!("a/../b")),
        ("type", json!(7)),
        ("auxiliaryTenantIDs", json!(["a", "b", "c", "d"])),
    ] {
        let mut spec = spec.clone();
        spec[field] = value;
        let error = identity(&azure_identity(spec, json!({}))).unwrap_err();
        assert_eq!(error.code(), "resource_field_invalid");
        assert!(
            error.to_string().contains(field) && error.to_string().contains("shop/app"),
            "{error}"
        );
    }
}

#[test]
fn what_would_give_the_nodes_own_identity_is_refused() {
    let error = identity(&azure_identity(json!({}), json!({}))).unwrap_err();
    assert_eq!(error.code(), "resource_field_missing");
    for (spec, annotations) in [
        (json!({ "clientID": "me" }), json!({})),
        (json!({ "clientID": CLIENT, "resourceID": "app" }), json!({})),
        (
            json!({ "clientID": CLIENT }),
            json!({ "podid.dev/source": "vault" }),
        ),
        (
            json!({ "clientID": CLIENT }),
            json!({ "podid.dev/object-id": "x" }),
        ),
    ] {
        identity(&azure_identity(spec, annotations)).unwrap_err();
    }
}

#[test]
fn bindings_and_exceptions_without_a_selector_or_labels_are_errors() {
    let read = |spec| -> Result<Binding, ResourceError> {
        binding(
            &serde_json::from_value(
                json!({ "metadata": { "name": "b", "namespace": "shop" }, "spec": spec }),
            )
            .unwrap(),
        )
    };
    assert_eq!(
        &*read(json!({ "azureIdentity": "app", "Selector": "foo" }))
            .unwrap()
            .selector,
        "foo"
    );
    assert!(
        read(json!({ "azureIdentity": "app" }))
            .unwrap_err()
            .to_string()
            .contains("spec.selector")
    );
    assert!(
        read(json!({ "selector": "foo" }))
            .unwrap_err()
            .to_string()
            .contains("spec.azureIdentity")
    );
    let bare = serde_json::from_value(json!({ "metadata": {}, "spec": { "podLabels": {} } })).unwrap();
    assert!(
        exception(&bare)
            .unwrap_err()
            .to_string()
            .contains("spec.podLabels")
    );
}

#[test]
fn an_assignment_uses_its_copy_of_the_identity_and_counts_old_states_as_assigned() {
    let read = |status| {
        assignment(
            &serde_json::from_value(json!({
                "metadata": { "name": "demo-shop-app", "namespace": "default" },
                "spec": {
                    "pod": "demo", "podNamespace": "shop",
                    "azureIdentityRef": { "metadata": { "name": "app", "namespace": "shop", "creationTimestamp": null }, "spec": { "clientID": CLIENT } },
                    "azureBindingRef": { "metadata": { "annotations": { "podid.dev/default": "true" } }, "spec": {} },
                },
                "status": status,
            }))
            .unwrap(),
        )
        .unwrap()
    };
    let old = read(json!({})).unwrap();
    assert!(old.assigned && old.default);
    assert_eq!(
        (old.pod, old.identity.object.clone()),
        (ObjectName::new("shop", "demo"), ObjectName::new("shop", "app"))
    );
    assert!(!read(json!({ "status": "Created" })).unwrap().assigned);
    assert_eq!(read(json!({ "status": "Unassigned" })), None);
}

#[test]
fn a_pod_is_read_with_all_its_addresses_and_without_what_nobody_needs() {
    let read = |status| {
        let whole: NodePod = serde_json::from_value(json!({
            "metadata": { "name": "demo", "namespace": "shop", "uid": "u1", "labels": { "aadpodidbinding": "foo" }, "managedFields": [{}] },
            "spec": { "containers": [{ "name": "c" }], "nodeName": "n1" },
            "status": status,
        }))
        .unwrap();
        pod(whole)
    };
    let running = read(
        json!({ "phase": "Running", "podIP": "10.0.0.7", "podIPs": [{ "ip": "10.0.0.7" }, { "ip": "fd00::7" }, {}] }),
    );
    assert_eq!(
        running.addresses,
        ["10.0.0.7".parse::<IpAddr>().unwrap(), "fd00::7".parse().unwrap()]
    );
    assert_eq!(running.selector().map(AsRef::as_ref), Some("foo"));
    assert_eq!(
        (&*running.service_account, running.phase),
        ("default", Phase::Active)
    );
    assert_eq!(read(json!({ "phase": "Succeeded" })).phase, Phase::Finished);
}
