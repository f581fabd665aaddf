//! What clap takes and what comes of it.

use super::*;

#[test]
fn run_is_the_default_command() {
    let nmi = Nmi::try_parse_from(["podid-nmi", "--node", "n1", "--block-instance-metadata"]).unwrap();
    assert!(
        nmi.command.is_none() && nmi.run.node.as_deref() == Some("n1") && nmi.run.block_instance_metadata
    );
    let nmi = Nmi::try_parse_from(["podid-nmi", "run", "--node=n2", "--wait-timeout=5"]).unwrap();
    let Some(Command::Run(args)) = nmi.command else {
        panic!("{nmi:?}")
    };
    assert_eq!(
        (args.node.as_deref(), args.wait_timeout),
        (Some("n2"), Duration::from_secs(5))
    );
}

#[test]
fn the_originals_manifests_are_taken_and_what_means_nothing_is_said() {
    // The arguments of the original's managed-mode DaemonSet, and some that its chart can add.
    let nmi = Nmi::try_parse_from([
        "nmi",
        "--node=n1",
        "--http-probe-port=8085",
        "--enableScaleFeatures=true",
        "--metadata-header-required=true",
        "--operation-mode=Managed",
        "--forceNamespaced",
        "--block-instance-metadata=true",
        "--find-identity-retry-interval",
        "5",
        "--ipt-update-interval-sec=60",
        "--v=5",
    ])
    .unwrap();
    assert!(nmi.run.force_namespaced && nmi.run.block_instance_metadata);
    let flags: Vec<_> = nmi
        .run
        .legacy
        .notices()
        .into_iter()
        .map(|(flag, _)| flag)
        .collect();
    assert_eq!(flags, ["--find-identity-retry-interval", "-v"]);
}

#[test]
fn a_bad_value_is_named_with_its_flag() {
    for (flag, value) in [
        ("--wait-timeout", "0"),
        ("--imds-endpoint", "https://169.254.169.254"),
        ("--imds-endpoint", "http://h/path"),
        ("--metadata-ip", "::1"),
        ("--attestation", "maybe"),
    ] {
        let text = Nmi::try_parse_from(["podid-nmi", "--node=n", flag, value])
            .unwrap_err()
            .to_string();
        assert!(text.contains(flag) && text.contains(value), "{text}");
    }
}
