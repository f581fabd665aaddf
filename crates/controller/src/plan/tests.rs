//! Tables of wanted × actual, and the property that a plan carried out leaves nothing to do.

use podid_api::PodIdentityProfile;
use serde_json::json;

use super::*;
use crate::desired::wanted;

const ID: &str =
    "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/app";

fn profile(spec: Value) -> PodIdentityProfile {
    serde_json::from_value(json!({
        "apiVersion": "podid.dev/v1alpha1", "kind": "PodIdentityProfile",
        "metadata": { "name": "cluster", "uid": "p1" }, "spec": spec,
    }))
    .unwrap()
}

fn one() -> PodIdentityProfile {
    profile(json!({
        "enabled": true,
        "userAssignedIdentities": [
            { "name": "app", "namespace": "team", "identity": { "resourceId": ID, "clientId": "c" } },
            { "name": "two", "namespace": "team", "bindingSelector": "foo", "identity": { "resourceId": ID } },
        ],
        "userAssignedIdentityExceptions": [{ "name": "ex", "namespace": "team", "podLabels": { "a": "b" } }],
    }))
}

/// The cluster after the plan was carried out.
fn carry_out(plan: &Plan, mut cluster: Cluster) -> Cluster {
    for action in plan.stages.iter().flatten() {
        match action.clone() {
            Action::CreateNamespace { name, .. } => {
                cluster.namespaces.insert(name, false);
            }
            Action::Create { key, desired } => {
                cluster.objects.insert(key, ours(desired));
            }
            Action::Update { key, desired, .. } => {
                cluster.objects.insert(key, ours(desired));
            }
            Action::Delete { key, .. } => {
                cluster.objects.remove(&key);
            }
        }
    }
    cluster
}

fn ours(desired: Desired) -> Actual {
    Actual {
        owner: Owner::Ours("p1".into()),
        uid: "u".into(),
        spec: desired.spec,
        annotations: desired.annotations,
        terminating: false,
    }
}

fn system() -> Cluster {
    Cluster {
        namespaces: BTreeMap::from([("kube-system".to_owned(), false)]),
        ..Cluster::default()
    }
}

fn names(plan: &Plan) -> Vec<String> {
    plan.stages
        .iter()
        .flatten()
        .map(|action| match action {
            Action::CreateNamespace { name, .. } => format!("namespace {name}"),
            Action::Create { key, .. } => format!("create {key}"),
            Action::Update { key, .. } => format!("update {key}"),
            Action::Delete { key, .. } => format!("delete {key}"),
        })
        .collect()
}

#[test]
fn a_profile_becomes_identities_then_bindings_and_exceptions_with_the_namespace_first() {
    let plan = plan(wanted(Some(&one())), &system(), "p1");
    assert_eq!(
        names(&plan),
        [
            "namespace team",
            "create AzureIdentity team/app",
            "create AzureIdentity team/two",
            "create AzureIdentityBinding team/app",
            "create AzureIdentityBinding team/two",
            "create AzurePodIdentityException kube-system/aks-addon-exception",
            "create AzurePodIdentityException team/ex",
        ]
    );
    assert!(plan.obstacles.is_empty());
}

#[test]
fn the_selector_is_the_name_unless_one_is_given() {
    let wanted = wanted(Some(&one()));
    let selector =
        |name: &str| wanted.objects[&Key::new(Kind::Binding, "team", name)].spec["selector"].clone();
    assert_eq!((selector("app"), selector("two")), (json!("app"), json!("foo")));
}

#[test]
fn a_plan_carried_out_leaves_nothing_to_do() {
    let off = profile(json!({ "enabled": false }));
    let kubenet = profile(json!({ "enabled": true, "networkPlugin": "kubenet",
        "userAssignedIdentities": [{ "name": "a", "namespace": "n", "identity": { "resourceId": ID } }] }));
    let all = [None, Some(one()), Some(off), Some(kubenet)];
    for from in &all {
        for to in &all {
            let before = carry_out(&plan(wanted(from.as_ref()), &system(), "p1"), system());
            let after = carry_out(&plan(wanted(to.as_ref()), &before, "p1"), before);
            assert_eq!(
                names(&plan(wanted(to.as_ref()), &after, "p1")),
                Vec::<String>::new()
            );
        }
    }
}

#[test]
fn off_and_gone_remove_all_that_was_made_bindings_first() {
    let full = carry_out(&plan(wanted(Some(&one())), &system(), "p1"), system());
    let expected = [
        "delete AzureIdentityBinding team/app",
        "delete AzureIdentityBinding team/two",
        "delete AzurePodIdentityException kube-system/aks-addon-exception",
        "delete AzurePodIdentityException team/ex",
        "delete AzureIdentity team/app",
        "delete AzureIdentity team/two",
    ];
    assert_eq!(names(&plan(wanted(None), &full, "")), expected);
    assert_eq!(
        names(&plan(
            wanted(Some(&profile(json!({ "enabled": false })))),
            &full,
            "p1"
        )),
        expected
    );
    let mut leaving = one();
    leaving.metadata.deletion_timestamp =
        Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    assert_eq!(names(&plan(wanted(Some(&leaving)), &full, "p1")), expected);
}

#[test]
fn an_object_made_by_hand_is_left_alone_and_its_entry_fails_as_a_whole() {
    let mut cluster = carry_out(&plan(wanted(Some(&one())), &system(), "p1"), system());
    let key = Key::new(Kind::Binding, "team", "app");
    cluster.objects.get_mut(&key).unwrap().owner = Owner::Foreign;
    let plan = plan(wanted(Some(&one())), &cluster, "p1");
    assert_eq!(names(&plan), ["delete AzureIdentity team/app"]);
    let obstacle = &plan.obstacles[&Entry::Identity(0)];
    assert_eq!(obstacle.code.code, "object_not_ours");
    assert!(
        obstacle.message.contains("AzureIdentityBinding team/app"),
        "{}",
        obstacle.message
    );
}

#[test]
fn kubenet_without_consent_wants_nothing_and_fails_every_entry() {
    let mut profile = one();
    profile.spec.network_plugin = Some("kubenet".into());
    let refused = wanted(Some(&profile));
    assert!(refused.objects.is_empty());
    assert_eq!(refused.obstacles.len(), 3);
    assert!(
        refused
            .obstacles
            .values()
            .all(|obstacle| obstacle.code.code == "kubenet_not_allowed")
    );
    profile.spec.allow_network_plugin_kubenet = Some(true);
    assert!(wanted(Some(&profile)).obstacles.is_empty());
}

#[test]
fn drift_is_repaired_and_added_fields_are_named() {
    let mut cluster = carry_out(&plan(wanted(Some(&one())), &system(), "p1"), system());
    let key = Key::new(Kind::Exception, "team", "ex");
    cluster.objects.get_mut(&key).unwrap().spec =
        json!({ "podLabels": { "a": "x", "more": "y" }, "PodLabels": {} });
    let plan = plan(wanted(Some(&one())), &cluster, "p1");
    let actions = plan.stages.concat();
    let [Action::Update { extra, .. }] = actions.as_slice() else {
        panic!("one update")
    };
    assert_eq!(
        *extra,
        Some(json!({ "spec": { "podLabels": { "more": null }, "PodLabels": null } }))
    );
}

#[test]
fn the_object_id_becomes_an_annotation_and_goes_with_it() {
    let mut profile = one();
    let identity = |profile: &mut PodIdentityProfile| {
        profile.spec.user_assigned_identities.as_mut().unwrap()[0]
            .identity
            .object_id = Some("o".into());
    };
    let before = carry_out(&plan(wanted(Some(&profile)), &system(), "p1"), system());
    identity(&mut profile);
    let there = plan(wanted(Some(&profile)), &before, "p1");
    assert_eq!(names(&there), ["update AzureIdentity team/app"]);
    let after = carry_out(&there, before);
    let key = Key::new(Kind::Identity, "team", "app");
    assert_eq!(after.objects[&key].annotations["podid.dev/object-id"], "o");
    let gone = plan(wanted(Some(&one())), &after, "p1").stages.concat();
    let [Action::Update { extra, .. }] = gone.as_slice() else {
        panic!("one update")
    };
    assert_eq!(
        *extra,
        Some(json!({ "metadata": { "annotations": { "podid.dev/object-id": null } } }))
    );
}

#[test]
fn objects_of_an_earlier_profile_are_taken_over() {
    let cluster = carry_out(&plan(wanted(Some(&one())), &system(), "p1"), system());
    let names = names(&plan(wanted(Some(&one())), &cluster, "p2"));
    assert_eq!(names.len(), 6);
    assert!(names.iter().all(|name| name.starts_with("update ")), "{names:?}");
}

#[test]
fn a_namespace_on_its_way_out_holds_its_entries_back() {
    let mut cluster = system();
    cluster.namespaces.insert("team".into(), true);
    let plan = plan(wanted(Some(&one())), &cluster, "p1");
    assert_eq!(
        names(&plan),
        ["create AzurePodIdentityException kube-system/aks-addon-exception"]
    );
    assert!(
        plan.obstacles
            .values()
            .all(|obstacle| obstacle.code.code == "namespace_terminating" && obstacle.code.passing)
    );
}

#[test]
fn the_name_of_the_add_ons_exception_is_taken() {
    let profile = profile(json!({ "enabled": true, "userAssignedIdentityExceptions": [
        { "name": "aks-addon-exception", "namespace": "kube-system", "podLabels": { "a": "b" } }] }));
    let wanted = wanted(Some(&profile));
    assert_eq!(wanted.objects.len(), 1);
    assert_eq!(wanted.obstacles[&Entry::Exception(0)].code.code, "name_reserved");
}
