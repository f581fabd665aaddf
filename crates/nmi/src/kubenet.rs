//! The refusal of kubenet, where pods share a bridge and one with NET_RAW can send from another's address. The rule is the
//! original's: a marker in the kubelet's file. Source: aad-pod-identity v1.8.17, `pkg/nmi`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::args::Attestation;

/// What the kubelet's file has where kubenet is used.
const MARKER: &str = "--network-plugin=kubenet";
/// Where that file is on AKS nodes.
const USUAL_FILE: &str = "/etc/default/kubelet";
/// What keeps pods from forging addresses.
const MITIGATION: &str = "keep NET_RAW from pods by the chart's netRaw.policy, or by deploy/policies/drop-net-raw.yaml \
                          (deploy/policies/drop-net-raw.gatekeeper.yaml for Gatekeeper)";

/// Why the agent does not start.
#[derive(Debug, Error)]
pub(crate) enum KubenetError {
    /// Kubenet, and nobody said that this is wanted.
    #[error(
        "this node uses kubenet ({MARKER} in {}), where a pod with NET_RAW can send from another pod's address: use Azure \
         CNI, or give --allow-network-plugin-kubenet and {MITIGATION}",
        .0.display()
    )]
    Refused(PathBuf),
    /// It cannot be known.
    #[error(
        "whether this node uses kubenet cannot be read from {}: mount that file, name another with --kubelet-config, or \
         give --allow-network-plugin-kubenet",
        .path.display()
    )]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Refuses kubenet unless it is `allowed`, and then says what to look out for.
pub(crate) fn check(
    file: Option<&Path>,
    allowed: bool,
    attestation: Attestation,
) -> Result<(), KubenetError> {
    if allowed {
        tracing::warn!("{}", warning(attestation));
        return Ok(());
    }
    let path = file.unwrap_or_else(|| Path::new(USUAL_FILE));
    match std::fs::read(path) {
        Ok(text) if String::from_utf8_lossy(&text).contains(MARKER) => {
            Err(KubenetError::Refused(path.to_owned()))
        }
        Ok(_) => Ok(()),
        // Nodes of other kinds have no such file; the original's manifests made an empty one.
        Err(error) if error.kind() == ErrorKind::NotFound && file.is_none() => Ok(()),
        Err(source) => Err(KubenetError::Unreadable {
            path: path.to_owned(),
            source,
        }),
    }
}

fn warning(attestation: Attestation) -> String {
    let then = match attestation {
        Attestation::Enforce => {
            "it gets no token by that, because --attestation=enforce asks the kernel whether the connection's socket is in \
             the network namespace of the pod that has the address; what else trusts addresses is not protected, so"
        }
        Attestation::Audit => {
            "and it then GETS THAT POD'S TOKENS, because --attestation=audit only counts; use --attestation=enforce, and"
        }
        Attestation::Off => {
            "and it then GETS THAT POD'S TOKENS, because --attestation=off trusts addresses; use --attestation=enforce, and"
        }
    };
    format!("kubenet is allowed: a pod with NET_RAW can send from another pod's address; {then} {MITIGATION}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn kubenet_is_refused_with_the_fix_and_allowed_with_the_flag() {
        let kubenet = file("KUBELET_FLAGS=--cloud-provider=azure --network-plugin=kubenet --v=2\n");
        let text = check(Some(kubenet.path()), false, Attestation::Enforce)
            .unwrap_err()
            .to_string();
        for part in [
            "kubenet",
            "--allow-network-plugin-kubenet",
            "NET_RAW",
            "netRaw.policy",
            &kubenet.path().display().to_string(),
        ] {
            assert!(text.contains(part), "{text}");
        }
        check(Some(kubenet.path()), true, Attestation::Enforce).unwrap();
        let azure = file("KUBELET_FLAGS=--network-plugin=cni\n");
        check(Some(azure.path()), false, Attestation::Off).unwrap();
    }

    #[test]
    fn a_file_that_was_named_must_be_there_and_with_the_flag_it_is_not_read() {
        let missing = Path::new("/nowhere/kubelet");
        let text = check(Some(missing), false, Attestation::Enforce)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("/nowhere/kubelet") && text.contains("--kubelet-config"),
            "{text}"
        );
        check(Some(missing), true, Attestation::Off).unwrap();
    }

    #[test]
    fn the_warning_says_whether_it_is_safe_and_what_to_do() {
        let safe = warning(Attestation::Enforce);
        assert!(
            safe.contains("gets no token") && safe.contains("network namespace"),
            "{safe}"
        );
        for mode in [Attestation::Audit, Attestation::Off] {
            let text = warning(mode);
            assert!(
                text.contains("GETS THAT POD'S TOKENS") && text.contains("--attestation=enforce"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_policies_that_the_texts_point_to_are_there_and_say_what_the_charts_do() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
        let chart = read("deploy/helm/podid/templates/net-raw.yaml");
        let between = |text: &str, from: &str, to: &str| {
            let (_, rest) = text.split_once(from).unwrap();
            rest.split_once(to).unwrap().0.to_owned()
        };
        for (file, from, to) in [
            ("deploy/policies/drop-net-raw.yaml", "  failurePolicy:", "\n---"),
            (
                "deploy/policies/drop-net-raw.gatekeeper.yaml",
                "    kinds:",
                "    excluded",
            ),
        ] {
            assert!(MITIGATION.contains(file));
            assert_eq!(
                between(&read(file), from, to),
                between(&chart, from, to),
                "{file}"
            );
        }
    }
}
