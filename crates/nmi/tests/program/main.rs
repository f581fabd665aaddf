//! The program itself, started as people start it, in a private world: which capabilities it has left in each mode, and
//! its admin's door. What it answers to pods is tested elsewhere.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test says by a panic what did not hold, and lets tasks of its own run beside it"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Output, Stdio};
use std::time::Duration;

use clap::Parser as _;
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::ApiResource;
use libtest_mimic::{Arguments, Failed, Trial};
use podid_kernel::privileges::Capability;
use podid_nmi::Nmi;
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use podid_testkit::PATIENCE;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

type Outcome = Result<(), Failed>;

/// Bit of SETPCAP, without which the bounding set cannot be lowered. Source: capability.h.
const SETPCAP: u64 = 1 << 8;

fn main() -> ExitCode {
    podid_kernel::world::run((), |_, ()| {
        let trials = vec![
            Trial::test("each_mode_holds_exactly_what_it_needs", || {
                play(each_mode_holds_exactly_what_it_needs)
            }),
            Trial::test("root_asks_the_running_agent", || {
                play(root_asks_the_running_agent)
            }),
            Trial::test("one_socket_has_one_agent", || play(one_socket_has_one_agent)),
            Trial::test(
                "settings_of_the_original_are_taken_and_told_without_their_values",
                || play(settings_of_the_original_are_taken_and_told_without_their_values),
            ),
            Trial::test(
                "kubenet_is_refused_with_the_fix_and_allowed_with_a_warning",
                || play(kubenet_is_refused_with_the_fix_and_allowed_with_a_warning),
            ),
        ];
        let mut arguments = Arguments::from_args();
        // They share the world's network, in which there is one way to the metadata address.
        arguments.test_threads = Some(1);
        libtest_mimic::run(&arguments, trials).exit_code()
    })
}

/// A cluster without anything in it, and a folder.
struct Place {
    folder: tempfile::TempDir,
    stop: Stop,
}

fn play(part: impl AsyncFnOnce(&Place) -> Outcome) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stop = Stop::new();
        let mut tasks = Tasks::new(stop.clone());
        let emulator =
            podid_kube_emulator::App::bind(podid_kube_emulator::Config::default())?.spawn(&mut tasks);
        let _running = tokio::spawn(tasks.run(Duration::from_secs(5)));
        let place = Place {
            folder: tempfile::tempdir()?,
            stop,
        };
        fs::write(place.path("kubeconfig"), emulator.kubeconfig())?;
        kinds(&place.path("kubeconfig")).await?;
        let outcome = part(&place).await;
        place.stop.force();
        outcome
    })
}

/// Makes our kinds known.
async fn kinds(kubeconfig: &Path) -> Outcome {
    let client = podid_rt::cluster::client(Some(kubeconfig)).await?;
    let crds = ApiResource {
        group: "apiextensions.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "apiextensions.k8s.io/v1".to_owned(),
        kind: "CustomResourceDefinition".to_owned(),
        plural: "customresourcedefinitions".to_owned(),
    };
    let crds: Api<DynamicObject> = Api::all_with(client, &crds);
    for crd in podid_api::crd::all() {
        crds.create(&PostParams::default(), &serde_json::from_value(crd)?)
            .await?;
    }
    Ok(())
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("podid/admin.sock")
    }

    fn flags(&self, more: &[&str]) -> Vec<String> {
        let mut flags = vec![
            "--node=n1".to_owned(),
            format!("--kubeconfig={}", self.path("kubeconfig").display()),
            format!("--admin-socket={}", self.socket().display()),
            "--probe-listen=127.0.0.1:0".to_owned(),
            "--kubelet-config=/dev/null".to_owned(),
        ];
        flags.extend(more.iter().map(ToString::to_string));
        flags
    }

    fn command(flags: &[String]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_podid-nmi"));
        command
            .args(flags)
            .env_clear()
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Starts an agent and waits until it says that it is ready.
    async fn agent(&self, more: &[&str]) -> Result<Child, Failed> {
        self.agent_with(more, &[]).await
    }

    /// The same, with these variables of the environment.
    async fn agent_with(&self, more: &[&str], variables: &[(&str, &str)]) -> Result<Child, Failed> {
        let log = fs::File::create(self.path("log"))?;
        let mut child = Self::command(&self.flags(more))
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
        let log = || fs::read_to_string(self.path("log")).unwrap_or_default();
        let line = line.map_err(|_late| Failed::from(log()))??;
        let line = line.ok_or_else(|| Failed::from(log()))?;
        assert!(line.contains("\"ready\""), "{line}\n{}", log());
        Ok(child)
    }

    /// `podid-nmi admin`.
    async fn ask(&self, words: &[&str]) -> Result<Output, Failed> {
        let mut flags = vec!["admin".to_owned()];
        flags.push(format!("--admin-socket={}", self.socket().display()));
        flags.extend(words.iter().map(ToString::to_string));
        Ok(Self::command(&flags).output().await?)
    }
}

/// The masks in `/proc/<pid>/status` of one thread.
fn masks(status: &Path) -> Result<BTreeMap<String, u64>, Failed> {
    let mut masks = BTreeMap::new();
    for line in fs::read_to_string(status)?.lines() {
        if let Some((name, value)) = line.split_once(":\t")
            && (name.starts_with("Cap") || name == "NoNewPrivs")
        {
            masks.insert(name.to_owned(), u64::from_str_radix(value.trim(), 16)?);
        }
    }
    Ok(masks)
}

async fn each_mode_holds_exactly_what_it_needs(place: &Place) -> Outcome {
    let own = masks(Path::new("/proc/self/status"))?;
    for mode in [
        "--interception=local-route",
        "--interception=local-route+nft",
        "--interception=local-route --attestation=off",
        "--interception=none --listen=127.0.0.1:0",
        "--interception=none --listen=127.0.0.1:0 --attestation=off",
    ] {
        let flags: Vec<&str> = mode.split(' ').collect();
        let needed = Nmi::try_parse_from(std::iter::once("podid-nmi").chain(flags.iter().copied()))?
            .run
            .capabilities();
        let needed = needed.into_iter().map(Capability::mask).sum::<u64>();
        let mut agent = place.agent(&flags).await?;
        let tasks = format!("/proc/{}/task", agent.id().unwrap());
        let mut threads = 0;
        for task in fs::read_dir(tasks)? {
            let found = masks(&task?.path().join("status"))?;
            let bounding = if own["CapEff"] & SETPCAP == 0 {
                own["CapBnd"]
            } else {
                own["CapBnd"] & needed
            };
            let expected: BTreeMap<String, u64> = [
                ("CapInh", 0),
                ("CapPrm", own["CapPrm"] & needed),
                ("CapEff", own["CapPrm"] & needed),
                ("CapBnd", bounding),
                ("CapAmb", 0),
                ("NoNewPrivs", 1),
            ]
            .map(|(name, mask)| (name.to_owned(), mask))
            .into();
            assert_eq!(found, expected, "{mode}");
            threads += 1;
        }
        assert!(threads > 1, "a runtime has threads of its own");
        agent.kill().await?;
    }
    Ok(())
}

async fn root_asks_the_running_agent(place: &Place) -> Outcome {
    let _agent = place
        .agent(&["--interception=none", "--listen=127.0.0.1:0", "--log-format=json"])
        .await?;
    let state = place.ask(&["/state"]).await?;
    assert!(state.status.success(), "{state:?}");
    let state: Value = serde_json::from_slice(&state.stdout)?;
    assert_eq!(
        (state["node"].as_str(), state["synced"].as_bool()),
        (Some("n1"), Some(true))
    );
    // What it logs can be changed while it runs.
    let level = place.ask(&["/log-level"]).await?;
    assert!(
        String::from_utf8_lossy(&level.stdout).contains("\"info\""),
        "{level:?}"
    );
    let changed = place
        .ask(&["-X", "PUT", "-d", "podid_nmi=debug,info", "/log-level"])
        .await?;
    let changed: Value = serde_json::from_slice(&changed.stdout)?;
    assert_eq!(changed["before"].as_str(), Some("info"));
    assert!(
        changed["filter"]
            .as_str()
            .is_some_and(|filter| filter.contains("podid_nmi=debug"))
    );
    // Answers go to stdout with exit code 0, refusals to stderr with another one.
    let refused = place.ask(&["/explain?pod=shop/nobody"]).await?;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && refused.stdout.is_empty() && told.contains("pod_not_found"),
        "{told}"
    );
    // Each line of the log is one object, with what was done and by whom.
    let log = fs::read_to_string(place.path("log"))?;
    let lines: Vec<Value> = log.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert!(
        lines
            .iter()
            .any(|line| line["message"] == "an admin asks" && line["uid"] == 0),
        "{log}"
    );
    Ok(())
}

async fn one_socket_has_one_agent(place: &Place) -> Outcome {
    let flags = ["--interception=none", "--listen=127.0.0.1:0"];
    let mut first = place.agent(&flags).await?;
    let second = Place::command(&place.flags(&flags)).output().await?;
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        !second.status.success() && told.contains("another agent has the admin socket"),
        "{told}"
    );
    // Killed, it leaves its socket behind; the next one takes its place.
    first.kill().await?;
    assert!(place.socket().exists());
    let mut third = place.agent(&flags).await?;
    assert!(place.ask(&["/state"]).await?.status.success());
    third.kill().await?;
    Ok(())
}

async fn settings_of_the_original_are_taken_and_told_without_their_values(place: &Place) -> Outcome {
    let flags = [
        "--interception=none",
        "--listen=127.0.0.1:0",
        "--log-format=json",
        // The network is the world's own, so its ports are free.
        "--prometheus-port=9090",
        "--retry-attempts-for-created=16",
        "--enableScaleFeatures=true",
        "--logtostderr",
    ];
    let variables = [
        ("FORCENAMESPACED", ""),
        ("MSI_ENDPOINT", "http://127.0.0.1:1/"),
        ("MSI_SECRET", "never-to-be-seen"),
    ];
    let mut agent = place.agent_with(&flags, &variables).await?;
    let log = fs::read_to_string(place.path("log"))?;
    let told: Vec<String> = log
        .lines()
        .filter_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            line["given"].as_str().map(str::to_owned)
        })
        .collect();
    assert_eq!(
        told,
        ["--retry-attempts-for-created", "MSI_ENDPOINT", "MSI_SECRET"],
        "{log}"
    );
    assert!(!log.contains("never-to-be-seen"), "{log}");
    for (path, status, text) in [
        ("/metrics", " 200 ", "podid_nmi_connections"),
        ("/healthz", " 404 ", ""),
    ] {
        let got = get(9090, path).await?;
        let head = got.lines().next().unwrap_or_default().to_owned();
        assert!(head.contains(status) && got.contains(text), "{path}: {got}");
    }
    agent.kill().await?;
    // As for every Kubernetes client, an empty KUBECONFIG is none.
    let nowhere = Place::command(&[
        "--node=n1".to_owned(),
        "--interception=none".to_owned(),
        "--listen=127.0.0.1:0".to_owned(),
    ])
    .env("KUBECONFIG", "")
    .env("PODID_ADMIN_SOCKET", "")
    .output()
    .await?;
    let told = String::from_utf8_lossy(&nowhere.stderr).into_owned();
    assert!(
        !nowhere.status.success() && told.contains("not in a cluster"),
        "{told}"
    );
    Ok(())
}

async fn get(port: u16, path: &str) -> Result<String, Failed> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn kubenet_is_refused_with_the_fix_and_allowed_with_a_warning(place: &Place) -> Outcome {
    let kubelet = place.path("kubelet");
    fs::write(&kubelet, "KUBELET_FLAGS=--network-plugin=kubenet\n")?;
    let file = format!("--kubelet-config={}", kubelet.display());
    let flags: Vec<String> = place
        .flags(&["--interception=none", "--listen=127.0.0.1:0"])
        .into_iter()
        .filter(|flag| !flag.starts_with("--kubelet-config"))
        .collect();
    let refused = Place::command(&[flags, vec![file]].concat()).output().await?;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success()
            && told.contains("--allow-network-plugin-kubenet")
            && told.contains("NET_RAW"),
        "{told}"
    );
    for (attestation, text) in [
        ("enforce", "it gets no token by that"),
        ("off", "GETS THAT POD'S TOKENS"),
    ] {
        let mut agent = place
            .agent(&[
                "--interception=none",
                "--listen=127.0.0.1:0",
                "--allow-network-plugin-kubenet",
                &format!("--attestation={attestation}"),
            ])
            .await?;
        let log = fs::read_to_string(place.path("log"))?;
        assert!(
            log.contains(text) && log.contains("netRaw.policy"),
            "{attestation}: {log}"
        );
        agent.kill().await?;
    }
    Ok(())
}
