//! Several threads at once, on real time: nobody is left waiting, and nothing is left behind.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// Gives tokens at once, counts, and fails now and then.
struct Quick {
    calls: AtomicU64,
}

impl Source for Quick {
    async fn fetch(&self, key: &Key) -> Result<AccessToken, SourceError> {
        let nth = self.calls.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        if nth % 7 == 3 {
            return Err(SourceError::new(
                "refused",
                TroubleKind::Refused,
                Retry::Never,
                "refused",
            ));
        }
        Ok(AccessToken {
            secret: Secret::new(key.resource.as_ref().to_owned()),
            expires_on: START + HOUR,
            not_before: None,
            token_type: "Bearer".into(),
            resource: key.resource.as_ref().into(),
            client_id: key.identity.client_id,
        })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test's runtime is where tasks belong here"
)]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn coming_leaving_and_forgetting_at_once_leave_nobody_waiting() {
    let fast = crate::LaneLimits {
        rate: 100_000,
        window: Duration::from_secs(1),
        ..Limits::default().imds
    };
    let limits = Limits {
        imds: fast,
        ..Limits::default()
    };
    let source = Quick {
        calls: AtomicU64::new(0),
    };
    let broker = Broker::new(
        source,
        Arc::new(|| START),
        Box::new(|work| drop(tokio::spawn(work))),
        limits,
        &mut Registry::default(),
    );
    let workers: Vec<_> = (0..8_u64)
        .map(|worker| {
            let broker = Arc::clone(&broker);
            tokio::spawn(async move {
                for round in 0..2_000_u64 {
                    let mixed = (worker * 2_000 + round).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
                    let identity = identity(if mixed % 2 == 0 { "a" } else { "b" }, u128::from(mixed % 5));
                    let resource = format!("https://{}.example", mixed / 5 % 6);
                    let lookup = Lookup {
                        identity: &identity,
                        resource: &resource,
                        via: &Via::Imds,
                    };
                    if mixed % 11 == 0 {
                        broker.forget(|key| key.identity.object == identity.object);
                        continue;
                    }
                    let asked = broker.get(lookup, Instant::now() + Duration::from_mins(1));
                    if mixed % 13 == 0 {
                        // Leaves at once, wherever it is.
                        let _left = tokio::time::timeout(Duration::ZERO, asked).await;
                        continue;
                    }
                    match asked.await {
                        Ok(token) => assert_eq!(token.secret.expose(), resource, "another's token"),
                        Err(TokenError::Refused(_) | TokenError::Forgotten) => {}
                        Err(other) => panic!("nothing is slow or scarce here: {other:?}"),
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    broker.forget(|_| true);
    podid_testkit::eventually("the lane is empty", || async {
        let load = broker.lane(&Via::Imds).load();
        if load == (0, 0) { Ok(()) } else { Err(load) }
    })
    .await
    .unwrap();
    assert_eq!(broker.keys().len(), 0);
}
