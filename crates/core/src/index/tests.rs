//! Events in, look-ups out.

use super::*;
use crate::identity::{Credential, TokenSource};
use crate::ids::Guid;

fn identity(namespace: &str, name: &str) -> Identity {
    Identity {
        object: ObjectName::new(namespace, name),
        client_id: Some(Guid::from_u128(1)),
        object_id: None,
        resource_id: None,
        credential: Credential::Managed(TokenSource::Imds),
        namespaced: false,
    }
}

fn binding(namespace: &str, name: &str) -> Binding {
    Binding {
        object: ObjectName::new(namespace, name),
        identity: "id".into(),
        selector: "sel".into(),
        default: false,
    }
}

#[test]
fn only_the_namespace_that_changed_gets_a_new_version() {
    let mut index = Index::new();
    index.apply_identity(identity("a", "id"));
    index.apply_identity(identity("b", "id"));
    let before = index.snapshot();
    index.apply_binding(binding("a", "one"));
    assert!(index.is_dirty());
    let after = index.snapshot();
    assert!(after.version_of("a") > before.version_of("a"));
    assert_eq!(after.version_of("b"), before.version_of("b"));
    assert!(!index.is_dirty());
}

#[test]
fn what_is_remembered_of_the_past_has_a_bound() {
    let mut index = Index::new();
    for n in 0..3 * MAX_REMOVED {
        let namespace = format!("job-{n}");
        index.apply_identity(identity(&namespace, "id"));
        index.apply_binding(binding(&namespace, "one"));
        let _built = index.snapshot();
        index.delete_binding(&ObjectName::new(&*namespace, "one"));
        index.delete_identity(&ObjectName::new(&*namespace, "id"));
        let world = index.snapshot();
        assert!(
            world.namespaces.len() <= MAX_REMOVED + 1,
            "{}",
            world.namespaces.len()
        );
    }
}

#[test]
fn a_snapshot_does_not_change_when_the_index_does() {
    let mut index = Index::new();
    index.apply_identity(identity("a", "id"));
    index.apply_binding(binding("a", "one"));
    let world = index.snapshot();
    index.reset_bindings(Vec::new());
    assert_eq!(world.usable_identities().count(), 1);
    assert_eq!(index.snapshot().usable_identities().count(), 0);
}
