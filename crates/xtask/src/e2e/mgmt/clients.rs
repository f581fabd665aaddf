//! The clients: how each is made ready, told of the certificate authority, and run. Their programs are in `e2e/mgmt`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::process::Command;

use super::emulator::Emulator;
use crate::e2e::sdk::{prepare, text};

/// The password of a trust store of one certificate that everybody may have.
const STORE_PASSWORD: &str = "changeit";

/// The SDKs of a language.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Name for `--only`, and of its folders below `e2e/mgmt` and `target/e2e/mgmt`.
    pub(crate) name: &'static str,
    /// As people write it.
    pub(crate) language: &'static str,
    /// Whether it also makes a managed cluster.
    pub(crate) clusters: bool,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Python,
    Go,
    Java,
    Node,
}

/// All of them, the quickest first.
pub(crate) fn all() -> Vec<Client> {
    let client = |name, language, clusters, kind| Client {
        name,
        language,
        clusters,
        kind,
    };
    vec![
        client("python", "Python", true, Kind::Python),
        client("go", "Go", true, Kind::Go),
        client("node", "JavaScript", false, Kind::Node),
        client("java", "Java", false, Kind::Java),
    ]
}

impl Client {
    /// Fetches and builds what it needs, below `target/e2e/mgmt`; quick when that was done before.
    pub(crate) fn prepare(&self, root: &Path, work: &Path) -> anyhow::Result<()> {
        let (source, out) = (self.source(root), work.join(self.name));
        std::fs::create_dir_all(&out).with_context(|| format!("make the folder {}", out.display()))?;
        match self.kind {
            Kind::Python => {
                let venv = out.join("venv");
                if !venv.join("bin/python").exists() {
                    prepare("python3", &["-m", "venv", &text(&venv)?], root)?;
                }
                let pinned = text(&source.join("requirements.txt"))?;
                let install = [
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                    "-r",
                    &pinned,
                ];
                prepare(&text(&venv.join("bin/python"))?, &install, root)
            }
            Kind::Go => prepare("go", &["build", "-o", &text(&out.join("walk"))?, "."], &source),
            Kind::Node => {
                for file in ["package.json", "package-lock.json", "walk.mjs"] {
                    let from = source.join(file);
                    std::fs::copy(&from, out.join(file))
                        .with_context(|| format!("copy {}", from.display()))?;
                }
                prepare("npm", &["ci", "--silent", "--no-audit", "--no-fund"], &out)
            }
            Kind::Java => {
                let folder = format!("-Dpodid.out={}", text(&out.join("build"))?);
                prepare("mvn", &["-q", "-B", &folder, "package"], &source)
            }
        }
    }

    /// What must be done before its platform trusts the authority, beyond a variable: Java wants a store.
    pub(crate) fn trust(&self, emulator: &Emulator, out: &Path) -> anyhow::Result<()> {
        if self.kind != Kind::Java {
            return Ok(());
        }
        let store = out.join("trust.p12");
        if store.exists() {
            std::fs::remove_file(&store).with_context(|| format!("remove {}", store.display()))?;
        }
        let (authority, store) = (text(&emulator.ready.ca_file)?, text(&store)?);
        let import = [
            "-importcert",
            "-noprompt",
            "-alias",
            "azure-emulator",
            "-storetype",
            "PKCS12",
        ];
        let files = [
            "-storepass",
            STORE_PASSWORD,
            "-file",
            &authority,
            "-keystore",
            &store,
        ];
        prepare("keytool", &[&import[..], &files[..]].concat(), out)
    }

    /// The command that walks and reports, with the authority given as its platform takes it.
    pub(crate) fn command(&self, emulator: &Emulator, root: &Path, work: &Path) -> Command {
        let out = work.join(self.name);
        let authority = &emulator.ready.ca_file;
        match self.kind {
            Kind::Python => {
                let mut command = Command::new(out.join("venv/bin/python"));
                command
                    .arg(self.source(root).join("walk.py"))
                    .env("REQUESTS_CA_BUNDLE", authority);
                command
            }
            Kind::Go => {
                let mut command = Command::new(out.join("walk"));
                command.env("SSL_CERT_FILE", authority);
                command
            }
            Kind::Node => {
                let mut command = Command::new("node");
                command
                    .arg(out.join("walk.mjs"))
                    .env("NODE_EXTRA_CA_CERTS", authority);
                command
            }
            Kind::Java => {
                let property = |name: &str, value: &str| format!("-Djavax.net.ssl.trustStore{name}={value}");
                let build = out.join("build");
                let mut command = Command::new("java");
                command
                    .arg(property("", &out.join("trust.p12").to_string_lossy()))
                    .arg(property("Password", STORE_PASSWORD))
                    .arg("-cp")
                    .arg(format!("{0}/walk.jar:{0}/lib/*", build.display()))
                    .arg("Walk");
                command
            }
        }
    }

    fn source(&self, root: &Path) -> PathBuf {
        root.join("e2e/mgmt").join(self.name)
    }
}
