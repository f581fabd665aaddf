//! The whole table of the start-up taint.

use super::*;

const KEY: &str = DEFAULT_KEY;

fn taint(key: &str) -> Taint {
    Taint {
        key: key.to_owned(),
        effect: EFFECT.to_owned(),
        ..Taint::default()
    }
}

fn note(boot: &str, container: &str) -> Note {
    Note {
        boot: boot.to_owned(),
        container: container.to_owned(),
    }
}

/// A node of boot `b2`.
fn node(taints: &[&str], noted: Option<Note>) -> Seen {
    Seen {
        taints: taints.iter().map(|key| taint(key)).collect(),
        boot: "b2".to_owned(),
        begun: noted.is_none() && taints.contains(&NOT_READY) && !taints.contains(&KEY),
        noted: noted.is_some(),
        note: noted,
        has_agents: true,
    }
}

#[test]
fn a_node_is_closed_until_its_agent_serves_and_only_then() {
    let (c1, c2) = (Some("c1"), Some("c2"));
    let open = |container| Some(Change::Open(note("b2", container)));
    let remember = |container| Some(Change::Remember(note("b2", container)));
    let same = || Some(note("b2", "c1"));
    let before_reboot = || Some(note("b1", "c1"));
    for (what, taints, noted, ready, expected) in [
        ("it begins", &[NOT_READY][..], None, None, Some(Change::Close)),
        ("it waits", &[NOT_READY, KEY], None, None, None),
        ("it waits and is Ready itself", &[KEY], None, None, None),
        ("its agent serves", &[KEY], None, c1, open("c1")),
        ("it never waited: podid came later", &[], None, None, None),
        ("podid came later and serves", &[], None, c1, remember("c1")),
        ("nothing happens", &[], same(), c1, None),
        ("its agent is being replaced", &[], same(), None, None),
        ("its agent was replaced", &[], same(), c2, remember("c2")),
        ("its kubelet was away", &[NOT_READY], same(), None, None),
        ("it was rebooted", &[], before_reboot(), None, Some(Change::Close)),
        (
            "it was rebooted, and the kubelet still tells of the agent that was",
            &[],
            before_reboot(),
            c1,
            Some(Change::Close),
        ),
        ("the same, and it waits", &[KEY], before_reboot(), c1, None),
        (
            "its agent serves after the reboot",
            &[KEY],
            before_reboot(),
            c2,
            open("c2"),
        ),
        (
            "it serves again before anybody looked",
            &[],
            before_reboot(),
            c2,
            remember("c2"),
        ),
    ] {
        assert_eq!(decide(&node(taints, noted), ready, KEY), expected, "{what}");
    }
}

#[test]
fn a_node_that_is_ready_before_it_can_be_closed_is_closed_all_the_same_and_only_once() {
    use podid_rt::watch::Index as _;

    let view = View::new();
    let mut nodes = Nodes {
        view: view.clone(),
        selector: Labels::default(),
        key: KEY.to_owned(),
    };
    let mut seen = |keys: &[&str]| {
        let taints: Vec<Taint> = keys.iter().map(|key| taint(key)).collect();
        let node = json!({ "metadata": { "name": "one" }, "spec": { "taints": taints } });
        nodes.apply(serde_json::from_value(node).unwrap());
        let candidates = view.candidates();
        candidates.first().and_then(|one| decide(&one.seen, None, KEY))
    };
    assert_eq!(seen(&[NOT_READY]), Some(Change::Close));
    assert_eq!(seen(&[]), Some(Change::Close));
    assert_eq!(seen(&[KEY]), None);
    // By hand.
    assert_eq!(seen(&[]), None);
}

#[test]
fn a_node_without_agents_is_left_alone() {
    let mut windows = node(&[NOT_READY], None);
    windows.has_agents = false;
    assert_eq!(decide(&windows, None, KEY), None);
}

#[test]
fn a_boot_that_is_not_known_yet_is_no_reboot() {
    let mut young = node(&[], Some(note("b1", "c1")));
    young.boot = String::new();
    assert_eq!(decide(&young, None, KEY), None);
}

#[test]
fn closing_needs_no_version_and_everything_else_names_the_one_it_was_made_from() {
    let ours = json!({ "key": KEY, "effect": EFFECT });
    let close = |taints: &[&str]| patch(&node(taints, None), "7", &Change::Close, KEY);
    assert_eq!(
        close(&[NOT_READY]),
        Asked::Json(json!([{ "op": "add", "path": "/spec/taints/-", "value": ours }]))
    );
    assert_eq!(
        close(&[]),
        Asked::Json(json!([
            { "op": "test", "path": "/spec/taints", "value": null },
            { "op": "add", "path": "/spec/taints", "value": [ours] },
        ]))
    );

    let seen = node(&[NOT_READY, KEY], None);
    let open = patch(&seen, "8", &Change::Open(note("b2", "c1")), KEY);
    let expected = json!({
        "metadata": { "resourceVersion": "8", "annotations": { AGENT_READY_ANNOTATION: "b2 c1" } },
        "spec": { "taints": [taint(NOT_READY)] },
    });
    assert_eq!(open, Asked::Merge(expected));
    let remember = patch(&seen, "8", &Change::Remember(note("b2", "c1")), KEY);
    let expected = json!({
        "metadata": { "resourceVersion": "8", "annotations": { AGENT_READY_ANNOTATION: "b2 c1" } },
    });
    assert_eq!(remember, Asked::Merge(expected));
}

#[test]
fn what_was_put_on_is_taken_off_and_nothing_else() {
    assert_eq!(clear(&node(&[NOT_READY], None), KEY), None);
    let seen = node(&[NOT_READY, KEY], Some(note("b2", "c1")));
    let change = clear(&seen, KEY).unwrap();
    let expected = json!({
        "metadata": { "resourceVersion": "9", "annotations": { AGENT_READY_ANNOTATION: null } },
        "spec": { "taints": [taint(NOT_READY)] },
    });
    assert_eq!(patch(&seen, "9", &change, KEY), Asked::Merge(expected));
}

#[test]
fn labels_are_pairs() {
    let labels: Labels = "kubernetes.io/os=linux,pool=".parse().unwrap();
    let of = |pairs: &[(&str, &str)]| pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
    assert!(labels.match_all(&of(&[("kubernetes.io/os", "linux"), ("pool", ""), ("more", "x")])));
    assert!(!labels.match_all(&of(&[("kubernetes.io/os", "linux")])));
    assert!(Labels::default().match_all(&of(&[])));
    assert_eq!("linux".parse::<Labels>(), Err(LabelsError("linux".to_owned())));
}
