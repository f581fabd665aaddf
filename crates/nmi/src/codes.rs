//! The agent's codes beside the reasons of decisions and the codes of Azure's clients: what each means and what helps.

use podid_core::code::Code;

const fn row(code: &'static str, text: &'static str, fix: &'static str) -> Code {
    Code { code, text, fix }
}

/// Every code.
pub const CODES: &[Code] = &[
    row(
        "metadata_service_failed",
        "The real metadata service did not answer a request that was passed on to it",
        "try again; if it stays so, see whether the node reaches 169.254.169.254 (--imds-endpoint)",
    ),
    row(
        "metadata_service_refused",
        "The real metadata service refused a token request of an excepted pod (with --error-style=aad-pod-identity)",
        "read the text, which has the service's own words",
    ),
    row(
        "body_late",
        "The body of a request that is to be passed on did not come in time",
        "send it within 10 s",
    ),
    row(
        "body_too_large",
        "The body of a request that is to be passed on is too large",
        "send at most 64 KiB",
    ),
    row(
        "body_unreadable",
        "The body of a request that is to be passed on broke off",
        "send what Content-Length promises",
    ),
    row(
        "request_unreadable",
        "What came is not an HTTP request that can be read",
        "send HTTP/1.1, without TLS",
    ),
    row(
        "uri_too_long",
        "The request's target is too long",
        "shorten the query",
    ),
    row(
        "head_too_large",
        "The request's head has more than 16 KiB or 64 headers",
        "send fewer headers",
    ),
    row(
        "upstream_slow",
        "No token came in time, and no answer either",
        "try again; the agent goes on fetching it",
    ),
    row(
        "too_many_resources",
        "Too many different resources are asked for with one identity at once",
        "ask for fewer audiences",
    ),
    row(
        "identity_changed",
        "The identity was changed or removed while its token was fetched",
        "try again",
    ),
    row(
        "secret_unread",
        "The Secret of a service principal cannot be read at the moment",
        "try again; if it stays so, see whether the agent reaches the API server",
    ),
    row(
        "secret_unusable",
        "The Secret of a service principal is not there, may not be read, or has not what is needed",
        "read the text, which says which; see docs/reference/custom-resources.md",
    ),
    row(
        "internal_error",
        "A request met a bug of the agent, which goes on",
        "report it, with the agent's log",
    ),
    row(
        "attest_not_there",
        "No socket of the pod's network namespace has this connection: the source address is not its own",
        "ask from the pod itself",
    ),
    row(
        "attest_host_network",
        "The pod shares the node's network, so its namespace proves nothing",
        "run it without hostNetwork",
    ),
    row(
        "attest_not_found",
        "The pod's network namespace is not found",
        "give the agent hostPID; the pod may just have ended",
    ),
    row(
        "attest_bad_uid",
        "A pod's uid has characters that no uid has",
        "see who writes pods into the API server",
    ),
    row(
        "attest_not_held",
        "No process of an allowed pod holds the connection (at /host/token)",
        "see host_caller_refused",
    ),
    row(
        "attest_namespace",
        "The pod's network namespace cannot be entered",
        "give the agent CAP_SYS_ADMIN and CAP_SYS_PTRACE",
    ),
    row(
        "attest_kernel",
        "The kernel does not answer questions about sockets",
        "load the module tcp_diag",
    ),
    row(
        "resource_unreadable",
        "An object has not the shape of its kind and counts as absent",
        "correct it; the log names it",
    ),
    row(
        "resource_contradiction",
        "A field is given in its old and its new spelling, with different values",
        "remove one",
    ),
    row(
        "resource_field_missing",
        "A field that is needed is missing, so the object counts as absent",
        "write it; the log names object and field",
    ),
    row(
        "resource_field_invalid",
        "A field cannot be used, so the object counts as absent",
        "correct it; the log names object and field",
    ),
    row(
        "resource_annotation_invalid",
        "An annotation cannot be used, so the object counts as absent",
        "correct it; the log names object and annotation",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use podid_core::Reason;

    use super::*;

    /// Where codes are given, in the sources of the agent and of what it is made of.
    const SOURCES: [&str; 7] = [
        include_str!("forward.rs"),
        include_str!("answer.rs"),
        include_str!("secrets.rs"),
        include_str!("seen.rs"),
        include_str!("../../broker/src/error.rs"),
        include_str!("../../kernel/src/attest.rs"),
        include_str!("../../api/src/spelling.rs"),
    ];

    #[test]
    fn every_code_is_explained_once_and_is_given_somewhere() {
        let mut seen = BTreeSet::new();
        let others = Reason::all()
            .map(Reason::code)
            .chain(podid_azure::codes::CODES.iter().map(|row| row.code));
        for code in others.chain(CODES.iter().map(|row| row.code)) {
            assert!(seen.insert(code), "{code} stands in two tables");
        }
        for row in CODES {
            assert!(
                SOURCES.iter().any(|source| source.contains(row.code)),
                "{} is given nowhere",
                row.code
            );
            assert!(!row.text.is_empty() && !row.fix.is_empty(), "{row:?}");
        }
        // The other way: whatever is handed to a refusal or an error as its code.
        for source in SOURCES {
            let code = source.split("#[cfg(test)]").next().unwrap();
            for text in code.split('"') {
                let known = ["attest_", "resource_", "secret_", "body_", "metadata_service_"];
                let is_code = known.iter().any(|start| text.starts_with(start))
                    && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
                assert!(!is_code || seen.contains(text), "{text} is not explained");
            }
        }
    }
}
