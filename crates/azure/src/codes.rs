//! The codes of the errors of Azure's clients, with what each means and what helps. The errors themselves stand beside
//! their clients.

use podid_core::code::Code;

const fn row(code: &'static str, text: &'static str, fix: &'static str) -> Code {
    Code { code, text, fix }
}

/// Every code, by the outside door it belongs to.
pub const CODES: &[Code] = &[
    row(
        "imds_no_identity",
        "The AzureIdentity has neither client id nor resource id, so nobody can be asked for",
        "write clientID or resourceID into it",
    ),
    row(
        "imds_identity_not_found",
        "The metadata service does not know the identity on this VM",
        "assign the managed identity to the node's VM or scale set; see whether it still exists",
    ),
    row(
        "imds_invalid_resource",
        "There is no such audience, or the identity may not ask for it",
        "correct the resource that the pod asks for; the text has Entra's own words",
    ),
    row(
        "imds_refused",
        "The metadata service refuses the request for another reason",
        "read the text, which has the service's own words",
    ),
    row(
        "imds_throttled",
        "The metadata service is throttling this node",
        "wait; keep tokens and clients, so that fewer are asked for",
    ),
    row(
        "imds_unavailable",
        "The metadata service does not work at the moment",
        "wait; it is being updated for up to a minute now and then",
    ),
    row(
        "imds_timeout",
        "The metadata service did not answer in time",
        "wait; if it stays so, see whether the node reaches 169.254.169.254",
    ),
    row(
        "imds_connect",
        "The metadata service cannot be connected to",
        "see whether the node is an Azure VM and reaches 169.254.169.254 (--imds-endpoint)",
    ),
    row(
        "imds_broken",
        "The metadata service's answer broke off or is too long",
        "wait; if it stays so, see what answers at --imds-endpoint",
    ),
    row(
        "imds_answer_invalid",
        "The metadata service's answer is no token",
        "see what answers at --imds-endpoint",
    ),
    row(
        "entra_tenant_invalid",
        "The AzureIdentity's tenant is neither a GUID nor a domain name",
        "correct tenantID",
    ),
    row(
        "entra_authority_refused",
        "The AzureIdentity names an authority that the agent may not ask",
        "leave adEndpoint out, or allow it (--allow-authority)",
    ),
    row(
        "entra_certificate_invalid",
        "The certificate cannot be used, or the assertion could not be signed",
        "write a certificate with an RSA key of 2048 bits or more into the Secret",
    ),
    row(
        "entra_identity_not_found",
        "Entra does not know the application or the managed identity in this tenant",
        "correct clientID and tenantID; see whether it still exists",
    ),
    row(
        "entra_invalid_resource",
        "There is no such audience, or the application may not ask for it",
        "correct the resource that the pod asks for, or give consent; the text has Entra's own words",
    ),
    row(
        "entra_invalid_credential",
        "Entra does not take the secret, the certificate or the federated token",
        "renew the secret or certificate; for federation compare issuer, subject and audience; a new credential takes minutes to be known",
    ),
    row(
        "entra_refused",
        "Entra refuses the request for another reason",
        "read the text, which has Entra's own words",
    ),
    row(
        "entra_throttled",
        "Entra is throttling this application",
        "wait; keep tokens and clients, so that fewer are asked for",
    ),
    row("entra_unavailable", "Entra does not work at the moment", "wait"),
    row(
        "entra_timeout",
        "Entra did not answer in time",
        "wait; if it stays so, see whether the node reaches the authority",
    ),
    row(
        "entra_connect",
        "Entra cannot be connected to",
        "see whether the node reaches the authority, and whether its certificate is trusted (--ca-file)",
    ),
    row(
        "entra_broken",
        "Entra's answer broke off or is too long",
        "wait; if it stays so, see what stands between the node and the authority",
    ),
    row(
        "entra_answer_invalid",
        "Entra's answer is no token",
        "see what answers at the authority",
    ),
    row(
        "arm_unauthenticated",
        "ARM does not take the controller's token",
        "see which identity the controller has (--arm-client-id), and of which tenant it is",
    ),
    row(
        "arm_forbidden",
        "The controller's identity may not do this",
        "give it Managed Identity Operator on the identity and Virtual Machine Contributor on the scale set; a new role takes minutes to count",
    ),
    row(
        "arm_not_found",
        "The resource is not there",
        "see whether it still exists, and whether the id is right",
    ),
    row(
        "arm_conflict",
        "Another operation is under way on the resource",
        "wait; it is tried again",
    ),
    row(
        "arm_operation_failed",
        "The operation was accepted and failed later",
        "read the text, which has ARM's own words",
    ),
    row(
        "arm_unavailable",
        "ARM does not work at the moment",
        "wait; it is tried again",
    ),
    row(
        "arm_refused",
        "ARM refuses the request",
        "read the text, which has ARM's own words",
    ),
    row(
        "arm_throttled",
        "ARM is throttling these requests",
        "wait; it is tried again when ARM said",
    ),
    row(
        "arm_changed",
        "The resource was changed by somebody else meanwhile",
        "nothing; it is read and tried again",
    ),
    row("arm_deleting", "The VM or scale set is being deleted", "nothing"),
    row(
        "arm_unfinished",
        "The operation has not ended in time",
        "wait; it is looked at again",
    ),
    row(
        "arm_foreign_operation",
        "ARM names an address for the operation that is not its own",
        "see --arm-endpoint, and what stands between the controller and ARM",
    ),
    row(
        "arm_timeout",
        "ARM did not answer in time",
        "wait; it is tried again",
    ),
    row(
        "arm_connect",
        "ARM cannot be connected to",
        "see whether the controller reaches ARM (--arm-endpoint), and whether its certificate is trusted (--ca-file)",
    ),
    row(
        "arm_broken",
        "ARM's answer broke off or is too long",
        "wait; it is tried again",
    ),
    row(
        "arm_answer_invalid",
        "ARM's answer cannot be read",
        "see what answers at --arm-endpoint",
    ),
    row(
        "arm_name_invalid",
        "The name of a federated credential is not one",
        "use 3 to 120 letters, digits, - and _",
    ),
    row(
        "arm_content_invalid",
        "A request to ARM could not be written",
        "this is a bug: report it",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Codes that a source file gives: quoted, and beginning with the door's name.
    fn given<'s>(source: &'s str, door: &str) -> BTreeSet<&'s str> {
        let code = source.split("#[cfg(test)]").next().unwrap();
        code.split('"')
            .filter(|text| {
                text.strip_prefix(door).is_some_and(|rest| {
                    rest.starts_with('_')
                        && rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                })
            })
            .collect()
    }

    #[test]
    fn every_code_that_a_client_gives_is_explained_and_no_other() {
        let given: BTreeSet<&str> = [
            given(include_str!("imds.rs"), "imds"),
            given(include_str!("entra.rs"), "entra"),
            given(include_str!("arm/error.rs"), "arm"),
        ]
        .into_iter()
        .flatten()
        .collect();
        let explained: BTreeSet<&str> = CODES.iter().map(|row| row.code).collect();
        assert_eq!(given, explained);
        assert_eq!(explained.len(), CODES.len(), "each once");
        for row in CODES {
            let words = format!("{} {}", row.text, row.fix);
            assert!(
                !row.text.is_empty() && !row.fix.is_empty() && !words.contains("unreachable"),
                "{row:?}"
            );
        }
    }
}
