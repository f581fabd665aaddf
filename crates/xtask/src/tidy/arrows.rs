//! Which crate may depend on which: the table of ARCHITECTURE.md, checked against `cargo metadata`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use cargo_metadata::{DependencyKind, MetadataCommand};

/// Package → the podid packages that its shipped code may depend on. Dev-dependencies are free: tests may use the
/// emulators and the testkit.
const MAY: &[(&str, &[&str])] = &[
    ("podid-core", &[]),
    ("podid-api", &["podid-core"]),
    ("podid-rt", &[]),
    ("podid-azure", &["podid-core"]),
    ("podid-broker", &["podid-core"]),
    ("podid-kernel", &["podid-core"]),
    (
        "podid-nmi",
        &[
            "podid-core",
            "podid-api",
            "podid-rt",
            "podid-azure",
            "podid-broker",
            "podid-kernel",
        ],
    ),
    (
        "podid-controller",
        &["podid-core", "podid-api", "podid-rt", "podid-azure"],
    ),
    (
        "podid-cli",
        &["podid-core", "podid-api", "podid-azure", "podid-rt"],
    ),
    // The emulators share no type with the clients that they test: a wrong field name in a shared struct would pass
    // every test here and fail on Azure.
    ("podid-azure-emulator", &["podid-rt"]),
    ("podid-kube-emulator", &["podid-rt"]),
    ("podid-demo", &[]),
    ("podid-testkit", &[]),
];

/// May depend on everything but the testkit, which only `xtask` may: it is shipped to nobody.
const EVERYTHING: &[&str] = &["podid-sandbox", "xtask"];

/// One sentence for each arrow that is not in the table.
pub(super) fn findings(root: &Path) -> anyhow::Result<Vec<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .other_options(vec!["--offline".to_owned()])
        .exec()
        .context("ask cargo for the workspace's packages")?;
    let may: BTreeMap<&str, &[&str]> = MAY.iter().copied().collect();
    let mut findings = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        let ours = package
            .dependencies
            .iter()
            .filter(|d| d.kind != DependencyKind::Development && d.name.starts_with("podid-"));
        for dependency in ours {
            let to = dependency.name.as_str();
            if to == "podid-testkit" && name != "xtask" {
                findings.push(format!("{name} ships podid-testkit; make it a dev-dependency"));
            } else if !EVERYTHING.contains(&name)
                && !may.get(name).is_some_and(|allowed| allowed.contains(&to))
            {
                findings.push(format!(
                    "{name} may not depend on {to}; see the table in ARCHITECTURE.md"
                ));
            }
        }
        if !may.contains_key(name) && !EVERYTHING.contains(&name) {
            findings.push(format!("{name} has no row in the table of arrows"));
        }
    }
    Ok(findings)
}
