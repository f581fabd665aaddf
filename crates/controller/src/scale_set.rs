//! Which scale sets the nodes are in, and which identities to put on them or take off. Pure.

use std::collections::BTreeSet;

use podid_azure::arm::{Host, HostIdentities, HostKind};

/// The scale set of a node, from its provider id. None for machines of their own and for other clouds.
pub(crate) fn scale_set_of(provider_id: &str) -> Option<Host> {
    let of_azure = provider_id.starts_with("azure://");
    let host: Host = provider_id.parse().ok()?;
    (of_azure && host.kind() == HostKind::ScaleSet).then_some(host)
}

/// What to change on one scale set. All ids in lower case.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) add: BTreeSet<String>,
    pub(crate) remove: BTreeSet<String>,
}

impl Change {
    /// Adds what is wanted and not there; removes what is there, was added by us and is wanted no more.
    pub(crate) fn of(
        wanted: &BTreeSet<String>,
        there: &BTreeSet<String>,
        added_by_us: &BTreeSet<String>,
    ) -> Self {
        Self {
            add: wanted.difference(there).cloned().collect(),
            remove: added_by_us
                .difference(wanted)
                .filter(|id| there.contains(*id))
                .cloned()
                .collect(),
        }
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }
}

/// The identities on a host, in lower case.
pub(crate) fn there(identities: &HostIdentities) -> BTreeSet<String> {
    let ids = identities.user_assigned.iter();
    ids.map(|id| id.as_str().to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn the_scale_set_is_the_part_of_the_provider_id_before_the_machine() {
        let id = "azure:///subscriptions/S/resourceGroups/MC_g/providers/Microsoft.Compute/virtualMachineScaleSets/aks-np-vmss/virtualMachines/0";
        assert_eq!(
            scale_set_of(id)
                .map(|host| host.to_string().to_ascii_lowercase())
                .as_deref(),
            Some(
                "/subscriptions/s/resourcegroups/mc_g/providers/microsoft.compute/virtualmachinescalesets/aks-np-vmss"
            )
        );
        for other in [
            "",
            "kind://docker/kind/kind-control-plane",
            "azure:///subscriptions/S/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm1",
            "azure:///subscriptions/S/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets//virtualMachines/0",
        ] {
            assert_eq!(scale_set_of(other), None, "{other}");
        }
    }

    #[test]
    fn only_what_we_added_is_removed_and_only_when_it_is_there() {
        let change = Change::of(
            &set(&["a", "b"]),
            &set(&["b", "old", "theirs"]),
            &set(&["old", "gone", "b"]),
        );
        assert_eq!(
            change,
            Change {
                add: set(&["a"]),
                remove: set(&["old"])
            }
        );
    }

    #[test]
    fn done_twice_is_nothing_to_do() {
        let (wanted, ours) = (set(&["a", "b"]), set(&["a", "b", "c"]));
        let mut there = set(&["c", "x"]);
        let first = Change::of(&wanted, &there, &ours);
        there.extend(first.add);
        there.retain(|id| !first.remove.contains(id));
        assert!(Change::of(&wanted, &there, &ours).is_empty());
    }
}
