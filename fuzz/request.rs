//! What must hold for every request target, whoever made it up: shared by the fuzz target and by `cargo test`.

use std::sync::{Arc, LazyLock};

use podid_core::decide::{Mode, Question};
use podid_core::{
    Binding, Caller, Credential, Decision, Guid, Identity, Index, ObjectName, PathGroup, Phase, Pod, PodRef,
    Policy, Route, TokenRequest, TokenSource, World, decide,
};

/// Pod `a` has identity 1, pod `b` in another namespace has identity 2, each under the selector `x`.
static WORLD: LazyLock<World> = LazyLock::new(|| {
    let mut index = Index::new();
    for (namespace, last, client) in [("a", 1, 1), ("b", 2, 2)] {
        index.apply_pod(Pod {
            id: PodRef {
                object: ObjectName::new(namespace, "pod"),
                uid: namespace.into(),
            },
            addresses: vec![[10, 0, 0, last].into()],
            labels: [(Arc::from("aadpodidbinding"), Arc::from("x"))].into(),
            service_account: "default".into(),
            phase: Phase::Active,
            host_network: false,
        });
        index.apply_identity(Identity {
            object: ObjectName::new(namespace, "id"),
            client_id: Some(Guid::from_u128(client)),
            object_id: None,
            resource_id: None,
            credential: Credential::Managed(TokenSource::Imds),
            namespaced: false,
        });
        index.apply_binding(Binding {
            object: ObjectName::new(namespace, "binding"),
            identity: "id".into(),
            selector: "x".into(),
            default: false,
        });
    }
    index.snapshot()
});

/// Panics when `target`, the path and query of a request line, does what no request may do.
pub(crate) fn check(target: &[u8]) {
    let target = String::from_utf8_lossy(target);
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let route = Route::parse(path);
    if let Route::Path {
        group,
        path: canonical,
    } = &route
    {
        let canonical_again = Route::parse(canonical);
        assert_eq!(canonical_again, route, "{path:?} has one canonical spelling");
        assert!(
            !canonical.contains(['\\', '%', ';', '?', '#', ' ']),
            "{canonical:?} can be read in one way only"
        );
        assert!(
            canonical.bytes().all(|byte| byte.is_ascii_graphic()),
            "{canonical:?} has only characters that print"
        );
        let folded = canonical.to_ascii_lowercase();
        let rest = folded.strip_prefix("/metadata/identity/oauth2");
        let is_token = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        assert!(!is_token, "{path:?} would be passed on as {canonical:?}");
        for caller in [1, 2, 99] {
            let caller = Caller::Address([10, 0, 0, caller].into());
            let decision = decide(&WORLD, Policy::default(), caller, Question::Path(*group), &mut ());
            let passed = matches!(decision, Decision::PassThrough { .. });
            assert_eq!(
                passed,
                *group == PathGroup::Instance,
                "{path:?} of {caller:?} is closed by default"
            );
        }
    }
    let Ok(request) = TokenRequest::parse(query) else {
        return;
    };
    for mode in [Mode::Managed, Mode::Standard { namespaced: true }] {
        for (last, own) in [(1, Some(1)), (2, Some(2)), (99, None)] {
            let policy = Policy {
                mode,
                ..Policy::default()
            };
            let caller = Caller::Address([10, 0, 0, last].into());
            match decide(&WORLD, policy, caller, Question::Token(&request), &mut ()) {
                Decision::Issue { identity, .. } => {
                    assert_eq!(
                        identity.client_id,
                        own.map(Guid::from_u128),
                        "{query:?} of .{last}"
                    );
                }
                Decision::PassThrough { .. } => unreachable!("nobody has an exception"),
                Decision::Refuse(refusal) => {
                    assert!(!refusal.describe().contains('\n'), "one line for the log");
                }
            }
        }
    }
}
