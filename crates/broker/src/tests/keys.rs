//! What is remembered under which key, for how long, and how much of it.

use std::collections::HashMap;

use super::*;

#[tokio::test(start_paused = true)]
async fn forgotten_keys_serve_nothing_and_their_waiters_are_told_at_once() {
    let world = World::new(Duration::from_secs(5), |_, _| Say::Token(HOUR));
    let (one, two) = (identity("ns", 1), identity("ns", 2));
    world.ask(&one).await.unwrap();
    let waiting = world.asking(&two, RESOURCE);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(world.broker.retain([]), 2);
    assert!(matches!(waiting.await.unwrap(), Err(TokenError::Forgotten)));
    assert_eq!(world.secs(), 5, "not after the call");
    assert!(
        world
            .broker
            .lookup(Lookup {
                identity: &one,
                resource: RESOURCE,
                via: &Via::Imds
            })
            .is_none()
    );
    assert_eq!(world.broker.keys().len(), 0);
    assert_eq!(world.script.lock().running, 0, "its call was dropped too");
}

#[tokio::test(start_paused = true)]
async fn what_is_still_there_unchanged_is_retained() {
    let world = World::new(MILLIS, |_, _| Say::Token(HOUR));
    let one = identity("ns", 1);
    world.ask(&one).await.unwrap();
    // The same object read again, with another mark that the upstream never sees.
    let again = Arc::new(Identity {
        object_id: Some(Guid::from_u128(77)),
        ..Identity::clone(&one)
    });
    assert_eq!(world.broker.retain([&again]), 0);
    assert_eq!(world.ask(&again).await.unwrap(), "token-1");
    let other = Arc::new(Identity {
        client_id: Some(Guid::from_u128(78)),
        ..Identity::clone(&one)
    });
    assert_eq!(world.broker.retain([&other]), 1);
}

#[tokio::test(start_paused = true)]
async fn entries_of_one_identity_are_bounded_and_other_identities_are_not_touched() {
    let world = World::new(Duration::from_millis(1), |_, _| Say::Token(HOUR));
    let quiet = identity("quiet", 2);
    world.ask(&quiet).await.unwrap();
    let noisy = identity("noisy", 1);
    for n in 0..100 {
        world
            .ask_for(&noisy, &format!("https://{n}.example"))
            .await
            .unwrap();
    }
    let keys = world.broker.keys();
    assert_eq!(keys.len(), Limits::default().per_identity + 1);
    assert_eq!(world.ask(&quiet).await.unwrap(), "token-1");
    let waiters: Vec<_> = (200..300)
        .map(|n| world.asking(&noisy, &format!("https://{n}.example")))
        .collect();
    let mut refused = 0;
    for waiter in waiters {
        refused += usize::from(matches!(waiter.await.unwrap(), Err(TokenError::TooMany)));
    }
    assert_eq!(refused, 100 - Limits::default().flights_per_identity);
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_makes_room_before_what_is_good() {
    let world = World::new(Duration::from_millis(1), |_, key| {
        if &*key.resource == RESOURCE {
            Say::Token(HOUR)
        } else {
            Say::Refuse
        }
    });
    let one = identity("ns", 1);
    world.ask(&one).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    for n in 0..40 {
        world
            .ask_for(&one, &format!("https://{n}.example"))
            .await
            .unwrap_err();
    }
    world.ask(&one).await.unwrap();
    assert_eq!(world.calls().len(), 41, "the token was still there");
}

#[tokio::test(start_paused = true)]
async fn every_input_of_the_upstream_call_separates() {
    let world = World::new(Duration::from_millis(1), |_, _| Say::Token(HOUR));
    let base = identity("ns", 1);
    let with = |change: &dyn Fn(&mut Identity)| {
        let mut identity = Identity::clone(&base);
        change(&mut identity);
        Arc::new(identity)
    };
    let secret = |tenant: &str, secret: &str, authority: Option<&str>| Credential::ClientSecret {
        tenant: tenant.into(),
        auxiliary_tenants: Vec::new(),
        secret: ObjectName::new("ns", secret),
        authority: authority.map(Into::into),
    };
    let certificate = Credential::ClientCertificate {
        tenant: "t".into(),
        secret: ObjectName::new("ns", "s"),
        authority: None,
    };
    let credential = |tenant: &str, version: Option<&str>| Via::Credential {
        tenant: tenant.into(),
        secret_version: version.map(Into::into),
    };
    let federation = |tenant: &str, account: &str| Via::Federation {
        tenant: tenant.into(),
        service_account: ObjectName::new("ns", account),
    };
    let resource_id =
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/n";
    let calls: Vec<(Arc<Identity>, &str, Via)> = vec![
        (Arc::clone(&base), "r", Via::Imds),
        (Arc::clone(&base), "r/", Via::Imds),
        (
            with(&|id| id.object = ObjectName::new("other", "id-1")),
            "r",
            Via::Imds,
        ),
        (
            with(&|id| id.client_id = Some(Guid::from_u128(2))),
            "r",
            Via::Imds,
        ),
        (with(&|id| id.client_id = None), "r", Via::Imds),
        (
            with(&|id| id.resource_id = resource_id.parse().ok()),
            "r",
            Via::Imds,
        ),
        (Arc::clone(&base), "r", federation("t", "a")),
        (Arc::clone(&base), "r", federation("t", "b")),
        (Arc::clone(&base), "r", federation("u", "a")),
        (
            with(&|id| id.credential = secret("t", "s", None)),
            "r",
            credential("t", None),
        ),
        (
            with(&|id| id.credential = secret("t", "s", None)),
            "r",
            credential("u", None),
        ),
        (
            with(&|id| id.credential = secret("t", "s", None)),
            "r",
            credential("t", Some("1")),
        ),
        (
            with(&|id| id.credential = secret("t", "s", None)),
            "r",
            credential("t", Some("2")),
        ),
        (
            with(&|id| id.credential = secret("u", "s", None)),
            "r",
            credential("t", None),
        ),
        (
            with(&|id| id.credential = secret("t", "z", None)),
            "r",
            credential("t", None),
        ),
        (
            with(&|id| id.credential = secret("t", "s", Some("https://a"))),
            "r",
            credential("t", None),
        ),
        (
            with(&|id| id.credential = certificate.clone()),
            "r",
            credential("t", None),
        ),
    ];
    let mut seen = HashMap::new();
    for round in 0..2 {
        for (at, (identity, resource, via)) in calls.iter().enumerate() {
            let lookup = Lookup {
                identity,
                resource,
                via,
            };
            let deadline = Instant::now() + Duration::from_secs(20);
            let token = world.broker.get(lookup, deadline).await.unwrap();
            let token = token.secret.expose().to_owned();
            if round == 0 {
                assert_eq!(
                    seen.insert(token, at),
                    None,
                    "call {at} was answered from another's"
                );
            } else {
                assert_eq!(seen.get(&token), Some(&at));
            }
        }
    }
    assert_eq!(world.calls().len(), calls.len());
}
