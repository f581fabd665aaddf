//! Tables and metadata alone, as `kubectl get` and metadata watches ask for them.

use serde_json::json;

use crate::world::World;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

#[tokio::test]
async fn pods_have_the_columns_that_people_know() {
    let world = World::new().await;
    let body =
        json!({ "metadata": { "name": "a" }, "spec": { "containers": [{ "name": "m", "image": "i" }] } });
    world.post(&world.core("pods"), &body).await.expect(201);
    let table = world.get_as(&world.core("pods"), TABLE).await.expect(200);
    assert_eq!(table["kind"], "Table");
    let columns: Vec<(&str, i64)> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| {
            (
                column["name"].as_str().unwrap(),
                column["priority"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        columns,
        [
            ("Name", 0),
            ("Ready", 0),
            ("Status", 0),
            ("Restarts", 0),
            ("Age", 0),
            ("IP", 1),
            ("Node", 1),
            ("Nominated Node", 1),
            ("Readiness Gates", 1)
        ]
    );
    let row = &table["rows"][0];
    assert_eq!(row["cells"][0], "a");
    assert_eq!(row["cells"][1], "0/1");
    assert_eq!(row["cells"][2], "Pending");
    assert_eq!(row["object"]["kind"], "PartialObjectMetadata");

    let status = json!({ "status": { "phase": "Running", "podIP": "10.0.0.9", "containerStatuses": [{
        "name": "m", "ready": true, "restartCount": 2, "image": "i", "imageID": "i", "started": true,
        "state": { "running": { "startedAt": "2026-11-25T00:00:00Z" } },
    }] } });
    world
        .patch(&world.core("pods/a/status"), "merge", &status)
        .await
        .expect(200);
    let table = world.get_as(&world.core("pods/a"), TABLE).await.expect(200);
    let cells = &table["rows"][0]["cells"];
    assert_eq!(
        (&cells[1], &cells[2], &cells[3], &cells[5]),
        (&json!("1/1"), &json!("Running"), &json!("2"), &json!("10.0.0.9"))
    );
}

#[tokio::test]
async fn metadata_can_be_had_alone() {
    let world = World::new().await;
    world.config_map("a", json!({ "k": "v" })).await;
    let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = world.get_as(&world.core("configmaps"), accept).await.expect(200);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert!(
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|item| item["data"].is_null())
    );
    let accept = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let one = world
        .get_as(&world.core("configmaps/a"), accept)
        .await
        .expect(200);
    assert_eq!(
        (&one["kind"], &one["metadata"]["name"]),
        (&json!("PartialObjectMetadata"), &json!("a"))
    );
}

#[tokio::test]
async fn what_cannot_be_spoken_is_not_acceptable() {
    let world = World::new().await;
    let (reason, _) = world
        .get_as("/api/v1/namespaces", "text/plain")
        .await
        .refused(406);
    assert_eq!(reason, "NotAcceptable");
}
