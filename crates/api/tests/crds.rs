//! What the CRDs let through and what they refuse, their rules run by a CEL evaluator.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test helpers")]

use kube_cel::{Validator, compile_schema};
use podid_api::crd;
use podid_core::IdentityResourceId;
use serde_json::{Value, json};

const ID: &str = "/subscriptions/S1/resourcegroups/my-group/providers/Microsoft.ManagedIdentity/userAssignedIdentities/App_1";

fn crd(plural: &str) -> Value {
    let all = crd::all();
    let found = all
        .into_iter()
        .find(|crd| crd["spec"]["names"]["plural"] == plural);
    found.unwrap()
}

fn schema(plural: &str) -> Value {
    crd(plural)["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// The messages of the rules that a spec breaks.
fn broken(plural: &str, spec: Value) -> Vec<String> {
    let object = json!({ "metadata": { "name": "x" }, "spec": spec });
    match Validator::new().validate(&schema(plural), &object, None) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_iter().map(|error| error.message).collect(),
    }
}

#[test]
fn every_rule_can_be_evaluated_by_the_embedded_api_server() {
    for crd in crd::all() {
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let errors: Vec<String> = compile_schema(&schema["properties"]["spec"])
            .compilation_errors()
            .iter()
            .map(|e| format!("{e:?}"))
            .collect();
        assert!(errors.is_empty(), "{}: {errors:?}", crd["metadata"]["name"]);
    }
}

#[test]
fn the_ids_that_the_crds_take_are_those_that_core_reads() {
    let pattern = regex::Regex::new(crd::IDENTITY_ID_PATTERN).unwrap();
    let ids = [
        ID.to_owned(),
        ID.to_lowercase(),
        ID.to_uppercase(),
        ID.replace("my-group", "gr\u{fc}n (1)").replace(' ', ""),
        ID.replace("App_1", "App 1"),
        ID.replace("App_1", "App+1"),
        ID.replace("App_1", ""),
        ID.replace("/userAssignedIdentities", "/identities"),
        format!("{ID}/"),
        format!("{ID}?x=1"),
        format!("{ID}\n"),
        format!(" {ID}"),
        format!("{ID}{ID}"),
        "App_1".to_owned(),
    ];
    for id in ids {
        assert_eq!(
            pattern.is_match(&id),
            id.parse::<IdentityResourceId>().is_ok(),
            "{id:?}"
        );
    }
}

#[test]
fn a_managed_identity_needs_an_arm_id_in_any_case_and_a_service_principal_does_not() {
    for (field, id) in [
        ("resourceID", ID.to_uppercase()),
        ("ResourceID", ID.to_owned()),
        ("resourceID", String::new()),
    ] {
        assert_eq!(
            broken("azureidentities", json!({ "type": 0, field: id })),
            Vec::<String>::new(),
            "{field} {id}"
        );
    }
    for spec in [
        json!({ "type": 0, "resourceID": "App_1" }),
        json!({ "resourceID": format!("{ID}/x") }),
        json!({ "type": 0, "ResourceID": "App_1" }),
    ] {
        let messages = broken("azureidentities", spec.clone());
        assert!(
            matches!(messages.as_slice(), [one] if one.contains("must be an ARM id")),
            "{spec}: {messages:?}"
        );
    }
    assert_eq!(
        broken("azureidentities", json!({ "type": 1, "resourceID": "App_1" })),
        Vec::<String>::new()
    );
}

#[test]
fn an_old_and_a_new_spelling_that_differ_are_refused() {
    for (plural, new, old) in [
        ("azureidentities", "clientID", "ClientID"),
        ("azureidentities", "tenantID", "TenantID"),
        ("azureidentitybindings", "azureIdentity", "AzureIdentity"),
        ("azureidentitybindings", "selector", "Selector"),
    ] {
        assert_eq!(
            broken(plural, json!({ "type": 1, new: "a", old: "a" })),
            Vec::<String>::new()
        );
        assert_eq!(
            broken(plural, json!({ "type": 1, old: "a" })),
            Vec::<String>::new()
        );
        let messages = broken(plural, json!({ "type": 1, new: "a", old: "b" }));
        assert_eq!(
            messages,
            [format!(
                "{new} and its old spelling {old} are both given and differ; give only {new}"
            )]
        );
    }
}

#[test]
fn kinds_of_the_k8s_io_group_say_that_nobody_approved_them() {
    for crd in crd::all() {
        let approved = &crd["metadata"]["annotations"]["api-approved.kubernetes.io"];
        let of_k8s_io = crd["spec"]["group"].as_str().unwrap().ends_with(".k8s.io");
        // An API server asks for a URL or for a text that begins with this word.
        let said = approved
            .as_str()
            .is_some_and(|text| text.starts_with("unapproved"));
        assert_eq!(said, of_k8s_io, "{}", crd["metadata"]["name"]);
    }
}

#[test]
fn a_profile_takes_two_hundred_of_each_and_names_them_once() {
    let spec = &schema("podidentityprofiles")["properties"]["spec"]["properties"];
    for list in ["userAssignedIdentities", "userAssignedIdentityExceptions"] {
        assert_eq!(spec[list]["maxItems"], 200);
        assert_eq!(
            spec[list]["x-kubernetes-list-map-keys"],
            json!(["namespace", "name"])
        );
    }
}
