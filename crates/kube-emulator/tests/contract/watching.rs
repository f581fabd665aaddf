//! Lists and watches: selectors, pages, events from a version on, bookmarks.

use std::time::Duration;

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use http::Request;
use serde_json::{Value, json};

use crate::world::World;

/// The events of a watch, one after the other.
struct Events(futures::stream::BoxStream<'static, Value>);

impl Events {
    async fn open(world: &World, query: &str) -> Self {
        let uri = format!("{}?watch=true&{query}", world.core("configmaps"));
        let request = Request::get(uri).body(Vec::<u8>::new()).unwrap();
        let lines = world.client.request_stream(request).await.unwrap().lines();
        let events = lines
            .map_err(std::io::Error::other)
            .map(|line| serde_json::from_str(&line.unwrap()).unwrap());
        Self(events.boxed())
    }

    async fn next(&mut self) -> (String, String) {
        let event = self.any().await.expect("the watch goes on");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }

    async fn any(&mut self) -> Option<Value> {
        tokio::time::timeout(podid_testkit::PATIENCE, self.0.next())
            .await
            .unwrap()
    }
}

fn event(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

async fn version(world: &World) -> String {
    let list = world.get(&world.core("configmaps")).await.expect(200);
    list["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_list_selects_by_labels_and_fields() {
    let world = World::new().await;
    for (name, tier) in [("a", "x"), ("b", "y")] {
        let body = json!({ "metadata": { "name": name, "labels": { "tier": tier } } });
        world.post(&world.core("configmaps"), &body).await.expect(201);
    }
    let names = async |query: &str| {
        let list = world
            .get(&format!("{}?{query}", world.core("configmaps")))
            .await
            .expect(200);
        let items = list["items"].as_array().unwrap().clone();
        items
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("labelSelector=tier%3Dx").await, ["a"]);
    assert_eq!(
        names("labelSelector=tier+in+(x,y)&fieldSelector=metadata.name!%3Da").await,
        ["b"]
    );
    let (_, message) = world
        .get(&format!("{}?fieldSelector=data.x%3D1", world.core("configmaps")))
        .await
        .refused(400);
    assert!(message.contains("not a known field selector"), "{message}");
}

#[tokio::test]
async fn pages_add_up_to_the_whole_list() {
    let world = World::new().await;
    for name in ["a", "b", "c"] {
        world
            .post(&world.core("secrets"), &json!({ "metadata": { "name": name } }))
            .await
            .expect(201);
    }
    let first = world
        .get(&format!("{}?limit=2", world.core("secrets")))
        .await
        .expect(200);
    assert_eq!(first["items"].as_array().unwrap().len(), 2);
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let rest = world
        .get(&format!("{}?limit=2&continue={token}", world.core("secrets")))
        .await
        .expect(200);
    assert_eq!(rest["items"][0]["metadata"]["name"], "c");
    assert_eq!(rest["metadata"]["continue"], Value::Null);
}

#[tokio::test]
async fn a_watch_tells_everything_after_its_version_and_nothing_before() {
    let world = World::new().await;
    world.config_map("before", json!({})).await;
    let from = version(&world).await;
    world.config_map("a", json!({})).await;
    let mut events = Events::open(&world, &format!("resourceVersion={from}")).await;
    assert_eq!(events.next().await, event("ADDED", "a"));
    world
        .patch(
            &world.core("configmaps/a"),
            "merge",
            &json!({ "data": { "k": "v" } }),
        )
        .await
        .expect(200);
    assert_eq!(events.next().await, event("MODIFIED", "a"));
    world
        .delete(&world.core("configmaps/before"), &json!({}))
        .await
        .expect(200);
    assert_eq!(events.next().await, event("DELETED", "before"));
}

#[tokio::test]
async fn a_watch_without_a_version_begins_with_what_is_there() {
    let world = World::new().await;
    world.config_map("a", json!({})).await;
    let mut events = Events::open(&world, "fieldSelector=metadata.name%3Da").await;
    assert_eq!(events.next().await, event("ADDED", "a"));
}

#[tokio::test]
async fn an_object_that_begins_or_ends_to_match_appears_and_disappears() {
    let world = World::new().await;
    let path = world.core("configmaps/a");
    let from = version(&world).await;
    let mut events = Events::open(&world, &format!("resourceVersion={from}&labelSelector=on")).await;
    world.config_map("a", json!({})).await;
    let on = world
        .patch(&path, "merge", &json!({ "metadata": { "labels": { "on": "" } } }))
        .await
        .expect(200);
    assert_eq!(events.next().await, event("ADDED", "a"));
    let off = world
        .patch(&path, "merge", &json!({ "metadata": { "labels": null } }))
        .await
        .expect(200);
    let gone = events.any().await.unwrap();
    assert_eq!(gone["type"], "DELETED");
    assert_eq!(gone["object"]["metadata"]["labels"], on["metadata"]["labels"]);
    assert_eq!(
        gone["object"]["metadata"]["resourceVersion"],
        off["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn a_streamed_list_ends_with_a_bookmark_that_says_so() {
    let world = World::new().await;
    world.config_map("a", json!({})).await;
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true\
                 &fieldSelector=metadata.name%3Da";
    let mut events = Events::open(&world, query).await;
    assert_eq!(events.next().await, event("ADDED", "a"));
    let bookmark = events.any().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    let from = bookmark["object"]["metadata"]["resourceVersion"]
        .as_str()
        .unwrap();
    assert!(!from.is_empty());
    world
        .get(&format!(
            "{}?watch=true&sendInitialEvents=true",
            world.core("configmaps")
        ))
        .await
        .refused(422);
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_over() {
    let world = World::new().await;
    let from = version(&world).await;
    let mut events = Events::open(&world, &format!("resourceVersion={from}&timeoutSeconds=1")).await;
    assert_eq!(events.any().await, None);
}

#[tokio::test]
async fn a_version_that_never_was_is_refused() {
    let world = World::new().await;
    let path = format!("{}?resourceVersion=99999999999", world.core("configmaps"));
    let (reason, message) = world.get(&path).await.refused(504);
    assert_eq!(reason, "Timeout");
    assert!(
        message.starts_with("Timeout: Too large resource version: 99999999999, current: "),
        "{message}"
    );
}

#[tokio::test]
async fn kube_follows_by_list_and_by_stream() {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::watcher::{self, Event};

    let world = World::new().await;
    for name in ["a", "b", "c"] {
        world.config_map(name, json!({})).await;
    }
    let plain = watcher::Config::default().page_size(2);
    for config in [plain, watcher::Config::default().streaming_lists()] {
        let api = kube::Api::<ConfigMap>::namespaced(world.client.clone(), &world.namespace);
        let mut events = watcher::watcher(api, config.fields("metadata.name!=kube-root-ca.crt")).boxed();
        let mut seen = Vec::new();
        loop {
            match tokio::time::timeout(Duration::from_secs(30), events.next())
                .await
                .unwrap()
                .unwrap()
                .unwrap()
            {
                Event::InitApply(map) => seen.push(map.metadata.name.unwrap()),
                Event::InitDone => break,
                _ => {}
            }
        }
        assert_eq!(seen, ["a", "b", "c"]);
        world
            .patch(
                &world.core("configmaps/b"),
                "merge",
                &json!({ "data": { "n": seen.len().to_string() } }),
            )
            .await;
        world
            .patch(&world.core("configmaps/b"), "merge", &json!({ "data": null }))
            .await
            .expect(200);
        let next = tokio::time::timeout(Duration::from_secs(30), events.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert!(matches!(next, Event::Apply(map) if map.metadata.name.as_deref() == Some("b")));
    }
}
