//! Discovery: which groups, versions and resources there are, in the old form and in the aggregated one, and the small
//! OpenAPI documents that tell clients how fields are validated.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::resource::{Registry, Resource, VERBS};
use crate::status::ApiError;

/// The version of Kubernetes whose API this is, as far as it goes.
const MAJOR: &str = "1";
const MINOR: &str = "37";
const VERSION: &str = "v1.37.0+podid";

/// Kinds that are only asked, never stored: group, version, plural, kind.
pub(crate) const REVIEWS: [(&str, &str, &str, &str); 6] = [
    (
        "authentication.k8s.io",
        "v1",
        "selfsubjectreviews",
        "SelfSubjectReview",
    ),
    ("authentication.k8s.io", "v1", "tokenreviews", "TokenReview"),
    (
        "authorization.k8s.io",
        "v1",
        "selfsubjectaccessreviews",
        "SelfSubjectAccessReview",
    ),
    (
        "authorization.k8s.io",
        "v1",
        "selfsubjectrulesreviews",
        "SelfSubjectRulesReview",
    ),
    (
        "authorization.k8s.io",
        "v1",
        "subjectaccessreviews",
        "SubjectAccessReview",
    ),
    (
        "authorization.k8s.io",
        "v1",
        "localsubjectaccessreviews",
        "LocalSubjectAccessReview",
    ),
];

/// `/version`.
pub(crate) fn version() -> Value {
    // Go's names.
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "major": MAJOR,
        "minor": MINOR,
        "gitVersion": VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "2026-11-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{architecture}", std::env::consts::OS),
    })
}

/// Group → its versions, the preferred one first.
fn groups(registry: &Registry) -> BTreeMap<String, Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let stored = registry
        .all()
        .map(|one| (one.group.as_str(), one.version.as_str()));
    for (group, version) in stored.chain(REVIEWS.iter().map(|one| (one.0, one.1))) {
        let versions = groups.entry(group.to_owned()).or_default();
        if !versions.iter().any(|one| one == version) {
            versions.push(version.to_owned());
        }
    }
    for versions in groups.values_mut() {
        versions.sort_by_key(|version| std::cmp::Reverse(rank(version)));
    }
    groups
}

/// `v2` before `v1` before `v1beta1` before `v1alpha1`, as Kubernetes orders versions.
fn rank(version: &str) -> (u8, u64, u64) {
    let digits = |text: &str| text.parse().unwrap_or_default();
    let rest = version.trim_start_matches('v');
    if let Some((major, minor)) = rest.split_once("beta") {
        (1, digits(major), digits(minor))
    } else if let Some((major, minor)) = rest.split_once("alpha") {
        (0, digits(major), digits(minor))
    } else {
        (2, digits(rest), 0)
    }
}

/// `/api`.
pub(crate) fn core_versions(host: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": host }],
    })
}

/// `/apis`.
pub(crate) fn group_list(registry: &Registry) -> Value {
    let groups: Vec<Value> = groups(registry)
        .iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| group_entry(group, versions))
        .collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `/apis/<group>`.
pub(crate) fn group(registry: &Registry, name: &str) -> Result<Value, ApiError> {
    let groups = groups(registry);
    let versions = groups.get(name).ok_or_else(ApiError::no_such_api)?;
    let mut entry = group_entry(name, versions);
    crate::json::set(&mut entry, &["kind"], "APIGroup");
    crate::json::set(&mut entry, &["apiVersion"], "v1");
    Ok(entry)
}

fn group_entry(group: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({ "groupVersion": format!("{group}/{version}"), "version": version }))
        .collect();
    json!({ "name": group, "versions": versions, "preferredVersion": versions.first() })
}

/// Kind and group of what a subresource takes, and its verbs.
fn subresource(name: &str) -> (&'static str, &'static str, &'static str, &'static [&'static str]) {
    match name {
        "log" => ("", "", "", &["get"]),
        "binding" => ("", "v1", "Binding", &["create"]),
        "eviction" => ("policy", "v1", "Eviction", &["create"]),
        "token" => ("authentication.k8s.io", "v1", "TokenRequest", &["create"]),
        "finalize" => ("", "", "", &["update"]),
        _ => ("", "", "", &["get", "patch", "update"]),
    }
}

/// `/api/v1` and `/apis/<group>/<version>`.
pub(crate) fn resource_list(registry: &Registry, group: &str, version: &str) -> Result<Value, ApiError> {
    let mut resources = Vec::new();
    for resource in registry
        .all()
        .filter(|one| one.group == group && one.version == version)
    {
        let mut entry = json!({
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": VERBS,
        });
        if !resource.short_names.is_empty() {
            crate::json::set(&mut entry, &["shortNames"], resource.short_names.clone());
        }
        if !resource.categories.is_empty() {
            crate::json::set(&mut entry, &["categories"], resource.categories.clone());
        }
        crate::json::set(&mut entry, &["storageVersionHash"], "");
        resources.push(entry);
        for name in &resource.subresources {
            let (group, version, kind, verbs) = subresource(name);
            let mut entry = json!({
                "name": format!("{}/{name}", resource.plural),
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": if kind.is_empty() { resource.kind.as_str() } else { kind },
                "verbs": verbs,
            });
            if !kind.is_empty() {
                crate::json::set(&mut entry, &["group"], group);
                crate::json::set(&mut entry, &["version"], version);
            }
            resources.push(entry);
        }
    }
    for (_, _, plural, kind) in REVIEWS.iter().filter(|one| one.0 == group && one.1 == version) {
        resources.push(json!({
            "name": plural,
            "singularName": kind.to_lowercase(),
            "namespaced": plural.starts_with("local"),
            "kind": kind,
            "verbs": ["create"],
        }));
    }
    if resources.is_empty() {
        // The core group is always there, whatever its version.
        return Err(if group.is_empty() {
            ApiError::no_route()
        } else {
            ApiError::no_such_api()
        });
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    Ok(
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources }),
    )
}

/// `/api` and `/apis` in the aggregated form (`apidiscovery.k8s.io/v2`).
pub(crate) fn aggregated(registry: &Registry, core: bool) -> Value {
    let items: Vec<Value> = groups(registry)
        .iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let resources = registry
                        .all()
                        .filter(|one| one.group == *group && one.version == *version);
                    let mut resources: Vec<Value> = resources.map(|one| aggregated_resource(one)).collect();
                    let reviews = REVIEWS.iter().filter(|one| one.0 == group && one.1 == version);
                    resources.extend(reviews.map(|(group, version, plural, kind)| {
                        json!({
                            "resource": plural,
                            "responseKind": { "group": group, "version": version, "kind": kind },
                            "scope": if plural.starts_with("local") { "Namespaced" } else { "Cluster" },
                            "singularResource": kind.to_lowercase(),
                            "verbs": ["create"],
                        })
                    }));
                    json!({ "version": version, "resources": resources, "freshness": "Current" })
                })
                .collect();
            json!({ "metadata": { "name": group, "creationTimestamp": null }, "versions": versions })
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(resource: &Resource) -> Value {
    let subresources: Vec<Value> = resource
        .subresources
        .iter()
        .map(|name| {
            let (group, version, kind, verbs) = subresource(name);
            let response = if kind.is_empty() {
                json!({ "group": resource.group, "version": resource.version, "kind": resource.kind })
            } else {
                json!({ "group": group, "version": version, "kind": kind })
            };
            json!({ "subresource": name, "responseKind": response, "verbs": verbs })
        })
        .collect();
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": { "group": resource.group, "version": resource.version, "kind": resource.kind },
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": VERBS,
    });
    for (field, names) in [
        ("shortNames", &resource.short_names),
        ("categories", &resource.categories),
    ] {
        if !names.is_empty() {
            crate::json::set(&mut entry, &[field], names.clone());
        }
    }
    if !subresources.is_empty() {
        crate::json::set(&mut entry, &["subresources"], subresources);
    }
    entry
}

/// `/openapi/v3`: a document for each group and version.
pub(crate) fn openapi_index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for (group, versions) in groups(registry) {
        for version in versions {
            let path = if group.is_empty() {
                format!("api/{version}")
            } else {
                format!("apis/{group}/{version}")
            };
            let url = format!("/openapi/v3/{path}");
            paths.insert(path, json!({ "serverRelativeURL": url }));
        }
    }
    json!({ "paths": paths })
}

/// `/openapi/v3/<group and version>`: just the paths of patches. `kubectl` reads there that the server validates fields.
pub(crate) fn openapi(registry: &Registry, group: &str, version: &str) -> Result<Value, ApiError> {
    let prefix = if group.is_empty() {
        format!("/api/{version}")
    } else {
        format!("/apis/{group}/{version}")
    };
    let known = groups(registry)
        .get(group)
        .is_some_and(|versions| versions.iter().any(|one| one == version));
    if !known {
        return Err(ApiError::no_route());
    }
    let mut paths = Map::new();
    for resource in registry
        .all()
        .filter(|one| one.group == group && one.version == version)
    {
        let scope = if resource.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let path = format!("{prefix}{scope}/{}/{{name}}", resource.plural);
        let parameter = |name: &str| json!({ "name": name, "in": "query", "schema": { "type": "string", "uniqueItems": true } });
        paths.insert(
            path,
            json!({ "patch": {
                "operationId": format!("patch{}", resource.kind),
                "parameters": [parameter("dryRun"), parameter("fieldManager"), parameter("fieldValidation"), parameter("force")],
                "responses": { "200": { "description": "OK" } },
                "x-kubernetes-action": "patch",
                "x-kubernetes-group-version-kind": {
                    "group": resource.group, "version": resource.version, "kind": resource.kind,
                },
            } }),
        );
    }
    Ok(json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": VERSION },
        "paths": paths,
        "components": { "schemas": {} },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_versions_come_first() {
        let mut versions = ["v1alpha1", "v1", "v2beta1", "v2"];
        versions.sort_by_key(|version| std::cmp::Reverse(rank(version)));
        assert_eq!(versions, ["v2", "v1", "v2beta1", "v1alpha1"]);
    }
}
