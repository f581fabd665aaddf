//! Names on the wire: API groups, labels, annotations, finalizers, well-known objects. Each with its source.

/// API group of the original's kinds. Source: aad-pod-identity v1.8.17, `pkg/apis/aadpodidentity/v1`.
pub const GROUP: &str = "aadpodidentity.k8s.io";

/// API group of podid's own kinds; also the prefix of its annotations.
pub const PODID_GROUP: &str = "podid.dev";

pub use podid_core::pod::BINDING_LABEL;

/// Annotation of an AzureIdentity: with value [`BEHAVIOR_NAMESPACED`] only pods of its namespace may use it.
/// Source: aad-pod-identity v1.8.17, `BehaviorKey`.
pub const BEHAVIOR_ANNOTATION: &str = "aadpodidentity.k8s.io/Behavior";

/// The only value of [`BEHAVIOR_ANNOTATION`] that means something; compared exactly.
/// Source: aad-pod-identity v1.8.17, `BehaviorNamespaced`.
pub const BEHAVIOR_NAMESPACED: &str = "namespaced";

/// Annotation of an AzureIdentityBinding: with value `true` its identity is the one that a pod gets which has several
/// and names none.
pub const DEFAULT_ANNOTATION: &str = "podid.dev/default";

/// Annotation of an AzureIdentity: its object id (principal id), so that a request may name the identity by it. The
/// original's spec has no field for it. The controller writes it from the profile.
pub const OBJECT_ID_ANNOTATION: &str = "podid.dev/object-id";

/// Annotation of an AzureIdentity of type 0: where its tokens come from, [`SOURCE_IMDS`] or [`SOURCE_FEDERATION`]; where
/// the agent's `--msi-source` says when absent.
pub const SOURCE_ANNOTATION: &str = "podid.dev/source";

/// Value of [`SOURCE_ANNOTATION`]: the node's metadata service.
pub const SOURCE_IMDS: &str = "imds";

/// Value of [`SOURCE_ANNOTATION`]: an exchange of the pod's service-account token at Entra.
pub const SOURCE_FEDERATION: &str = "federation";

/// Annotation of a Node: boot id and container of the agent that was Ready there last. The controller keeps it beside
/// the start-up taint.
pub const AGENT_READY_ANNOTATION: &str = "podid.dev/agent-ready";

/// Label of an AzureAssignedIdentity: the node's name. Source: aad-pod-identity v1.8.17, `pkg/mic` (`nodename`).
pub const NODE_NAME_LABEL: &str = "nodename";

/// Finalizer of an AzureAssignedIdentity since 1.6.1. Source: aad-pod-identity v1.8.17, `pkg/crd`.
pub const ASSIGNED_FINALIZER: &str = "azureassignedidentity.finalizers.aadpodidentity.k8s.io";

/// Annotation that API servers ask of every CRD in a `k8s.io` group.
/// Source: <https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/2337-k8s.io-group-protection>.
pub const API_APPROVED_ANNOTATION: &str = "api-approved.kubernetes.io";

/// Value of [`API_APPROVED_ANNOTATION`]: nobody has reviewed these kinds, and the original's CRDs say the same
/// (`unapproved`). The rule asks for a URL or for a text that starts so.
pub const API_UNAPPROVED: &str = "unapproved, the group belongs to the archived aad-pod-identity project";

/// Label that says which program keeps an object; value [`MANAGED_BY`] on everything that the controller made.
/// Source: <https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/>.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// The controller: value of [`MANAGED_BY_LABEL`] and its server-side apply field manager.
pub const MANAGED_BY: &str = "podid-controller";

/// Name of the one PodIdentityProfile.
pub const PROFILE_NAME: &str = "cluster";

/// Exception that exists while pod identity is enabled, so that the cluster's own add-ons reach the metadata
/// service. It is never part of the ARM profile. Source: aad-pod-identity v1.8.17, `deploy/infra/managed-mode-deployment.yaml`.
pub const ADDON_EXCEPTION: &str = "aks-addon-exception";

/// Namespace of [`ADDON_EXCEPTION`].
pub const ADDON_NAMESPACE: &str = "kube-system";

/// Label of the add-ons' pods, and with [`ADDON_LABEL_VALUE`] the one label of [`ADDON_EXCEPTION`].
pub const ADDON_LABEL: &str = "kubernetes.azure.com/managedby";

/// Value of [`ADDON_LABEL`].
pub const ADDON_LABEL_VALUE: &str = "aks";

/// Most pod identities of a cluster. Source: <https://learn.microsoft.com/azure/aks/use-azure-ad-pod-identity>.
pub const MAX_IDENTITIES: u32 = 200;

/// Most pod identity exceptions of a cluster. Source as for [`MAX_IDENTITIES`].
pub const MAX_EXCEPTIONS: u32 = 200;
