//! Looking at the cluster until something is there, is gone, or was said.

use futures::AsyncBufReadExt;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use super::cast::{Cast, SOON};
use super::pods::LOOK_AGAIN;
use crate::failure::{Failure, chain};

/// Follows a pod's log until it has said all that is expected, in this order.
pub(crate) async fn follow(
    cast: &Cast,
    namespace: &str,
    name: &str,
    expected: &[String],
) -> Result<Vec<String>, Failure> {
    let api = Api::<Pod>::namespaced(cast.pods.client.clone(), namespace);
    let end = Instant::now() + SOON;
    let params = LogParams {
        follow: true,
        ..LogParams::default()
    };
    // A pod without a node has an empty log, as in a real cluster.
    let placed = |pod: Option<&Pod>| {
        pod.and_then(|pod| pod.spec.as_ref()?.node_name.as_deref())
            .is_some_and(|node| !node.is_empty())
    };
    match timeout(SOON, Box::pin(await_condition(api.clone(), name, placed))).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(Failure::said(chain(&error))),
        Err(_late) => {
            return Err(Failure::mismatch(
                "a node for the pod",
                cast.pods.trouble(namespace, name).await,
            ));
        }
    }
    let stream = loop {
        match api.log_stream(name, &params).await {
            Ok(stream) => break stream,
            // The container has not begun yet.
            Err(kube::Error::Api(status)) if status.code == 400 && Instant::now() < end => {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Err(kube::Error::Api(status)) => {
                return Err(Failure::said(format!(
                    "{}{}",
                    status.message,
                    cast.pods.trouble(namespace, name).await
                )));
            }
            Err(error) => return Err(error.into()),
        }
    };
    let mut lines = stream.lines();
    let mut found = Vec::new();
    let mut other = Vec::new();
    let read = async {
        while let Some(Ok(line)) = lines.next().await {
            if expected.get(found.len()) == Some(&line) {
                found.push(line);
            } else {
                other.push(line);
            }
            if found.len() == expected.len() {
                return;
            }
        }
    };
    let _in_time = timeout(SOON, read).await;
    match expected.get(found.len()) {
        None => Ok(found),
        Some(missing) => {
            let said = other
                .iter()
                .rev()
                .take(3)
                .rev()
                .cloned()
                .collect::<Vec<_>>()
                .join(" | ");
            Err(Failure::mismatch(
                missing,
                format!("{said}{}", cast.pods.trouble(namespace, name).await),
            ))
        }
    }
}

/// Waits until an object is there.
pub(crate) async fn appears<K>(cast: &Cast, namespace: &str, name: &str) -> Result<K, Failure>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let api = Api::<K>::namespaced(cast.pods.client.clone(), namespace);
    let end = Instant::now() + SOON;
    loop {
        if let Some(found) = api.get_opt(name).await? {
            return Ok(found);
        }
        if Instant::now() >= end {
            return Err(Failure::mismatch(
                format!("{} {namespace}/{name}", K::kind(&())),
                "none",
            ));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Waits until an object is gone.
pub(crate) async fn disappears<K>(cast: &Cast, namespace: &str, name: &str) -> Result<(), Failure>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let api = Api::<K>::namespaced(cast.pods.client.clone(), namespace);
    let end = Instant::now() + SOON;
    while api.get_opt(name).await?.is_some() {
        if Instant::now() >= end {
            return Err(Failure::mismatch(
                format!("no {} {namespace}/{name}", K::kind(&())),
                "it is still there",
            ));
        }
        tokio::time::sleep(LOOK_AGAIN / 4).await;
    }
    Ok(())
}

/// Names of the objects in a namespace, or everywhere.
pub(crate) async fn list<K>(cast: &Cast, namespace: &str) -> Result<Vec<String>, Failure>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let client = cast.pods.client.clone();
    let api = if namespace.is_empty() {
        Api::<K>::all(client)
    } else {
        Api::<K>::namespaced(client, namespace)
    };
    let found = api.list(&ListParams::default()).await?;
    Ok(found
        .items
        .iter()
        .filter_map(|item| item.meta().name.clone())
        .collect())
}
