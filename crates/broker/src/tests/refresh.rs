//! Refreshing ahead, and what is served meanwhile.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_token_is_refreshed_ahead_around_half_life_and_never_served_near_its_end() {
    let world = World::new(MILLIS, |_, _| Say::Token(HOUR));
    let one = identity("ns", 1);
    world.ask(&one).await.unwrap();
    sleep(Duration::from_secs(1_300)).await;
    assert_eq!(
        world.calls().len(),
        1,
        "the refresh point is 40 to 60 % of the life"
    );
    sleep(Duration::from_mins(16)).await;
    assert_eq!(world.calls().len(), 2);
    assert_eq!(world.ask(&one).await.unwrap(), "token-2");
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_keeps_the_last_good_one_until_five_minutes_are_left() {
    for trouble in [Say::Busy, Say::Refuse, Say::Throttle(None), Say::Hang] {
        let world = World::new(
            MILLIS,
            move |nth, _| {
                if nth == 1 { Say::Token(HOUR) } else { trouble }
            },
        );
        let one = identity("ns", 1);
        world.ask(&one).await.unwrap();
        while world.secs() < HOUR - 305 {
            assert_eq!(world.ask(&one).await.unwrap(), "token-1");
            sleep(Duration::from_secs(3)).await;
        }
        let calls = world.calls().len();
        assert!(
            (3..15).contains(&calls),
            "tried again, but not in a storm: {calls}"
        );
        sleep(Duration::from_secs(6)).await;
        world
            .ask(&one)
            .await
            .expect_err("with five minutes left it is never served");
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiter_hurries_a_refresh_whose_token_has_become_too_old() {
    // All refreshing seats hang; the token's own refresh waits behind them until somebody needs it.
    let limits = Limits {
        attempt: Duration::from_hours(2),
        ..Limits::default()
    };
    let world = World::with(MILLIS, limits, |nth, _| match nth {
        1..=3 => Say::Token(HOUR),
        4 | 5 => Say::Hang,
        _ => Say::Token(HOUR),
    });
    for n in 1..=3 {
        world.ask(&identity("ns", n)).await.unwrap();
    }
    sleep(Duration::from_secs(HOUR - 200)).await;
    let mut served = 0;
    for n in 1..=3 {
        served += usize::from(world.ask(&identity("ns", n)).await.is_ok());
    }
    assert_eq!((served, world.calls().len()), (1, 6));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_ends_too_soon_is_not_handed_on() {
    let world = World::new(MILLIS, |nth, _| Say::Token(if nth < 3 { 300 } else { 302 }));
    assert_eq!(world.ask(&identity("ns", 1)).await.unwrap(), "token-3");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_nobody_asks_for_is_refreshed_for_a_day_and_then_left() {
    let world = World::new(MILLIS, |_, _| Say::Token(24 * HOUR));
    world.ask(&identity("ns", 1)).await.unwrap();
    sleep(Duration::from_hours(80)).await;
    assert!((2..=4).contains(&world.calls().len()), "{}", world.calls().len());
    assert_eq!(world.broker.keys().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_refreshes_are_dropped_and_waiters_are_served() {
    let world = World::stopped_after(Duration::from_secs(2_300), Duration::from_secs(30), |nth, _| {
        if nth == 2 { Say::Hang } else { Say::Token(HOUR) }
    });
    let one = identity("ns", 1);
    let lookup = || Lookup {
        identity: &one,
        resource: RESOURCE,
        via: &Via::Imds,
    };
    world
        .broker
        .get(lookup(), Instant::now() + Duration::from_secs(500))
        .await
        .unwrap();
    // The refresh begins by 60 % of the life, and hangs.
    sleep(Duration::from_secs(2_260)).await;
    assert_eq!((world.secs(), world.script.lock().running), (2_290, 1));
    let two = identity("ns", 2);
    let other = Lookup {
        identity: &two,
        ..lookup()
    };
    let deadline = Instant::now() + Duration::from_secs(500);
    let (served, ()) = tokio::join!(world.broker.get(other, deadline), async {
        sleep(Duration::from_secs(20)).await;
        assert_eq!(
            world.script.lock().running,
            1,
            "the refresh was dropped, the first token was not"
        );
    });
    served.unwrap();
}
