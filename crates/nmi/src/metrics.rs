//! What the agent counts. Every label has few values: nothing that a pod writes becomes a label as it is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds in seconds. Source: aad-pod-identity v1.8.17, `pkg/metrics`.
const OPERATION_BOUNDS: [f64; 18] = [
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0,
];
/// Upper bounds in seconds of token operations. Source: aad-pod-identity v1.8.17, `pkg/metrics`.
const TOKEN_BOUNDS: [f64; 18] = [
    0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0,
];
/// Most different values of the label `namespace` over the life of the process; further ones are `other`.
const MAX_NAMESPACES: usize = 256;
/// Audiences that have a label value of their own; everything else is `other`, as a pod may write what it likes.
const RESOURCES: [&str; 9] = [
    "https://management.azure.com",
    "https://management.core.windows.net",
    "https://vault.azure.net",
    "https://storage.azure.com",
    "https://database.windows.net",
    "https://graph.microsoft.com",
    "https://servicebus.azure.net",
    "https://eventhubs.azure.net",
    "https://cognitiveservices.azure.com",
];
const OTHER: &str = "other";

/// Labels of the original's histogram, values bounded (the original took path and resource as the pod wrote them).
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
#[expect(clippy::struct_field_names, reason = "the labels' names are the original's")]
struct Operation {
    namespace: String,
    operation_type: &'static str,
    resource: &'static str,
    status_code: u16,
}

/// A label of the original's other families; its values are fixed names.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfType {
    operation_type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    operation: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Disagreement {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Unusable {
    kind: &'static str,
    reason: &'static str,
}

/// The agent's counters.
#[derive(Debug)]
pub(crate) struct Metrics {
    operations: Family<Operation, Histogram, fn() -> Histogram>,
    tokens: Family<OfType, Histogram, fn() -> Histogram>,
    /// Counted up only. No counters: those would get `_total` at the end of the original's names.
    token_errors: Family<OfType, Gauge>,
    kubernetes_errors: Family<OfType, Gauge>,
    outcomes: Family<Outcome, Counter>,
    audited: Family<Disagreement, Counter>,
    unusable: Family<Unusable, Counter>,
    namespaces: Mutex<BTreeSet<String>>,
    pub(crate) connections: Gauge,
    pub(crate) connections_refused: Counter,
    pub(crate) repairs: Counter,
}

impl Metrics {
    /// New counters, told of by `registry`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            operations: Family::new_with_constructor(|| Histogram::new(OPERATION_BOUNDS)),
            tokens: Family::new_with_constructor(|| Histogram::new(TOKEN_BOUNDS)),
            token_errors: Family::default(),
            kubernetes_errors: Family::default(),
            outcomes: Family::default(),
            audited: Family::default(),
            unusable: Family::default(),
            namespaces: Mutex::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            repairs: Counter::default(),
        };
        registry.register(
            "aadpodidentity_nmi_operations_duration_seconds",
            "Duration in seconds for nmi operations",
            metrics.operations.clone(),
        );
        registry.register(
            "aadpodidentity_imds_operations_duration_seconds",
            "Duration in seconds of imds token operations",
            metrics.tokens.clone(),
        );
        registry.register(
            "aadpodidentity_imds_operations_errors_count",
            "Total number of errors in imds token operations",
            metrics.token_errors.clone(),
        );
        registry.register(
            "aadpodidentity_kubernetes_api_operations_errors_count",
            "Total number of errors in kubernetes api operations",
            metrics.kubernetes_errors.clone(),
        );
        registry.register(
            "podid_nmi_requests",
            "Requests answered, by what was asked and by reason code",
            metrics.outcomes.clone(),
        );
        registry.register(
            "podid_nmi_attestation_audited",
            "Connections let through by --attestation=audit that enforce would refuse",
            metrics.audited.clone(),
        );
        registry.register(
            "podid_nmi_unusable_objects",
            "Times an object was seen that cannot be used, by kind and reason code",
            metrics.unusable.clone(),
        );
        registry.register(
            "podid_nmi_connections",
            "Open connections of pods",
            metrics.connections.clone(),
        );
        registry.register(
            "podid_nmi_connections_refused",
            "Connections refused because their address has too many",
            metrics.connections_refused.clone(),
        );
        registry.register(
            "podid_nmi_redirect_repairs",
            "Times the interception was found changed and was put right",
            metrics.repairs.clone(),
        );
        metrics
    }

    /// One request was answered. A connection's requests are mostly alike: `recent` saves looking for their series.
    pub(crate) fn answered(&self, recent: &Recent, done: &Done<'_>) {
        let mut recent = recent.0.lock();
        let series = match recent.take().filter(|series| series.is_of(done)) {
            Some(series) => series,
            None => self.series(done),
        };
        series.outcome.inc();
        series.operation.observe(done.took.as_secs_f64());
        *recent = Some(series);
    }

    fn series(&self, done: &Done<'_>) -> Series {
        let outcome = self.outcomes.get_or_create(&Outcome {
            operation: done.operation,
            reason: done.reason,
        });
        let operation = self.operations.get_or_create(&Operation {
            namespace: self.namespace(done.namespace.map(AsRef::as_ref)),
            operation_type: done.operation,
            resource: done.resource,
            status_code: done.status,
        });
        Series {
            of: (done.operation, done.reason, done.resource, done.status),
            namespace: done.namespace.cloned(),
            outcome: outcome.clone(),
            operation: operation.clone(),
        }
    }

    /// A token was asked for upstream, under the original's name for how.
    pub(crate) fn token_operation(&self, operation_type: &'static str, succeeded: bool, took: Duration) {
        let of = OfType { operation_type };
        if succeeded {
            self.tokens.get_or_create(&of).observe(took.as_secs_f64());
        } else {
            self.token_errors.get_or_create(&of).inc();
        }
    }

    /// A question about the cluster got no answer, under the original's name for it.
    pub(crate) fn kubernetes_error(&self, operation_type: &'static str) {
        self.kubernetes_errors
            .get_or_create(&OfType { operation_type })
            .inc();
    }

    /// A connection that `enforce` would have refused.
    pub(crate) fn audited(&self, reason: &'static str) {
        self.audited.get_or_create(&Disagreement { reason }).inc();
    }

    /// An object that cannot be used was seen.
    pub(crate) fn unusable(&self, kind: &'static str, reason: &'static str) {
        self.unusable.get_or_create(&Unusable { kind, reason }).inc();
    }

    fn namespace(&self, namespace: Option<&str>) -> String {
        let Some(namespace) = namespace else {
            return String::new();
        };
        let mut seen = self.namespaces.lock();
        if seen.contains(namespace) {
            return namespace.to_owned();
        }
        if seen.len() >= MAX_NAMESPACES {
            return OTHER.to_owned();
        }
        seen.insert(namespace.to_owned());
        namespace.to_owned()
    }
}

/// The series of the last request of a connection.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Option<Series>>);

#[derive(Debug)]
struct Series {
    of: (&'static str, &'static str, &'static str, u16),
    namespace: Option<Arc<str>>,
    outcome: Counter,
    operation: Histogram,
}

impl Series {
    fn is_of(&self, done: &Done<'_>) -> bool {
        self.of == (done.operation, done.reason, done.resource, done.status)
            && self.namespace.as_ref() == done.namespace
    }
}

/// A request that was answered.
#[derive(Debug)]
pub(crate) struct Done<'a> {
    /// A fixed name of what was asked.
    pub(crate) operation: &'static str,
    /// Reason code.
    pub(crate) reason: &'static str,
    /// Namespace of the pod, when known.
    pub(crate) namespace: Option<&'a Arc<str>>,
    /// The audience asked for, one of a few; empty when none was.
    pub(crate) resource: &'static str,
    /// HTTP status.
    pub(crate) status: u16,
    /// From the head read to the answer's head.
    pub(crate) took: Duration,
}

/// The label value of an audience.
pub(crate) fn known_resource(resource: &str) -> &'static str {
    let bare = resource.strip_suffix('/').unwrap_or(resource);
    RESOURCES
        .into_iter()
        .find(|known| *known == bare)
        .unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done<'a>(namespace: &'a Arc<str>, resource: &str) -> Done<'a> {
        Done {
            operation: "token",
            reason: "token_issued",
            namespace: Some(namespace),
            resource: known_resource(resource),
            status: 200,
            took: Duration::from_millis(2),
        }
    }

    #[test]
    fn the_originals_families_have_its_names_labels_and_bounds() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.answered(
            &Recent::default(),
            &done(&Arc::from("shop"), "https://vault.azure.net"),
        );
        metrics.token_operation("adal_token_msi_userassignedid", true, Duration::from_millis(15));
        metrics.token_operation("adal_token", false, Duration::from_secs(1));
        metrics.kubernetes_error("get_pod_list");
        metrics.kubernetes_error("get_secret");
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"aadpodidentity_nmi_operations_duration_seconds_count{namespace="shop",operation_type="token",resource="https://vault.azure.net",status_code="200"} 1"#,
            r#"aadpodidentity_nmi_operations_duration_seconds_bucket{le="0.5",namespace="shop",operation_type="token",resource="https://vault.azure.net",status_code="200"} 1"#,
            r#"aadpodidentity_imds_operations_duration_seconds_bucket{le="0.01",operation_type="adal_token_msi_userassignedid"} 0"#,
            r#"aadpodidentity_imds_operations_duration_seconds_bucket{le="0.02",operation_type="adal_token_msi_userassignedid"} 1"#,
            r#"aadpodidentity_imds_operations_errors_count{operation_type="adal_token"} 1"#,
            r#"aadpodidentity_kubernetes_api_operations_errors_count{operation_type="get_pod_list"} 1"#,
            r#"aadpodidentity_kubernetes_api_operations_errors_count{operation_type="get_secret"} 1"#,
            "# HELP aadpodidentity_imds_operations_errors_count Total number of errors in imds token operations.",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        // A failure has no duration.
        assert!(!text.contains(r#"imds_operations_duration_seconds_count{operation_type="adal_token"}"#));
    }

    #[test]
    fn what_pods_write_makes_no_new_series() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let recent = Recent::default();
        for n in 0..1_000 {
            let namespace = Arc::from(format!("ns-{n}"));
            metrics.answered(&recent, &done(&namespace, &format!("https://{n}.example")));
        }
        let first = Arc::from("ns-1");
        for _ in 0..2 {
            metrics.answered(&recent, &done(&first, "https://vault.azure.net/"));
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let series = text
            .lines()
            .filter(|line| line.starts_with("aadpodidentity_") && line.contains("_count{"))
            .count();
        assert_eq!(series, MAX_NAMESPACES + 2, "{text}");
        let known = r#"podid_nmi_requests_total{operation="token",reason="token_issued"} 1002"#;
        assert!(text.contains(known), "{text}");
        assert!(text.contains(r#"resource="https://vault.azure.net""#) && !text.contains("999.example"));
    }
}
