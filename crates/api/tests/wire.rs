//! Objects as the original, MIC and people wrote them: they are read, and written back under the same names.

#![expect(clippy::unwrap_used, reason = "test helpers")]

use kube::Resource;
use podid_api::{
    AssignedState, AzureAssignedIdentity, AzureIdentity, AzureIdentityBinding, AzurePodIdentityException,
    PodIdentityProfile,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn read<K: DeserializeOwned>(yaml: &str) -> K {
    serde_saphyr::from_str(yaml).unwrap()
}

/// Reads and writes `yaml`; what comes out is what went in, apart from members that are null.
fn round_trip<K: Resource + DeserializeOwned + Serialize>(yaml: &str) -> K {
    let before: Value = serde_saphyr::from_str(yaml).unwrap();
    let object: K = serde_json::from_value(before.clone()).unwrap();
    assert_eq!(
        without_nulls(serde_json::to_value(&object).unwrap()),
        without_nulls(before)
    );
    object
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// As `kubectl get -o yaml` shows an assignment of MIC v1.8.17.
const ASSIGNED: &str = r#"
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureAssignedIdentity
metadata:
  creationTimestamp: "2023-05-02T10:00:00Z"
  finalizers: [azureassignedidentity.finalizers.aadpodidentity.k8s.io]
  generation: 2
  labels: {nodename: aks-nodepool1-12345678-vmss000000}
  name: demo-default-demo-identity
  namespace: default
  resourceVersion: "4711"
  uid: 0e0f5f3b-2f4a-4c3e-9d9b-0f6a3a7a0001
spec:
  azureBindingRef:
    apiVersion: aadpodidentity.k8s.io/v1
    kind: AzureIdentityBinding
    metadata: {name: demo-binding, namespace: default, resourceVersion: "12"}
    spec:
      azureIdentity: demo-identity
      metadata: {creationTimestamp: null}
      selector: demo
    status: {availableReplicas: 0, metadata: {creationTimestamp: null}}
  azureIdentityRef:
    apiVersion: aadpodidentity.k8s.io/v1
    kind: AzureIdentityList
    metadata: {name: demo-identity, namespace: default, resourceVersion: "11"}
    spec:
      auxiliaryTenantIDs: null
      clientID: 11111111-2222-3333-4444-555555555555
      clientPassword: {}
      metadata: {creationTimestamp: null}
      replicas: null
      resourceID: /subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/demo
    status: {availableReplicas: 0, metadata: {creationTimestamp: null}}
  metadata: {creationTimestamp: null}
  nodename: aks-nodepool1-12345678-vmss000000
  pod: demo
  podNamespace: default
  replicas: null
status:
  availableReplicas: 1
  metadata: {creationTimestamp: null}
  status: Assigned
"#;

#[test]
fn an_assignment_of_mic_round_trips() {
    let assigned: AzureAssignedIdentity = round_trip(ASSIGNED);
    assert_eq!(assigned.state(), Some(AssignedState::Assigned));
    assert_eq!(
        assigned.spec.node_name.as_deref(),
        Some("aks-nodepool1-12345678-vmss000000")
    );
    let identity = assigned.spec.azure_identity_ref.unwrap();
    assert_eq!(identity.metadata.name.as_deref(), Some("demo-identity"));
}

#[test]
fn identities_of_all_types_round_trip() {
    let managed: AzureIdentity = round_trip(
        "apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentity
metadata:
  name: demo
  namespace: my-app
  annotations: {aadpodidentity.k8s.io/Behavior: namespaced}
spec:
  type: 0
  resourceID: /subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/demo
  clientID: 11111111-2222-3333-4444-555555555555",
    );
    assert_eq!(
        managed.folded().unwrap().client_id,
        Some("11111111-2222-3333-4444-555555555555")
    );
    let principal: AzureIdentity = round_trip(
        "apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentity
metadata: {name: sp}
spec:
  type: 1
  tenantID: t
  clientID: c
  clientPassword: {name: secret, namespace: default}
  auxiliaryTenantIDs: [t2, t3]
  adResourceID: r
  adEndpoint: https://login.microsoftonline.com/
  replicas: 3",
    );
    assert_eq!(
        principal.folded().unwrap().secret,
        Some((Some("default"), "secret"))
    );
}

#[test]
fn an_identity_without_a_type_is_a_managed_identity() {
    let identity: AzureIdentity = read(
        "{apiVersion: aadpodidentity.k8s.io/v1, kind: AzureIdentity, metadata: {name: a}, spec: {clientPassword: {}}}",
    );
    let folded = identity.folded().unwrap();
    assert_eq!((folded.kind, folded.secret), (0, None));
}

#[test]
fn bindings_and_exceptions_round_trip() {
    let binding: AzureIdentityBinding = round_trip(
        "apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentityBinding
metadata: {name: demo, namespace: my-app}
spec: {azureIdentity: demo, selector: Foo, weight: 1, metadata: {creationTimestamp: null}}
status: {availableReplicas: 0}",
    );
    assert_eq!(binding.folded().unwrap(), (Some("demo"), Some("Foo")));
    let exception: AzurePodIdentityException = round_trip(
        "apiVersion: aadpodidentity.k8s.io/v1
kind: AzurePodIdentityException
metadata: {name: aks-addon-exception, namespace: kube-system}
spec: {podLabels: {kubernetes.azure.com/managedby: aks}}
status: {status: ''}",
    );
    assert_eq!(
        exception.folded().unwrap().unwrap()["kubernetes.azure.com/managedby"],
        "aks"
    );
}

#[test]
fn spellings_from_before_1_6_are_read_and_kept() {
    let identity: AzureIdentity = round_trip(
        "apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentity
metadata: {name: old, namespace: my-app}
spec:
  type: 2
  ClientID: c
  ResourceID: r
  TenantID: t
  ClientPassword: {Name: secret, Namespace: default}",
    );
    let folded = identity.folded().unwrap();
    assert_eq!(
        (folded.client_id, folded.resource_id, folded.tenant_id),
        (Some("c"), Some("r"), Some("t"))
    );
    assert_eq!(folded.secret, Some((Some("default"), "secret")));
    let binding: AzureIdentityBinding = round_trip(
        "{apiVersion: aadpodidentity.k8s.io/v1, kind: AzureIdentityBinding, metadata: {name: old}, spec: {AzureIdentity: a, Selector: s}}",
    );
    assert_eq!(binding.folded().unwrap(), (Some("a"), Some("s")));
    let exception: AzurePodIdentityException = round_trip(
        "{apiVersion: aadpodidentity.k8s.io/v1, kind: AzurePodIdentityException, metadata: {name: old}, spec: {PodLabels: {a: b}}}",
    );
    assert_eq!(exception.folded().unwrap().unwrap()["a"], "b");
}

#[test]
fn the_certificate_example_of_the_original_docs_is_understood() {
    let identity: AzureIdentity = read(
        "{apiVersion: aadpodidentity.k8s.io/v1, kind: AzureIdentity, metadata: {name: a}, spec: {type: 2, clientPassword: {Name: s, Namespace: d}}}",
    );
    assert_eq!(identity.folded().unwrap().secret, Some((Some("d"), "s")));
}

#[test]
fn both_spellings_with_different_values_are_refused_and_equal_or_empty_ones_are_not() {
    let identity = |spec: &str| -> AzureIdentity {
        read(&format!(
            "{{apiVersion: aadpodidentity.k8s.io/v1, kind: AzureIdentity, metadata: {{name: a, namespace: my-app}}, spec: {spec}}}"
        ))
    };
    let error = identity("{clientID: x, ClientID: y}").folded().unwrap_err();
    assert_eq!(
        error.to_string(),
        "AzureIdentity my-app/a: spec.clientID and its old spelling spec.ClientID are both given and differ"
    );
    assert_eq!(
        identity("{clientID: x, ClientID: x}").folded().unwrap().client_id,
        Some("x")
    );
    assert_eq!(
        identity("{clientID: '', ClientID: y}")
            .folded()
            .unwrap()
            .client_id,
        Some("y")
    );
    let error = identity("{clientPassword: {name: x}, ClientPassword: {Name: y}}")
        .folded()
        .unwrap_err();
    assert!(error.to_string().contains("clientPassword.name"), "{error}");
}

#[test]
fn a_profile_of_arm_round_trips_and_its_absent_selector_is_the_name() {
    let profile: PodIdentityProfile = round_trip(
        "apiVersion: podid.dev/v1alpha1
kind: PodIdentityProfile
metadata: {name: cluster}
spec:
  enabled: true
  allowNetworkPluginKubenet: null
  networkPlugin: azure
  userAssignedIdentities:
  - name: my-pod-identity
    namespace: my-app
    bindingSelector: null
    identity:
      resourceId: /subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/demo
      clientId: 11111111-2222-3333-4444-555555555555
      objectId: 66666666-2222-3333-4444-555555555555
  userAssignedIdentityExceptions: null",
    );
    assert_eq!(profile.spec.identities()[0].selector(), "my-pod-identity");
    assert!(profile.spec.exceptions().is_empty() && !profile.spec.kubenet_refused());
}
