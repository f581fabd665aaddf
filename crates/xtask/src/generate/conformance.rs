//! `docs/reference/conformance.md`: what SDKs need of the metadata service, and which test holds the agent to it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;

/// One thing that clients need. Its number is its place, from 1.
struct Rule {
    holds: &'static str,
    /// The clients that break without it.
    who: &'static str,
    /// The test's file below `crates/nmi` and its name.
    test: (&'static str, &'static str),
}

/// Without a socket.
const HANDLER: &str = "src/handler/tests/rules.rs";
/// The whole agent, byte by byte.
const WIRE: &str = "tests/agent/wire.rs";
/// The whole agent, asked from pods' network namespaces.
const NAMESPACES: &str = "tests/interception/main.rs";

const fn rule(holds: &'static str, who: &'static str, file: &'static str, test: &'static str) -> Rule {
    Rule {
        holds,
        who,
        test: (file, test),
    }
}

/// All of them. Found by about 1,600 runs of real clients against a server that noted every byte.
const RULES: [Rule; 32] = [
    rule(
        "200 with `Content-Type: application/json; charset=utf-8` and `access_token`, `client_id`, `expires_in`, `expires_on`, `ext_expires_in`, `not_before`, `resource`, `token_type`, every value a JSON string",
        "Rust, object_store (`expires_on` a string); MSAL (`expires_in`); Python (`resource`); msrest, node-auth (`token_type`)",
        HANDLER,
        "rule_01_a_token_answer_is_an_object_of_strings_with_all_its_members",
    ),
    rule(
        "`Content-Length`, never chunked, never compressed",
        "Hadoop ABFS, C++, Rust before 0.22",
        WIRE,
        "rule_02_a_length_and_neither_chunks_nor_compression",
    ),
    rule(
        "no `refresh_in`",
        "Python 1.5, 1.14 and asynchronous ones",
        HANDLER,
        "rule_03_there_is_no_refresh_in",
    ),
    rule(
        "`resource` comes back byte for byte; with and without a slash are two audiences",
        "JavaScript, Python (their caches look it up)",
        HANDLER,
        "rule_04_the_resource_comes_back_byte_for_byte",
    ),
    rule(
        "`expires_on` is the token's end; `expires_in` is counted anew for each answer",
        "MSAL Python, Node and Go, Python, JavaScript; Rust, Java, .NET",
        HANDLER,
        "rule_05_what_is_left_is_told_anew_and_the_end_stays",
    ),
    rule(
        "never a token with five minutes or less left; one upstream call for all who wait",
        "Python, JavaScript (they ask again on every call), node-auth (has no cache)",
        HANDLER,
        "rule_06_one_call_serves_all_until_five_minutes_before_the_end",
    ),
    rule(
        "`token_type` is `Bearer`; the token is the upstream's own",
        "Azure CLI (reads the tenant in it), AppAuthentication",
        HANDLER,
        "rule_07_the_token_is_the_upstreams_own_and_a_bearer",
    ),
    rule(
        "without `Metadata` exactly 400, whatever the query, at once: before any look for the pod, outside limits and waits",
        ".NET (400 only); JavaScript (within 300 ms); Go, .NET (within 1 s); Python (waits without end)",
        HANDLER,
        "rule_08_no_metadata_header_is_400_at_once_whoever_asks_and_whatever_is_down",
    ),
    rule(
        "without `resource` 400, never a token or a default",
        "Python 1.3 to 1.5 (would keep it for the wrong identity)",
        HANDLER,
        "rule_09_no_resource_is_400_and_never_a_token",
    ),
    rule(
        "a connection that closes without a request is normal",
        "Java",
        WIRE,
        "rule_10_a_connection_without_a_word_is_normal",
    ),
    rule(
        "the header's name in any case, its value `true`; empty, `false`, `1` and contradictions are refused",
        "Rust, C++, node-auth (`metadata`), curl",
        HANDLER,
        "rule_11_the_header_in_any_case_is_true_or_refused",
    ),
    rule(
        "`X-Forwarded-For` is refused",
        "whoever runs a proxy that can be talked into asking",
        HANDLER,
        "rule_12_what_was_forwarded_is_refused",
    ),
    rule(
        "`api-version` is needed; every date from 2018-02-01 is taken",
        "Rust, object_store (2019-08-01), OpenTelemetry (2020-09-01)",
        HANDLER,
        "rule_13_a_version_is_needed_and_every_later_one_is_taken",
    ),
    rule(
        "a parameter given twice is 400",
        "whoever builds queries of parts that others choose",
        HANDLER,
        "rule_14_a_parameter_twice_is_400",
    ),
    rule(
        "the query is form data, `:` and `/` raw or encoded, in any order",
        "Python, .NET (send them raw)",
        HANDLER,
        "rule_15_the_query_is_form_data_raw_or_encoded_in_any_order",
    ),
    rule(
        "`Content-Type`, `Accept`, `x-client-*` and unknown headers mean nothing",
        "JavaScript, MSAL Node, node-auth, Java",
        HANDLER,
        "rule_16_other_headers_mean_nothing",
    ),
    rule(
        "the same answer with a slash at the end, doubled slashes and dot segments",
        "JavaScript, MSAL Node and Java, with an endpoint from the environment",
        HANDLER,
        "rule_17_slashes_too_many_change_nothing",
    ),
    rule(
        "`authority`, `bypass_cache` and unknown parameters are ignored",
        "Hadoop ABFS",
        HANDLER,
        "rule_18_what_is_not_known_is_ignored_and_no_pod_chooses_its_tenant",
    ),
    rule(
        "an identity is named by `client_id`, `object_id`, `principal_id`, `msi_res_id`, `mi_res_id`, `resource_id`, `msi-res-id`, ids without case; empty counts as not given",
        "all; each name is some client's",
        HANDLER,
        "rule_19_an_identity_goes_by_all_its_names",
    ),
    rule(
        "two different identities named are 400",
        "whoever would get the wrong one",
        HANDLER,
        "rule_20_two_different_names_exclude_each_other",
    ),
    rule(
        "an identity that is not the pod's is 400 \"Identity not found\" without `Retry-After`, never another identity, never 403 or 404",
        "chains of credentials; a 404 is retried for 20 to 122 s; Python retries a 400 that has `Retry-After`",
        HANDLER,
        "rule_21_an_identity_that_is_not_the_pods_is_refused_and_never_replaced",
    ),
    rule(
        "no name and several identities: the default one, or with `--ambiguous-identity=refuse` the real service's 400",
        "msrest for JavaScript (can send no name)",
        HANDLER,
        "rule_22_several_identities_are_a_fixed_choice_or_the_real_services_refusal",
    ),
    rule(
        "every refusal is a JSON object with texts `error` and `error_description`",
        "Azure CLI (traceback), MSAL Python, MSAL Node (takes `{}` for success), JavaScript",
        HANDLER,
        "rule_23_every_refusal_is_an_object_that_says_what_and_why",
    ),
    rule(
        "trouble that may pass is waited out for up to 20 s, then 503 or 429 with whole seconds of `Retry-After`",
        "clients without retries: Azure CLI, MSAL Python, Rust before 0.22, C++, node-auth; object_store (gives up after 30 s)",
        HANDLER,
        "rule_24_trouble_is_waited_out_and_then_told_with_a_time",
    ),
    rule(
        "a 429 in the real service's words; 20 cached tokens a second are never too many",
        "node-auth (has no cache), retry storms",
        HANDLER,
        "rule_25_a_pod_at_full_speed_is_throttled_alone_and_never_below_twenty_a_second",
    ),
    rule(
        "what Entra refuses is 400 with its text, never 401, without the word \"unreachable\"",
        "all; Python, JavaScript and Go take that word for \"no managed identity here\"",
        HANDLER,
        "rule_26_what_entra_refuses_is_a_400_with_its_words",
    ),
    rule(
        "only GET gives tokens; other methods are 405",
        "whoever can be talked into a POST",
        HANDLER,
        "rule_27_only_get_gives_tokens",
    ),
    rule(
        "`getplatformmetadata` and `issuecredential` are 404 with and without `Metadata`",
        "MSAL .NET (takes a 400 for the second version of managed identity)",
        HANDLER,
        "rule_28_the_second_version_of_managed_identity_is_not_there",
    ),
    rule(
        "any other path is 404 at once, unless a policy opens it",
        "MSAL's region discovery (2 s), detectors of other clouds",
        HANDLER,
        "rule_29_other_paths_are_a_404_at_once",
    ),
    rule(
        "connections are kept and closed as asked; a probe and a token on one connection",
        "JavaScript, .NET, Python / Hadoop",
        WIRE,
        "rule_30_a_probe_and_a_token_on_one_connection_until_it_is_to_be_closed",
    ),
    rule(
        "a pod asks 169.254.169.254:80 itself and needs no environment variable",
        "Rust, object_store, azidentity, MSAL Go, ADAL, msrest, node-auth, code from before the variables",
        NAMESPACES,
        "pods_get_their_tokens_and_the_node_keeps_its_own_way",
    ),
    rule(
        "no `Server` of our own; `x-ms-client-request-id` comes back where that is asked for",
        "MSAL .NET (reads a version in `Server`)",
        HANDLER,
        "rule_32_request_ids_come_back_when_asked_for",
    ),
];

/// The page.
pub(super) fn page() -> String {
    let mut page = String::from(
        "<!-- Generated by `cargo xtask generate` from its table of rules. Do not edit. -->\n\
         # Conformance\n\n\
         What the Azure SDKs need of a metadata service, found by about 1,600 runs of real clients against a server that \
         noted every byte, and the test that holds the agent to it. All of them run in `cargo test -p podid-nmi`; \
         that each test exists is checked by `cargo xtask tidy`.\n\n\
         | # | rule | who needs it | test in `crates/nmi` |\n| --- | --- | --- | --- |\n",
    );
    for (n, Rule { holds, who, test }) in RULES.iter().enumerate() {
        let (file, name) = test;
        // Writing to a String cannot fail.
        let _infallible = writeln!(page, "| {} | {holds} | {who} | `{name}` in `{file}` |", n + 1);
    }
    page
}

/// The rules whose test is not in the source.
pub(crate) fn findings(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut sources: BTreeMap<&str, String> = BTreeMap::new();
    let mut findings = Vec::new();
    for (n, Rule { test, .. }) in RULES.iter().enumerate() {
        let (file, name) = test;
        if !sources.contains_key(file) {
            let path = root.join("crates/nmi").join(file);
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            sources.insert(file, text);
        }
        let source = sources.get(file).map(String::as_str).unwrap_or_default();
        if !is_test(source, name) {
            findings.push(format!(
                "crates/nmi/{file}: rule {} has no test `{name}`; name another one in xtask's table of rules",
                n + 1
            ));
        }
    }
    Ok(findings)
}

/// Whether `source` has a test of this name: a function after a test attribute, or a trial that is run.
fn is_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let function = format!("async fn {name}()");
    let attributed = lines.windows(2).any(|pair| {
        matches!(pair, [attribute, line] if attribute.starts_with("#[tokio::test") && line.starts_with(&function))
    });
    attributed || source.contains(&format!("Trial::test(\"{name}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_is_gone_or_never_run_is_noticed() {
        let source =
            "#[tokio::test]\nasync fn here() {}\nasync fn helper() {}\nTrial::test(\"trial\", trial)";
        assert!(is_test(source, "here") && is_test(source, "trial"));
        assert!(!is_test(source, "helper") && !is_test(source, "her"));
    }
}
