//! Properties of decisions, whatever happens in whatever order.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// What may happen to the world.
#[derive(Clone, Debug)]
enum Event {
    Bind(u8, u8, u8),
    Unbind(u8, u8),
    Identity(u8, u8),
    NoIdentity(u8, u8),
    Pod(u8, u8, u8),
    NoPod(u8, u8),
}

fn event() -> impl Strategy<Value = Event> {
    let n = 0..3_u8;
    prop_oneof![
        (n.clone(), n.clone(), n.clone()).prop_map(|(ns, id, sel)| Event::Bind(ns, id, sel)),
        (n.clone(), n.clone()).prop_map(|(ns, id)| Event::Unbind(ns, id)),
        (n.clone(), n.clone()).prop_map(|(ns, id)| Event::Identity(ns, id)),
        (n.clone(), n.clone()).prop_map(|(ns, id)| Event::NoIdentity(ns, id)),
        (n.clone(), n.clone(), n.clone()).prop_map(|(ns, name, sel)| Event::Pod(ns, name, sel)),
        (n.clone(), n).prop_map(|(ns, name)| Event::NoPod(ns, name)),
    ]
}

proptest! {
    /// Whatever happens in whatever order: a token is only ever of an identity that exists in the pod's namespace and is
    /// bound there now under the pod's selector.
    #[test]
    fn no_pod_ever_gets_anothers_identity(events in prop::collection::vec(event(), 1..40), asked in 0..10_u128) {
        let mut index = Index::new();
        let mut bound = BTreeMap::new();
        let mut there = BTreeSet::new();
        let namespace = |ns: u8| format!("ns{ns}");
        let client = |ns: u8, id: u8| u128::from(ns) * 3 + u128::from(id);
        for event in events {
            match event {
                Event::Bind(ns, id, sel) => {
                    index.apply_binding(binding(&namespace(ns), &format!("id{id}"), &format!("sel{sel}")));
                    bound.insert((ns, id), sel);
                }
                Event::Unbind(ns, id) => {
                    index.delete_binding(&ObjectName::new(namespace(ns), format!("id{id}-binding")));
                    bound.remove(&(ns, id));
                }
                Event::Identity(ns, id) => {
                    index.apply_identity(identity(&namespace(ns), &format!("id{id}"), client(ns, id)));
                    there.insert((ns, id));
                }
                Event::NoIdentity(ns, id) => {
                    index.delete_identity(&ObjectName::new(namespace(ns), format!("id{id}")));
                    there.remove(&(ns, id));
                }
                Event::Pod(ns, name, sel) => index.apply_pod(pod(
                    &namespace(ns), &format!("p{name}"), ns * 3 + name, &[("aadpodidbinding", &format!("sel{sel}"))],
                )),
                Event::NoPod(ns, name) => index.delete_pod(&format!("{}-p{name}-uid", namespace(ns))),
            }
            let world = index.snapshot();
            for selector in [None, by_client(asked)] {
                let request = TokenRequest { resource: "r".into(), selector: selector.clone() };
                for last in 0..9_u8 {
                    let caller = Caller::Address([10, 0, 0, last].into());
                    let decision = decide(&world, Policy::default(), caller, Question::Token(&request), &mut ());
                    if let Decision::Issue { pod, identity } = decision {
                        let (ns, id) = bound.iter().find_map(|((ns, id), sel)| {
                            let same = identity.client_id == Some(Guid::from_u128(client(*ns, *id)))
                                && pod.selector().is_some_and(|own| **own == *format!("sel{sel}"))
                                && **pod.namespace() == *namespace(*ns);
                            same.then_some((*ns, *id))
                        }).expect("bound now, here, under this selector");
                        prop_assert!(there.contains(&(ns, id)));
                        prop_assert!(selector.is_none() || by_client(client(ns, id)) == selector);
                    }
                }
            }
        }
    }
}
