//! What the broker counts. Labels are fixed words of ours, never what a pod wrote.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds in seconds: the metadata service answers in 20 ms from its own cache and in seconds from Entra.
const UPSTREAM_BOUNDS: [f64; 10] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Asked {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Upstream {
    via: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ViaLabel {
    via: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LaneLoad {
    lane: &'static str,
    state: &'static str,
}

/// The broker's counters.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Served from memory.
    pub(crate) served: Counter,
    /// Waited for a flight.
    pub(crate) waited: Counter,
    /// Refused from memory.
    pub(crate) refused: Counter,
    pub(crate) refresh_failures: Counter,
    pub(crate) entries: Gauge,
    calls: Family<Upstream, Counter>,
    durations: Family<ViaLabel, Histogram, fn() -> Histogram>,
    lanes: Family<LaneLoad, Gauge>,
}

impl Metrics {
    /// New counters, told of by `registry`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let asked = Family::<Asked, Counter>::default();
        // Taken out of the family once: counting on the hot path looks nothing up.
        let outcome = |outcome| asked.get_or_create(&Asked { outcome }).clone();
        let metrics = Self {
            served: outcome("served"),
            waited: outcome("waited"),
            refused: outcome("refused"),
            refresh_failures: Counter::default(),
            entries: Gauge::default(),
            calls: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(UPSTREAM_BOUNDS)),
            lanes: Family::default(),
        };
        registry.register(
            "podid_broker_requests",
            "Tokens asked for: served from memory, waited for, or refused from memory",
            asked,
        );
        registry.register(
            "podid_broker_refresh_failures",
            "Refreshes that failed; the last good token stayed in use",
            metrics.refresh_failures.clone(),
        );
        registry.register("podid_broker_entries", "Keys remembered", metrics.entries.clone());
        registry.register(
            "podid_broker_upstream_calls",
            "Tries at an upstream, by way and code",
            metrics.calls.clone(),
        );
        registry.register(
            "podid_broker_upstream_duration_seconds",
            "Duration of tries at an upstream",
            metrics.durations.clone(),
        );
        registry.register(
            "podid_broker_lane",
            "Requests to an upstream that wait for their turn or are under way",
            metrics.lanes.clone(),
        );
        metrics
    }

    pub(crate) fn upstream(&self, via: &'static str, code: &'static str, took: Duration) {
        self.calls.get_or_create(&Upstream { via, code }).inc();
        self.durations
            .get_or_create(&ViaLabel { via })
            .observe(took.as_secs_f64());
    }

    pub(crate) fn lane(&self, lane: &'static str, queued: i64, running: i64) {
        for (state, value) in [("queued", queued), ("running", running)] {
            self.lanes.get_or_create(&LaneLoad { lane, state }).set(value);
        }
    }
}
