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
    assert!(nmi.run.logging().log.contains("podid_nmi=debug"));
    assert_eq!(notices(&nmi.run), ["--find-identity-retry-interval"]);
}

fn notices(args: &NmiArgs) -> Vec<String> {
    args.legacy.notices().map(Legacy::written).collect()
}

/// What becomes of a setting of the original.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It means what it meant.
    Kept,
    /// It is accepted, and one line says what replaces it.
    Replaced,
    /// It is accepted, and asks for what is done anyway.
    Done,
}

/// Every flag of the original NMI, as its manifests, chart and documentation write it.
/// Source: aad-pod-identity v1.8.17, `cmd/nmi`, and klog 2.30.
const FLAGS: [(&str, Fate); 63] = [
    ("--nmi-listen-address=127.0.0.1", Fate::Replaced),
    ("--nmi-listen-address 0.0.0.0", Fate::Replaced),
    ("--nmi-port=2579", Fate::Kept),
    ("--nmi-port 2580", Fate::Kept),
    ("--metadata-ip=169.254.169.254", Fate::Kept),
    ("--metadata-port=80", Fate::Kept),
    ("--node=aks-nodepool1-1", Fate::Kept),
    ("--ipt-update-interval-sec=60", Fate::Kept),
    ("--forceNamespaced", Fate::Kept),
    ("--forceNamespaced=true", Fate::Kept),
    ("--forceNamespaced=False", Fate::Kept),
    ("--MICNamespace=default", Fate::Replaced),
    ("--http-probe-port=8080", Fate::Kept),
    ("--retry-attempts-for-created=16", Fate::Replaced),
    ("--retry-attempts-for-assigned=4", Fate::Replaced),
    ("--find-identity-retry-interval=5", Fate::Replaced),
    ("--enableProfile", Fate::Replaced),
    ("--enableProfile=false", Fate::Done),
    ("--enableScaleFeatures", Fate::Done),
    ("--enableScaleFeatures=true", Fate::Done),
    ("--enableScaleFeatures=false", Fate::Replaced),
    ("--block-instance-metadata", Fate::Kept),
    ("--block-instance-metadata=false", Fate::Kept),
    ("--metadata-header-required=true", Fate::Done),
    ("--metadata-header-required=false", Fate::Replaced),
    ("--prometheus-port=9090", Fate::Kept),
    ("--operation-mode=standard", Fate::Kept),
    ("--operation-mode=MANAGED", Fate::Kept),
    ("--allow-network-plugin-kubenet", Fate::Kept),
    ("--allow-network-plugin-kubenet=false", Fate::Kept),
    ("--kubelet-config=/etc/default/kubelet", Fate::Kept),
    ("--set-retry-after-header", Fate::Replaced),
    ("--set-retry-after-header=false", Fate::Done),
    ("--enable-conntrack-deletion", Fate::Replaced),
    ("--enable-conntrack-deletion=false", Fate::Done),
    ("--log-format=text", Fate::Kept),
    ("--log-format=json", Fate::Kept),
    ("--custom-user-agent=demo/1", Fate::Kept),
    ("--v=0", Fate::Kept),
    ("--v 5", Fate::Kept),
    ("-v=5", Fate::Kept),
    ("-v 10", Fate::Kept),
    ("--vmodule=server=5", Fate::Replaced),
    ("--logtostderr", Fate::Done),
    ("--logtostderr=true", Fate::Done),
    ("--logtostderr=false", Fate::Replaced),
    ("--alsologtostderr", Fate::Replaced),
    ("--alsologtostderr=false", Fate::Done),
    ("--stderrthreshold=2", Fate::Done),
    ("--stderrthreshold 0", Fate::Replaced),
    ("--log_dir=/var/log", Fate::Replaced),
    ("--log_file=/var/log/nmi.log", Fate::Replaced),
    ("--log_file_max_size=1800", Fate::Done),
    ("--log_file_max_size=10", Fate::Replaced),
    ("--log_backtrace_at=server.go:1", Fate::Replaced),
    ("--add_dir_header", Fate::Replaced),
    ("--add_dir_header=false", Fate::Done),
    ("--skip_headers", Fate::Replaced),
    ("--skip_headers=false", Fate::Done),
    ("--skip_log_headers", Fate::Replaced),
    ("--skip_log_headers=false", Fate::Done),
    ("--one_output", Fate::Replaced),
    ("--one_output=false", Fate::Done),
];

#[test]
fn every_flag_of_the_original_is_taken_as_it_was_written() {
    for (written, fate) in FLAGS {
        for command in [vec!["podid-nmi"], vec!["podid-nmi", "run"]] {
            let words = command.into_iter().chain(written.split(' '));
            let nmi = Nmi::try_parse_from(words).unwrap_or_else(|error| panic!("{written}: {error}"));
            let args = match nmi.command {
                Some(Command::Run(args)) => *args,
                _ => nmi.run,
            };
            let told = notices(&args);
            match fate {
                Fate::Kept | Fate::Done => assert!(told.is_empty(), "{written}: {told:?}"),
                Fate::Replaced => assert!(
                    told.len() == 1 && written.starts_with(told[0].as_str()),
                    "{written}: {told:?}"
                ),
            }
        }
    }
    assert_eq!(
        Nmi::try_parse_from(["podid-nmi", "--version"])
            .unwrap_err()
            .kind(),
        clap::error::ErrorKind::DisplayVersion
    );
    // As in the original, what nobody knows is refused; so is a format that there is not.
    for unknown in [
        "--host-ip=10.0.0.1",
        "--log-format=xml",
        "--forceNamespaced=perhaps",
    ] {
        let refused = Nmi::try_parse_from(["podid-nmi", unknown]).unwrap_err();
        assert_eq!(refused.exit_code(), 2, "{unknown}");
    }
}

#[test]
fn what_was_kept_means_what_it_meant() {
    let words = "podid-nmi --nmi-port=2600 --metadata-ip=10.1.2.3 --metadata-port=8080 --node=n --ipt-update-interval-sec=7 \
                 --forceNamespaced=1 --http-probe-port=8081 --block-instance-metadata=T --prometheus-port=9090 \
                 --operation-mode=Standard --allow-network-plugin-kubenet --kubelet-config=/k --custom-user-agent=x/1 -v=6";
    let args = Nmi::try_parse_from(words.split_whitespace()).unwrap().run;
    assert!(args.force_namespaced && args.block_instance_metadata && args.allow_network_plugin_kubenet);
    assert_eq!(
        (args.nmi_port, args.metadata_ip.octets(), args.metadata_port),
        (2600, [10, 1, 2, 3], 8080)
    );
    assert_eq!(
        (args.node.as_deref(), args.check_interval.as_secs()),
        (Some("n"), 7)
    );
    assert_eq!((args.http_probe_port, args.prometheus_port), (8081, Some(9090)));
    assert_eq!(args.operation_mode, OperationMode::Standard);
    assert_eq!(args.kubelet_config.as_deref(), Some("/k".as_ref()));
    assert_eq!(args.custom_user_agent.as_deref(), Some("x/1"));
    assert!(args.logging().log.contains("podid_nmi=trace"));
    let quiet = Nmi::try_parse_from(["podid-nmi", "-v=6", "--log=warn"]).unwrap();
    assert_eq!(quiet.run.logging().log, "warn");
}

#[test]
fn every_variable_of_the_original_is_read_or_its_absence_is_said() {
    let nmi = <Nmi as clap::CommandFactory>::command();
    let read: Vec<&str> = nmi
        .get_arguments()
        .filter_map(|arg| arg.get_env()?.to_str())
        .collect();
    // KUBERNETES_SERVICE_HOST and _PORT are the Kubernetes client's, HTTPS_PROXY and NO_PROXY that of the authorities'
    // clients. NODE_NAME and HOST_IP were the manifests' own and never read.
    for kept in ["FORCENAMESPACED", "KUBECONFIG"] {
        assert!(read.contains(&kept), "{kept}: {read:?}");
    }
    for replaced in [
        "MSI_ENDPOINT",
        "MSI_SECRET",
        "HTTP_PROXY",
        "AZURE_GO_SDK_LOG_LEVEL",
        "AZURE_GO_SDK_LOG_FILE",
    ] {
        assert!(read.contains(&replaced), "{replaced}: {read:?}");
        // clap takes a variable's value as it takes a flag's.
        let nmi = Nmi::try_parse_from(["podid-nmi", &format!("--{replaced}"), "secret"]).unwrap();
        assert_eq!(notices(&nmi.run), [replaced]);
        assert!(!format!("{nmi:?}").contains("secret"));
    }
    assert!(LEGACY.iter().all(|legacy| !legacy.instead.is_empty()));
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
