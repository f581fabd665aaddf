//! Quota, turns and pauses towards the upstream.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_the_upstream_asks_for_is_kept() {
    let world = World::new(MILLIS, |nth, _| {
        if nth == 1 {
            Say::Throttle(Some(7))
        } else {
            Say::Token(HOUR)
        }
    });
    let (one, two) = (world.asking(&identity("a", 1), RESOURCE), async {
        sleep(Duration::from_secs(1)).await;
        world.ask(&identity("b", 2)).await
    });
    let (one, two) = tokio::join!(one, two);
    assert!(one.unwrap().is_ok() && two.is_ok());
    let calls = world.calls();
    assert!(
        calls[1].at >= Duration::from_secs(7),
        "the whole VM keeps still: {calls:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pause_longer_than_the_deadline_is_told_at_once_to_everybody() {
    let world = World::new(MILLIS, |_, _| Say::Throttle(Some(60)));
    for n in 1..=3 {
        let error = world.ask(&identity("ns", n)).await.unwrap_err();
        assert!(
            matches!(error.retry(), Retry::After(after) if after > Duration::from_secs(55)),
            "{error:?}"
        );
    }
    assert!(world.secs() < 2 && world.calls().len() == 1);
}

/// Most calls that started within any `window`.
fn busiest(calls: &[Call], window: Duration) -> usize {
    calls
        .iter()
        .enumerate()
        .map(|(at, first)| {
            calls[at..]
                .iter()
                .take_while(|call| call.at < first.at + window)
                .count()
        })
        .max()
        .unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_keys_stays_within_the_quota_and_everybody_gets_a_token() {
    let world = World::new(Duration::from_millis(150), |_, _| Say::Token(HOUR));
    let waiters: Vec<_> = (0..250)
        .map(|n| world.asking(&identity(&format!("ns-{}", n % 50), n), RESOURCE))
        .collect();
    for waiter in waiters {
        waiter.await.unwrap().unwrap();
    }
    let calls = world.calls();
    assert_eq!(calls.len(), 250);
    assert_eq!(busiest(&calls, Duration::from_secs(1)), 20);
    assert_eq!(calls.iter().map(|call| call.running).max(), Some(5));
}

#[tokio::test(start_paused = true)]
async fn a_noisy_tenant_does_not_keep_others_waiting() {
    let limits = Limits {
        per_identity: 500,
        flights_per_identity: 500,
        ..Limits::default()
    };
    let world = World::with(Duration::from_millis(20), limits, |_, _| Say::Token(HOUR));
    let noisy = identity("noisy", 1);
    let storm: Vec<_> = (0..300)
        .map(|n| world.asking(&noisy, &format!("https://{n}.example")))
        .collect();
    sleep(Duration::from_millis(500)).await;
    let before = world.calls().len();
    world.ask(&identity("quiet", 2)).await.unwrap();
    let calls = world.calls();
    let place = calls
        .iter()
        .position(|call| &*call.key.identity.object.namespace == "quiet")
        .unwrap();
    // Seats given at one moment are taken in any order.
    assert!(place - before < 5, "{place} after {before}");
    for waiter in storm {
        waiter.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn first_tokens_go_before_refreshes_and_find_seats_when_these_hang() {
    let limits = Limits {
        attempt: Duration::from_hours(1),
        ..Limits::default()
    };
    let world = World::with(Duration::from_millis(400), limits, |nth, key| {
        if nth > 60 && &*key.identity.object.namespace == "old" {
            Say::Hang
        } else {
            Say::Token(HOUR)
        }
    });
    let old: Vec<_> = (0..60)
        .map(|n| world.asking(&identity("old", n), RESOURCE))
        .collect();
    for waiter in old {
        waiter.await.unwrap().unwrap();
    }
    // By then all are past their refresh point; two hang, and the rest waits behind them.
    sleep(Duration::from_secs(2_250)).await;
    assert_eq!(world.calls().len(), 62);
    let asked = Instant::now();
    let new: Vec<_> = (100..110)
        .map(|n| world.asking(&identity("new", n), RESOURCE))
        .collect();
    for waiter in new {
        waiter.await.unwrap().unwrap();
    }
    let after = world.calls();
    let firsts = after
        .iter()
        .skip(62)
        .take_while(|call| &*call.key.identity.object.namespace == "new")
        .count();
    assert_eq!(firsts, 10, "no refresh between them");
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn throttling_without_a_time_is_answered_by_longer_and_longer_pauses() {
    let world = World::new(Duration::ZERO, |nth, _| match nth {
        1..=3 | 5 => Say::Throttle(None),
        _ => Say::Token(HOUR),
    });
    world.ask(&identity("a", 1)).await.unwrap();
    world.ask(&identity("a", 2)).await.unwrap();
    let at: Vec<u64> = world.calls().iter().map(|call| call.at.as_secs()).collect();
    assert_eq!(
        at,
        [0, 1, 3, 7, 7, 8],
        "1, 2 and 4 s, and after a success 1 s again"
    );
}

#[tokio::test(start_paused = true)]
async fn who_leaves_the_queue_leaves_nothing_in_it() {
    let world = World::new(
        MILLIS,
        |nth, _| if nth <= 5 { Say::Hang } else { Say::Token(HOUR) },
    );
    for n in 0..5 {
        world.asking(&identity("a", n), RESOURCE);
    }
    sleep(Duration::from_secs(1)).await;
    // While all seats are taken, pods come and go.
    for n in 0..100 {
        let waiter = world.asking(&identity("a", n % 10), &format!("https://{n}.example"));
        sleep(Duration::from_millis(1)).await;
        assert_eq!(world.broker.lane(&Via::Imds).load(), (1, 5));
        waiter.abort();
        sleep(Duration::from_millis(1)).await;
        assert_eq!(world.broker.lane(&Via::Imds).load(), (0, 5));
    }
    sleep(Duration::from_secs(35)).await;
    world.ask(&identity("b", 1)).await.unwrap();
}
