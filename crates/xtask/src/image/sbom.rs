//! What is in a program: its packages, their versions, licences and checksums, as CycloneDX 1.5. No time and no random
//! number is in it, so the same sources give the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use cargo_metadata::{DependencyKind, MetadataCommand, Package, PackageId};
use serde_json::{Value, json};

/// The list for the program of `package` on `target`.
pub(super) fn of(root: &Path, package: &str, target: &str) -> anyhow::Result<Vec<u8>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .other_options(vec!["--locked".to_owned(), format!("--filter-platform={target}")])
        .exec()
        .context("ask cargo for the packages")?;
    let packages: BTreeMap<&PackageId, &Package> = metadata.packages.iter().map(|p| (&p.id, p)).collect();
    let resolve = metadata.resolve.as_ref().context("cargo resolved nothing")?;
    let top = metadata
        .packages
        .iter()
        .find(|p| p.name.as_str() == package)
        .with_context(|| format!("there is no package {package}"))?;

    let edges: BTreeMap<&PackageId, Vec<&PackageId>> = resolve
        .nodes
        .iter()
        .map(|node| {
            let linked = node
                .deps
                .iter()
                .filter(|d| d.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal));
            (&node.id, linked.map(|d| &d.pkg).collect())
        })
        .collect();
    let mut reached: BTreeSet<&PackageId> = BTreeSet::new();
    let mut open = vec![&top.id];
    while let Some(id) = open.pop() {
        if reached.insert(id) {
            open.extend(edges.get(id).into_iter().flatten().copied());
        }
    }
    let reference = |id: &PackageId| packages.get(id).map(|p| purl(p)).unwrap_or_default();
    let mut components: Vec<&Package> = reached
        .iter()
        .filter(|&&id| id != &top.id)
        .filter_map(|id| packages.get(id).copied())
        .collect();
    components.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    let mut dependencies: Vec<Value> = reached
        .iter()
        .map(|&id| {
            let mut on: Vec<String> = edges
                .get(id)
                .into_iter()
                .flatten()
                .map(|&to| reference(to))
                .collect();
            on.sort();
            json!({ "ref": reference(id), "dependsOn": on })
        })
        .collect();
    dependencies.sort_by_key(|one| one["ref"].to_string());
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": component(top, "application") },
        "components": components.iter().map(|p| component(p, "library")).collect::<Vec<_>>(),
        "dependencies": dependencies,
    });
    serde_json::to_vec_pretty(&document).context("write the list")
}

fn component(package: &Package, kind: &str) -> Value {
    let mut component = json!({
        "type": kind,
        "bom-ref": purl(package),
        "name": package.name,
        "version": package.version,
        "purl": purl(package),
    });
    if let (Some(licence), Some(object)) = (&package.license, component.as_object_mut()) {
        // An SPDX expression; the old way of writing one has a slash.
        let expression = licence.replace('/', " OR ");
        object.insert("licenses".to_owned(), json!([{ "expression": expression }]));
    }
    component
}

/// A package URL (github.com/package-url/purl-spec).
fn purl(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_what_is_linked_and_not_what_only_tests_use() {
        let root = crate::root().unwrap();
        let bytes = of(&root, "podid-nmi", "x86_64-unknown-linux-gnu").unwrap();
        let list: Value = serde_json::from_slice(&bytes).unwrap();
        let names: Vec<&str> = list["components"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|c| c["name"].as_str())
            .collect();
        assert!(
            names.contains(&"tokio") && names.contains(&"podid-core"),
            "{names:?}"
        );
        assert!(
            !names.contains(&"podid-testkit") && !names.contains(&"podid-azure-emulator"),
            "{names:?}"
        );
        assert_eq!(bytes, of(&root, "podid-nmi", "x86_64-unknown-linux-gnu").unwrap());
    }
}
