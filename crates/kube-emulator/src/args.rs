//! The emulator's flags, and the one place where its parts are put together.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use podid_rt::clock::Clock;
use podid_rt::logging::{self, LogArgs};
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use serde_json::json;
use zeroize::Zeroizing;

use crate::app::{App, Config, Logs};
use crate::authority::Authority;

/// How long requests may take to finish after the signal to stop.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// Flags of `kube-emulator`.
#[derive(Args, Clone, Debug)]
pub struct EmulatorArgs {
    /// Addresses to serve on; port 0 takes a free one
    #[arg(
        long,
        env = "PODID_KUBE_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:0",
        value_delimiter = ','
    )]
    pub listen: Vec<SocketAddr>,

    /// More DNS names and addresses for the server's certificate
    #[arg(long, env = "PODID_KUBE_NAME", value_name = "NAME", value_delimiter = ',')]
    pub name: Vec<String>,

    /// Name of the cluster in kubeconfig files
    #[arg(
        long,
        env = "PODID_KUBE_CLUSTER",
        value_name = "NAME",
        default_value = "podid"
    )]
    pub cluster: String,

    /// Where the administrator's kubeconfig is written
    #[arg(long, env = "PODID_KUBE_KUBECONFIG", value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,

    /// Certificate of the authority to use (PEM); without it a new one is made
    #[arg(long, env = "PODID_KUBE_CA_CERT", value_name = "PATH", requires = "ca_key")]
    pub ca_cert: Option<PathBuf>,

    /// Key of the authority to use (PEM)
    #[arg(long, env = "PODID_KUBE_CA_KEY", value_name = "PATH", requires = "ca_cert")]
    pub ca_key: Option<PathBuf>,

    /// Issuer of service account tokens: where others find the keys that verify them
    #[arg(
        long,
        env = "PODID_KUBE_SERVICE_ACCOUNT_ISSUER",
        value_name = "URL",
        default_value = "https://kubernetes.default.svc"
    )]
    pub service_account_issuer: String,

    /// RSA key that signs service account tokens (PKCS#8 PEM); without it a new one is made
    #[arg(long, env = "PODID_KUBE_SERVICE_ACCOUNT_KEY", value_name = "PATH")]
    pub service_account_key: Option<PathBuf>,

    /// Folder with the logs of pods, as a kubelet leaves them: NAMESPACE_POD_UID/CONTAINER/RESTART.log
    #[arg(long, env = "PODID_KUBE_POD_LOGS", value_name = "DIR")]
    pub pod_logs: Option<PathBuf>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would become the help's heading")]
    pub log: LogArgs,
}

impl EmulatorArgs {
    /// Serves until told to stop. When it serves, one JSON line on stdout says where, and where the kubeconfig is.
    pub async fn run(self) -> anyhow::Result<()> {
        self.run_on(Vec::new()).await
    }

    /// The same, also on sockets that are bound already.
    pub async fn run_on(self, listeners: Vec<TcpListener>) -> anyhow::Result<()> {
        let Self {
            listen,
            name,
            cluster,
            kubeconfig,
            ca_cert,
            ca_key,
            service_account_issuer,
            service_account_key,
            pod_logs,
            log,
        } = self;
        logging::init(&log)?;
        let stop = Stop::on_signals().context("signals cannot be listened to")?;
        let authority = match (ca_cert, ca_key) {
            (Some(certificate), Some(key)) => Some(Authority::from_pem(&read(&certificate)?, &read(&key)?)?),
            _ => None,
        };
        let config = Config {
            listen,
            listeners,
            names: name,
            cluster,
            authority,
            issuer: service_account_issuer,
            service_account_key: service_account_key.as_deref().map(read).transpose()?,
            logs: pod_logs.map_or(Logs::None, Logs::Folder),
            clock: Clock::system(),
        };
        let app = App::bind(config)?;
        let mut tasks = Tasks::new(stop);
        let emulator = app.spawn(&mut tasks);
        if let Some(path) = &kubeconfig {
            write_private(path, &emulator.kubeconfig())
                .with_context(|| format!("the kubeconfig cannot be written to {}", path.display()))?;
        }
        // Before the ready line, so that no first token request has to wait.
        emulator.prepare_key().await?;
        let ready = json!({
            "event": "ready",
            "url": emulator.url(),
            "addresses": emulator.addresses().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "kubeconfig": kubeconfig,
            "ca": emulator.authority().certificate_pem(),
        });
        podid_rt::ready::announce(&ready.to_string());
        tracing::info!(url = emulator.url(), "serving the Kubernetes API");
        tasks.run(DRAIN_DEADLINE).await?;
        Ok(())
    }
}

fn read(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    std::fs::read_to_string(path)
        .map(Zeroizing::new)
        .with_context(|| format!("{} cannot be read", path.display()))
}

/// Writes a file that only its owner may read, whole or not at all.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&new, path));
    if written.is_err() {
        // What is half written must not stay; the first error is the one to tell.
        let _gone = std::fs::remove_file(&new);
    }
    written
}
