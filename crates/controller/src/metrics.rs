//! What the controller counts. Labels are from fixed sets only.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Labels of a write.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct Write {
    pub(crate) verb: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) result: &'static str,
}

/// Labels of a round.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct Round {
    pub(crate) result: &'static str,
}

/// All counters. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct ControllerMetrics {
    pub(crate) rounds: Family<Round, Counter>,
    pub(crate) writes: Family<Write, Counter>,
    pub(crate) entries: Family<Round, Gauge>,
    pub(crate) closed_nodes: Gauge,
}

impl ControllerMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "podid_controller_rounds",
            "Reconciliations, by result",
            self.rounds.clone(),
        );
        registry.register(
            "podid_controller_writes",
            "Objects written, by verb, kind and result",
            self.writes.clone(),
        );
        registry.register(
            "podid_controller_entries",
            "Entries of the profile, by state",
            self.entries.clone(),
        );
        registry.register(
            "podid_controller_closed_nodes",
            "Nodes with the start-up taint, on which pods wait for the agent",
            self.closed_nodes.clone(),
        );
    }
}
