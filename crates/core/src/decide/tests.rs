//! Tables of decisions.

mod any_order;

use std::collections::BTreeMap;

use super::*;
use crate::identity::{Assignment, Binding, Credential, ObjectName, TokenSource};
use crate::ids::Guid;
use crate::index::Index;
use crate::pod::PodRef;

fn pod(namespace: &str, name: &str, last: u8, labels: &[(&str, &str)]) -> Pod {
    Pod {
        id: PodRef {
            object: ObjectName::new(namespace, name),
            uid: format!("{namespace}-{name}-uid").into(),
        },
        addresses: vec![[10, 0, 0, last].into()],
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect(),
        service_account: "default".into(),
        phase: Phase::Active,
        host_network: false,
    }
}

fn resource_id(name: &str) -> String {
    format!(
        "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
    )
}

fn identity(namespace: &str, name: &str, client: u128) -> Identity {
    Identity {
        object: ObjectName::new(namespace, name),
        client_id: Some(Guid::from_u128(client)),
        object_id: Some(Guid::from_u128(client + 1000)),
        resource_id: Some(resource_id(name).parse().unwrap()),
        credential: Credential::Managed(TokenSource::Imds),
        namespaced: false,
    }
}

fn binding(namespace: &str, identity: &str, selector: &str) -> Binding {
    Binding {
        object: ObjectName::new(namespace, format!("{identity}-binding")),
        identity: identity.into(),
        selector: selector.into(),
        default: false,
    }
}

fn exception(namespace: &str, labels: &[(&str, &str)]) -> Exception {
    let labels: BTreeMap<_, _> = labels
        .iter()
        .map(|(key, value)| ((*key).into(), (*value).into()))
        .collect();
    Exception {
        object: ObjectName::new(namespace, "ex"),
        labels,
    }
}

fn assignment(pod: (&str, &str), identity: Identity, assigned: bool) -> Assignment {
    Assignment {
        object: ObjectName::new("default", format!("{}-{}", pod.1, identity.object.name)),
        pod: ObjectName::new(pod.0, pod.1),
        identity: Arc::new(identity),
        assigned,
        default: false,
    }
}

/// Two tenants with the same names and selectors; pod `demo` in both, `two` with two identities.
fn index() -> Index {
    let mut index = Index::new();
    for (namespace, last, client) in [("a", 1, 1), ("b", 11, 11)] {
        index.apply_pod(pod(namespace, "demo", last, &[("aadpodidbinding", "demo")]));
        index.apply_pod(pod(namespace, "two", last + 1, &[("aadpodidbinding", "foo")]));
        index.apply_pod(pod(namespace, "bare", last + 2, &[("app", "x")]));
        index.apply_identity(identity(namespace, "demo", client));
        index.apply_identity(identity(namespace, "second", client + 1));
        index.apply_identity(identity(namespace, "first", client + 2));
        index.apply_binding(binding(namespace, "demo", "demo"));
        index.apply_binding(binding(namespace, "second", "foo"));
        index.apply_binding(binding(namespace, "first", "foo"));
    }
    index
}

fn outcome(
    index: &mut Index,
    policy: Policy,
    last: u8,
    selector: Option<Selector<'_>>,
) -> Result<String, Reason> {
    let request = TokenRequest {
        resource: "https://vault.azure.net".into(),
        selector,
    };
    let world = index.snapshot();
    let caller = Caller::Address([10, 0, 0, last].into());
    match decide(&world, policy, caller, Question::Token(&request), &mut ()) {
        Decision::Issue { pod, identity } => {
            assert_eq!(
                *pod.namespace(),
                identity.object.namespace,
                "never another namespace's"
            );
            Ok(identity.object.to_string())
        }
        Decision::PassThrough { .. } => Ok("passed".to_owned()),
        Decision::Refuse(refusal) => Err(refusal.reason),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it is a request's optional selector")]
fn by_client(client: u128) -> Option<Selector<'static>> {
    Some(Selector::ClientId(Guid::from_u128(client)))
}

#[test]
fn a_pod_gets_what_is_bound_in_its_own_namespace_and_nothing_else() {
    let mut index = index();
    let policy = Policy::default();
    for (last, selector, expected) in [
        (1, None, Ok("a/demo")),
        (11, None, Ok("b/demo")),
        (1, by_client(1), Ok("a/demo")),
        (1, by_client(11), Err(Reason::IdentityNotBound)),
        (1, by_client(2), Err(Reason::IdentityNotBound)),
        (2, by_client(2), Ok("a/second")),
        (2, by_client(3), Ok("a/first")),
        (2, Some(Selector::ObjectId(Guid::from_u128(1002))), Ok("a/second")),
        (
            2,
            Some(Selector::ResourceId(resource_id("SECOND").to_uppercase().into())),
            Ok("a/second"),
        ),
        (
            2,
            Some(Selector::Malformed("second".into())),
            Err(Reason::IdentityNotBound),
        ),
        (3, None, Err(Reason::NoBindingLabel)),
        (99, None, Err(Reason::PodNotFound)),
    ] {
        assert_eq!(
            outcome(&mut index, policy, last, selector.clone()),
            expected.map(str::to_owned),
            "pod .{last}, {selector:?}"
        );
    }
}

#[test]
fn of_several_the_default_comes_first_then_the_name() {
    let mut index = index();
    assert_eq!(
        outcome(&mut index, Policy::default(), 2, None).unwrap(),
        "a/first"
    );
    let refuse = Policy {
        ambiguous: Ambiguous::Refuse,
        ..Policy::default()
    };
    assert_eq!(
        outcome(&mut index, refuse, 2, None),
        Err(Reason::IdentityAmbiguous)
    );
    index.apply_binding(Binding {
        default: true,
        ..binding("a", "second", "foo")
    });
    for policy in [Policy::default(), refuse] {
        assert_eq!(outcome(&mut index, policy, 2, None).unwrap(), "a/second");
    }
}

#[test]
fn selectors_of_bindings_are_compared_exactly() {
    let mut index = index();
    index.apply_pod(pod("a", "case", 4, &[("aadpodidbinding", "Demo")]));
    index.apply_pod(pod("a", "empty", 5, &[("aadpodidbinding", "")]));
    assert_eq!(
        outcome(&mut index, Policy::default(), 4, None),
        Err(Reason::NoBinding)
    );
    assert_eq!(
        outcome(&mut index, Policy::default(), 5, None),
        Err(Reason::NoBindingLabel)
    );
}

#[test]
fn an_exception_needs_all_its_labels_in_its_own_namespace() {
    let mut index = index();
    let both = [("app", "x"), ("tier", "t")];
    index.apply_exception(exception("a", &both));
    index.apply_pod(pod("a", "both", 4, &both));
    index.apply_pod(pod("b", "both", 14, &both));
    let any = Policy {
        exception_match: ExceptionMatch::Any,
        ..Policy::default()
    };
    assert_eq!(outcome(&mut index, Policy::default(), 4, None).unwrap(), "passed");
    assert_eq!(
        outcome(&mut index, Policy::default(), 14, None),
        Err(Reason::NoBindingLabel)
    );
    assert_eq!(
        outcome(&mut index, Policy::default(), 3, None),
        Err(Reason::NoBindingLabel)
    );
    assert_eq!(outcome(&mut index, any, 3, None).unwrap(), "passed");
    index.apply_exception(exception("a", &[]));
    for policy in [Policy::default(), any] {
        assert_eq!(
            outcome(&mut index, policy, 4, None),
            Err(Reason::NoBindingLabel),
            "no label excepts nothing"
        );
    }
}

#[test]
fn what_was_removed_is_told_apart_from_what_is_late() {
    let mut index = index();
    assert_eq!(outcome(&mut index, Policy::default(), 1, None).unwrap(), "a/demo");
    index.delete_binding(&ObjectName::new("a", "demo-binding"));
    assert_eq!(
        outcome(&mut index, Policy::default(), 1, None),
        Err(Reason::BindingRemoved)
    );
    index.apply_binding(binding("a", "demo", "demo"));
    assert_eq!(outcome(&mut index, Policy::default(), 1, None).unwrap(), "a/demo");
    index.delete_identity(&ObjectName::new("a", "demo"));
    assert_eq!(
        outcome(&mut index, Policy::default(), 1, None),
        Err(Reason::BindingRemoved)
    );
    index.apply_binding(binding("a", "late", "late"));
    index.apply_pod(pod("a", "late", 4, &[("aadpodidbinding", "late")]));
    assert_eq!(
        outcome(&mut index, Policy::default(), 4, None),
        Err(Reason::IdentityMissing)
    );
    // A watch that starts over replaces the view in one step, and what it no longer has is removed too.
    index.reset_bindings(vec![binding("b", "demo", "demo")]);
    assert_eq!(
        outcome(&mut index, Policy::default(), 2, None),
        Err(Reason::BindingRemoved)
    );
    assert_eq!(
        outcome(&mut index, Policy::default(), 11, None).unwrap(),
        "b/demo"
    );
    assert_eq!(
        outcome(&mut index, Policy::default(), 2, by_client(2)),
        Err(Reason::BindingRemoved)
    );
}

#[test]
fn standard_mode_uses_assignments_and_waits_for_those_not_yet_made() {
    let mut index = index();
    let standard = |namespaced| Policy {
        mode: Mode::Standard { namespaced },
        ..Policy::default()
    };
    assert_eq!(
        outcome(&mut index, standard(false), 1, None),
        Err(Reason::NoBinding)
    );
    assert_eq!(
        outcome(&mut index, standard(false), 3, None),
        Err(Reason::NoBindingLabel)
    );
    index.apply_assignment(assignment(("a", "demo"), identity("a", "demo", 1), false));
    assert_eq!(
        outcome(&mut index, standard(false), 1, None),
        Err(Reason::IdentityNotAssigned)
    );
    assert_eq!(
        outcome(&mut index, standard(false), 1, by_client(1)),
        Err(Reason::IdentityNotAssigned)
    );
    index.apply_assignment(assignment(("a", "demo"), identity("a", "demo", 1), true));
    assert_eq!(
        outcome(&mut index, standard(true), 1, by_client(1)).unwrap(),
        "a/demo"
    );

    // An identity of another namespace, as the operator of this mode allows.
    index.apply_assignment(assignment(("a", "bare"), identity("shared", "s", 50), true));
    let world = index.snapshot();
    let request = TokenRequest {
        resource: "r".into(),
        selector: None,
    };
    let ask = |policy: Policy| {
        let caller = Caller::Address([10, 0, 0, 3].into());
        decide(&world, policy, caller, Question::Token(&request), &mut ()).reason()
    };
    assert_eq!(ask(standard(false)), Reason::TokenIssued);
    assert_eq!(ask(standard(true)), Reason::IdentityNotBound);
}

#[test]
fn a_connection_stays_the_pods_that_opened_it() {
    let mut index = index();
    let proven = |uid| Caller::Proven {
        uid,
        address: [10, 0, 0, 1].into(),
    };
    let reason = |index: &mut Index, caller| {
        identify(&index.snapshot(), caller)
            .map(|_| ())
            .map_err(|no| no.reason)
    };
    assert_eq!(reason(&mut index, proven("a-demo-uid")), Ok(()));
    assert_eq!(
        reason(&mut index, proven("a-two-uid")),
        Err(Reason::PodGone),
        "not its address"
    );

    // The address is given to a new pod while the old pod's deletion is late.
    let new = Pod {
        id: PodRef {
            object: ObjectName::new("a", "new"),
            uid: "new-uid".into(),
        },
        ..pod("a", "new", 1, &[])
    };
    index.apply_pod(new);
    assert_eq!(
        reason(&mut index, proven("a-demo-uid")),
        Err(Reason::AddressAmbiguous)
    );
    assert_eq!(
        reason(&mut index, proven("new-uid")),
        Err(Reason::AddressAmbiguous)
    );
    index.delete_pod("a-demo-uid");
    assert_eq!(reason(&mut index, proven("a-demo-uid")), Err(Reason::PodGone));
    assert_eq!(reason(&mut index, proven("new-uid")), Ok(()));
    // The old pod's deletion comes once more.
    index.delete_pod("a-demo-uid");
    assert_eq!(reason(&mut index, proven("new-uid")), Ok(()));
}

#[test]
fn finished_pods_and_pods_on_the_nodes_network_get_nothing() {
    let mut index = index();
    index.apply_pod(Pod {
        phase: Phase::Finished,
        ..pod("a", "demo", 1, &[("aadpodidbinding", "demo")])
    });
    assert_eq!(
        outcome(&mut index, Policy::default(), 1, None),
        Err(Reason::PodNotFound)
    );
    for name in ["host1", "host2"] {
        index.apply_pod(Pod {
            host_network: true,
            ..pod("a", name, 200, &[("aadpodidbinding", "demo")])
        });
    }
    assert_eq!(
        outcome(&mut index, Policy::default(), 200, None),
        Err(Reason::HostNetwork)
    );
    index.apply_pod(pod("a", "clash", 200, &[]));
    assert_eq!(
        outcome(&mut index, Policy::default(), 200, None),
        Err(Reason::AddressAmbiguous)
    );
}

/// The policy that gives `group` this access, and everything else the default.
fn with(group: PathGroup, access: Access) -> Policy {
    let mut policy = Policy::default();
    match group {
        PathGroup::Instance => policy.instance = access,
        PathGroup::Attested => policy.attested = access,
        PathGroup::ScheduledEvents => policy.scheduled_events = access,
        PathGroup::Other => policy.other = access,
        PathGroup::Identity => policy.token = access,
    }
    policy
}

#[test]
fn each_group_of_paths_is_open_to_excepted_pods_or_to_nobody_as_its_policy_says() {
    let mut index = index();
    index.apply_exception(exception("a", &[("app", "x")]));
    let world = index.snapshot();
    let reason = |policy: Policy, last: u8, group| {
        let caller = Caller::Address([10, 0, 0, last].into());
        decide(&world, policy, caller, Question::Path(group), &mut ()).reason()
    };
    // An ordinary pod, an excepted one, somebody unknown.
    let of_all = |policy, group| [1, 3, 99].map(|last| reason(policy, last, group));
    let (passed, closed, blocked) = (Reason::PassedThrough, Reason::PathClosed, Reason::PathBlocked);
    for (group, default) in [
        (PathGroup::Instance, Access::Open),
        (PathGroup::Attested, Access::Excepted),
        (PathGroup::ScheduledEvents, Access::Excepted),
        (PathGroup::Other, Access::Excepted),
        (PathGroup::Identity, Access::Excepted),
    ] {
        assert_eq!(Policy::default().access(group), default, "{group:?}");
        let open = of_all(with(group, Access::Open), group);
        if group == PathGroup::Identity {
            assert_eq!(open, [closed, passed, Reason::PodNotFound], "never open");
        } else {
            assert_eq!(open, [passed; 3], "{group:?}");
        }
        let excepted = of_all(with(group, Access::Excepted), group);
        assert_eq!(excepted, [closed, passed, Reason::PodNotFound], "{group:?}");
        assert_eq!(
            of_all(with(group, Access::Blocked), group),
            [blocked; 3],
            "{group:?}"
        );
    }
}

#[test]
fn where_tokens_of_the_node_are_for_nobody_an_excepted_pod_needs_a_binding_like_all_others() {
    let mut index = index();
    index.apply_exception(exception("a", &[("app", "x")]));
    index.apply_exception(Exception {
        object: ObjectName::new("a", "ex2"),
        labels: BTreeMap::from([("aadpodidbinding".into(), "demo".into())]),
    });
    let blocked = with(PathGroup::Identity, Access::Blocked);
    for (last, passed, own) in [
        (3, Ok("passed"), Err(Reason::NoBindingLabel)),
        (1, Ok("passed"), Ok("a/demo")),
    ] {
        let expected = |outcome: Result<&str, Reason>| outcome.map(str::to_owned);
        assert_eq!(
            outcome(&mut index, Policy::default(), last, None),
            expected(passed)
        );
        assert_eq!(outcome(&mut index, blocked, last, None), expected(own));
    }
}

#[test]
fn a_pod_that_an_agent_names_needs_no_address_and_no_exception_helps_it() {
    let mut index = index();
    index.apply_exception(exception("a", &[("app", "x")]));
    index.apply_pod(Pod {
        addresses: Vec::new(),
        ..pod("a", "starting", 0, &[("aadpodidbinding", "demo")])
    });
    index.apply_pod(Pod {
        host_network: true,
        ..pod("a", "agent", 200, &[("aadpodidbinding", "demo")])
    });
    index.apply_pod(Pod {
        phase: Phase::Finished,
        ..pod("a", "done", 0, &[("aadpodidbinding", "demo")])
    });
    let world = index.snapshot();
    let request = TokenRequest {
        resource: "r".into(),
        selector: None,
    };
    for (name, expected) in [
        ("starting", Reason::TokenIssued),
        ("demo", Reason::TokenIssued),
        ("agent", Reason::TokenIssued),
        ("bare", Reason::NoBindingLabel),
        ("done", Reason::PodFinished),
        ("nobody", Reason::PodGone),
    ] {
        let uid = format!("a-{name}-uid");
        let caller = Caller::Vouched { uid: &uid };
        let decision = decide(
            &world,
            Policy::default(),
            caller,
            Question::Token(&request),
            &mut (),
        );
        assert_eq!(decision.reason(), expected, "{name}");
    }
    let named = |name| world.pod_named(&ObjectName::new("a", name)).is_some();
    assert_eq!(["starting", "done", "nobody"].map(named), [true, false, false]);
}

#[test]
fn a_refusal_says_what_was_looked_for_and_the_steps_are_recorded() {
    let mut index = index();
    let world = index.snapshot();
    let request = TokenRequest {
        resource: "r".into(),
        selector: by_client(11),
    };
    let mut steps = Steps::default();
    let caller = Caller::Address([10, 0, 0, 1].into());
    let decision = decide(
        &world,
        Policy::default(),
        caller,
        Question::Token(&request),
        &mut steps,
    );
    let Decision::Refuse(refusal) = decision else {
        panic!("{decision:?}")
    };
    assert_eq!(
        refusal.describe(),
        "Identity not found: the identity asked for is not bound to this pod (pod a/demo, selector demo, client id \
         00000000-0000-0000-0000-00000000000b); ask for one that is bound to it, or bind this one under the pod's selector"
    );
    let said: Vec<_> = steps.0.iter().map(|(what, _)| *what).collect();
    assert_eq!(said, ["pod", "exception", "binding", "identity"]);
}
