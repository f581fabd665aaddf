//! Every outcome of a request has a reason code. This is the one table: the error text, the log field, the metric label,
//! the Kubernetes Event and the docs page are made from it.

/// Why a request ended as it did. Codes are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    // Given.
    /// A token was issued.
    TokenIssued,
    /// The request went to the node's metadata service.
    PassedThrough,

    // The request itself; the pod does not matter.
    /// `Metadata: true` is missing.
    MetadataHeaderMissing,
    /// `X-Forwarded-For` is present.
    ForwardedFor,
    /// Not GET.
    MethodNotAllowed,
    /// A path that cannot be read in one way only.
    PathInvalid,
    /// Nothing is there.
    PathNotFound,
    /// `resource` is missing.
    ResourceMissing,
    /// `api-version` is missing.
    ApiVersionMissing,
    /// `api-version` is not a date that the service knows.
    ApiVersionInvalid,
    /// A parameter is given twice.
    DuplicateParameter,
    /// Two different identities are named.
    SeveralSelectors,
    /// The query cannot be read.
    QueryInvalid,

    // Who asks.
    /// No pod of this node has the caller's address.
    PodNotFound,
    /// Several pods have the caller's address.
    AddressAmbiguous,
    /// The kernel does not confirm that the connection is the pod's.
    AttestationFailed,
    /// The connection is of a pod that is not there any more.
    PodGone,
    /// The pod's containers have ended.
    PodFinished,
    /// The pod uses the node's network and cannot be told from it.
    HostNetwork,
    /// The caller of `/host/token` is not proven to be an allowed node agent.
    HostCallerRefused,
    /// A request for `/host/token` does not name a pod.
    HostHeadersMissing,
    /// A request for `/host/token` names a pod that is not there.
    NamedPodNotFound,

    // What it may have.
    /// The path is closed to pods without an exception.
    PathClosed,
    /// The path is closed to all pods.
    PathBlocked,
    /// The pod has no label `aadpodidbinding`.
    NoBindingLabel,
    /// No binding of the pod's namespace has its selector.
    NoBinding,
    /// The binding was there and has been removed.
    BindingRemoved,
    /// The binding names an AzureIdentity that is not there.
    IdentityMissing,
    /// The identity asked for is not bound to the pod.
    IdentityNotBound,
    /// The identity is not on the node's VM yet.
    IdentityNotAssigned,
    /// Several identities are bound and none is named.
    IdentityAmbiguous,

    // What keeps the agent from giving it.
    /// The pod asks too often.
    RateLimited,
    /// The pod has too many connections open.
    TooManyConnections,
    /// The agent has not seen the cluster's objects yet.
    NotSynced,
    /// Tokens of this kind of identity cannot be obtained by this agent.
    SourceUnsupported,
}

/// Whether waiting for a watch event may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// No event changes it.
    Never,
    /// An event about pods may.
    ForPod,
    /// An event about the pod's namespace (identity, binding, assignment) may.
    ForNamespace,
}

/// One row of the table.
struct Row {
    reason: Reason,
    code: &'static str,
    text: &'static str,
    fix: &'static str,
}

const fn row(reason: Reason, code: &'static str, text: &'static str, fix: &'static str) -> Row {
    Row {
        reason,
        code,
        text,
        fix,
    }
}

// Texts that real clients look at are the metadata service's own; see docs/reference/compatibility.md. None has the words "Identity not
// found" without being one, and none says that something is out of reach, which clients take for "no metadata service here".
const TABLE: &[Row] = &[
    row(Reason::TokenIssued, "token_issued", "A token was issued", ""),
    row(
        Reason::PassedThrough,
        "passed_through",
        "The request went to the node's metadata service",
        "",
    ),
    row(
        Reason::MetadataHeaderMissing,
        "metadata_header_missing",
        "Required metadata header not specified",
        "send the header Metadata: true",
    ),
    row(
        Reason::ForwardedFor,
        "forwarded_for_present",
        "Requests with the header X-Forwarded-For are refused",
        "ask the metadata service directly, not through a proxy",
    ),
    row(
        Reason::MethodNotAllowed,
        "method_not_allowed",
        "Only GET is supported here",
        "use GET",
    ),
    row(
        Reason::PathInvalid,
        "path_invalid",
        "Invalid request",
        "use the path /metadata/identity/oauth2/token as it is written here",
    ),
    row(
        Reason::PathNotFound,
        "path_not_found",
        "There is nothing at this path",
        "tokens are at /metadata/identity/oauth2/token",
    ),
    row(
        Reason::ResourceMissing,
        "resource_missing",
        "Required query variable 'resource' is missing",
        "add resource=, for example resource=https://management.azure.com/",
    ),
    row(
        Reason::ApiVersionMissing,
        "api_version_missing",
        "Required query variable 'api-version' is missing",
        "add api-version=2018-02-01",
    ),
    row(
        Reason::ApiVersionInvalid,
        "api_version_invalid",
        "The api-version is not supported",
        "use api-version=2018-02-01 or a later date",
    ),
    row(
        Reason::DuplicateParameter,
        "duplicate_parameter",
        "A query variable is given twice",
        "give each variable once",
    ),
    row(
        Reason::SeveralSelectors,
        "several_selectors",
        "client_id, object_id and msi_res_id exclude each other",
        "name the identity in one way only",
    ),
    row(
        Reason::QueryInvalid,
        "query_invalid",
        "The query cannot be read",
        "percent-encode the values",
    ),
    row(
        Reason::PodNotFound,
        "pod_not_found",
        "No running pod of this node has this address",
        "try again; if it stays so, look at the agent's log for the address",
    ),
    row(
        Reason::AddressAmbiguous,
        "address_ambiguous",
        "Several pods of this node report this address",
        "wait until the old pod is gone",
    ),
    row(
        Reason::AttestationFailed,
        "attestation_failed",
        "The kernel does not confirm that this connection is the pod's own",
        "ask from the pod itself, not through an address that is not its own",
    ),
    row(
        Reason::PodGone,
        "pod_gone",
        "The pod of this connection is not there any more",
        "open a new connection",
    ),
    row(
        Reason::PodFinished,
        "pod_finished",
        "The pod's containers have ended",
        "run it again; a pod has its identity as long as its containers run",
    ),
    row(
        Reason::HostNetwork,
        "host_network",
        "The pod uses the node's network and cannot be told from the node",
        "run it without hostNetwork, or use workload identity there",
    ),
    row(
        Reason::HostCallerRefused,
        "host_caller_refused",
        "This connection is not proven to be of a node agent that may ask for other pods' tokens",
        "run the caller in an allowed namespace and service account (--host-token-callers of the agent), with processes that the agent sees in /proc",
    ),
    row(
        Reason::HostHeadersMissing,
        "host_headers_missing",
        "The headers podns and podname are needed here",
        "name the pod for which a token is asked",
    ),
    row(
        Reason::NamedPodNotFound,
        "named_pod_not_found",
        "No running pod of this node has this name",
        "ask on the node on which the pod runs",
    ),
    row(
        Reason::PathClosed,
        "path_closed",
        "This path is closed to pods",
        "an AzurePodIdentityException that matches the pod opens it",
    ),
    row(
        Reason::PathBlocked,
        "path_blocked",
        "This path is closed to all pods of this node",
        "who runs the agent opens it (--path-policy, --block-instance-metadata)",
    ),
    row(
        Reason::NoBindingLabel,
        "no_binding_label",
        "Identity not found: the pod has no label aadpodidbinding",
        "label the pod with the selector of an AzureIdentityBinding of its namespace",
    ),
    row(
        Reason::NoBinding,
        "no_binding",
        "Identity not found: no AzureIdentityBinding of the pod's namespace has its selector",
        "add a pod identity with this selector in the pod's namespace",
    ),
    row(
        Reason::BindingRemoved,
        "binding_removed",
        "Identity not found: the AzureIdentityBinding was removed",
        "add the pod identity again, or take the label off the pod",
    ),
    row(
        Reason::IdentityMissing,
        "identity_missing",
        "Identity not found: the AzureIdentityBinding names an AzureIdentity that is not there or not valid",
        "create the AzureIdentity in the binding's namespace, or see the agent's log for what is wrong with it",
    ),
    row(
        Reason::IdentityNotBound,
        "identity_not_bound",
        "Identity not found: the identity asked for is not bound to this pod",
        "ask for one that is bound to it, or bind this one under the pod's selector",
    ),
    row(
        Reason::IdentityNotAssigned,
        "identity_not_assigned",
        "Identity not found: it is not assigned to this node yet",
        "try again; if it stays so, look at the controller's log",
    ),
    row(
        Reason::IdentityAmbiguous,
        "identity_ambiguous",
        "Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request",
        "name the identity, or mark one binding with podid.dev/default: \"true\"",
    ),
    row(
        Reason::RateLimited,
        "rate_limited",
        "Temporarily throttled, too many requests",
        "keep tokens until they end; each SDK does when its credential object is kept",
    ),
    row(
        Reason::TooManyConnections,
        "too_many_connections",
        "Temporarily throttled, too many requests: this address has too many connections open",
        "keep one HTTP client and close what is not used (--pod-connections of the agent is the limit)",
    ),
    row(
        Reason::NotSynced,
        "not_synced",
        "The agent of this node has not seen the cluster's objects yet",
        "try again",
    ),
    row(
        Reason::SourceUnsupported,
        "source_unsupported",
        "Tokens of this kind of identity cannot be obtained by the agent of this node",
        "use an AzureIdentity of another type or source, or see the agent's flags",
    ),
];

impl Reason {
    /// All reasons, in the table's order.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.reason)
    }

    fn row(self) -> &'static Row {
        // The table is in the enum's order and complete, which a test holds.
        let row = TABLE.get(self as usize);
        row.expect("the table has a row for each reason")
    }

    /// Stable code.
    pub fn code(self) -> &'static str {
        self.row().code
    }

    /// What happened, in one sentence without end stop.
    pub fn text(self) -> &'static str {
        self.row().text
    }

    /// What would help; empty when nothing is wrong.
    pub fn fix(self) -> &'static str {
        self.row().fix
    }

    /// Whether waiting for a watch event may help.
    pub fn waits(self) -> Waits {
        match self {
            Self::PodNotFound | Self::AddressAmbiguous | Self::NamedPodNotFound => Waits::ForPod,
            Self::NoBinding | Self::IdentityMissing | Self::IdentityNotBound | Self::IdentityNotAssigned => {
                Waits::ForNamespace
            }
            _ => Waits::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_is_complete_in_the_enums_order_and_codes_are_unique() {
        let codes: BTreeSet<_> = Reason::all().map(Reason::code).collect();
        assert_eq!(codes.len(), TABLE.len());
        for (at, row) in TABLE.iter().enumerate() {
            assert_eq!(row.reason as usize, at, "{}", row.code);
            assert!(
                row.code
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            );
        }
        assert_eq!(TABLE.len(), Reason::SourceUnsupported as usize + 1);
    }

    #[test]
    fn every_refusal_says_what_happened_and_what_would_help() {
        for reason in
            Reason::all().filter(|reason| !matches!(reason, Reason::TokenIssued | Reason::PassedThrough))
        {
            let (text, fix) = (reason.text(), reason.fix());
            assert!(
                !text.is_empty() && !fix.is_empty() && text != fix,
                "{}",
                reason.code()
            );
            assert!(!text.ends_with('.') && !fix.ends_with('.'), "{}", reason.code());
        }
    }

    #[test]
    fn no_text_sounds_as_if_there_were_no_metadata_service() {
        for reason in Reason::all() {
            let text = reason.text().to_lowercase() + reason.fix();
            assert!(!text.contains("unreachable"), "{}", reason.code());
        }
        // .NET 1.12 to 1.16 take these words in the answer to their probe for "no metadata service".
        assert!(
            !Reason::MetadataHeaderMissing
                .text()
                .contains("Identity not found")
        );
    }
}
