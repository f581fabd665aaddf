//! The clients: how each is made ready, how it is run, and how its words are read. Their programs are in `e2e/sdk`.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::{AUDIENCE, Mode, Outcome, prepare, source, text};
use crate::e2e::az;

/// The resource manager's name in the public cloud.
const ARM: &str = "management.azure.com";

/// A real client.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Name for `--only`, and of its folder below `target/e2e/sdk`.
    pub(crate) name: &'static str,
    /// Library, as its users know it.
    pub(crate) library: &'static str,
    /// Whether it is one of those that are ready soon on an empty cache.
    pub(crate) quick: bool,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Curl,
    /// Name of the package and of the library for `ask.py`, pinned version, further requirements.
    Python {
        package: &'static str,
        version: &'static str,
        with: &'static [&'static str],
    },
    Node,
    Go,
    Rust,
    Java,
    Dotnet,
    Az,
}

/// All clients.
pub(crate) fn all() -> Vec<Client> {
    let python = |package, version, with| Kind::Python {
        package,
        version,
        with,
    };
    let client = |name, library, quick, kind| Client {
        name,
        library,
        quick,
        kind,
    };
    vec![
        client("curl", "curl", true, Kind::Curl),
        client(
            "python",
            "Python azure-identity",
            true,
            python("azure-identity", "1.27.0", &[]),
        ),
        // The release that many images still carry; it breaks on details that later ones forgive.
        client(
            "python-1.14",
            "Python azure-identity",
            false,
            python("azure-identity", "1.14.0", &["msal<1.24"]),
        ),
        client("msal", "Python msal", false, python("msal", "1.39.0", &[])),
        client("go", "Go azidentity", false, Kind::Go),
        client("node", "JavaScript @azure/identity", false, Kind::Node),
        client("java", "Java azure-identity", false, Kind::Java),
        client("rust", "Rust azure_identity", true, Kind::Rust),
        client("dotnet", ".NET Azure.Identity", false, Kind::Dotnet),
        client("az", "az login --identity", false, Kind::Az),
    ]
}

impl Client {
    /// Fetches and builds what it needs; quick when that was done before.
    pub(crate) fn prepare(&self, root: &Path, work: &Path) -> anyhow::Result<()> {
        let out = work.join(self.name);
        let out_text = text(&out)?;
        match self.kind {
            Kind::Curl => Ok(()),
            Kind::Python {
                package,
                version,
                with,
            } => {
                if !out.join("bin/python").exists() {
                    prepare("python3", &["-m", "venv", &out_text], root)?;
                }
                let pinned = format!("{package}=={version}");
                let install = [
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                    &pinned,
                ];
                let python = text(&out.join("bin/python"))?;
                prepare(&python, &[&install, with].concat(), root)
                    .with_context(|| format!("{pinned} comes from the Python package index"))
            }
            Kind::Node => npm(
                &source(root, "node"),
                &["package.json", "package-lock.json", "ask.mjs"],
                &out,
            ),
            Kind::Go => {
                let program = text(&out.join("ask"))?;
                prepare("go", &["build", "-o", &program, "."], &source(root, "go"))
            }
            Kind::Rust => {
                let folder = source(root, "rust");
                prepare(
                    env!("CARGO"),
                    &["build", "--quiet", "--locked", "--target-dir", &out_text],
                    &folder,
                )
            }
            Kind::Java => {
                let folder = format!("-Dpodid.out={out_text}");
                prepare("mvn", &["-q", "-B", &folder, "package"], &source(root, "java"))
            }
            Kind::Dotnet => {
                npm(
                    &source(root, "dotnet"),
                    &["package.json", "package-lock.json"],
                    &out,
                )?;
                // For the name that the client sends its token to, which is played in its pod.
                let certificate = rcgen::generate_simple_self_signed([ARM.to_owned()])
                    .with_context(|| format!("make a certificate for {ARM}"))?;
                for (file, pem) in [
                    ("certificate.pem", certificate.cert.pem()),
                    ("key.pem", certificate.signing_key.serialize_pem()),
                ] {
                    let path = out.join(file);
                    std::fs::write(&path, pem).with_context(|| format!("write {}", path.display()))?;
                }
                Ok(())
            }
            Kind::Az => az::azure_cli(root, &root.join("target/e2e/az")).map(drop),
        }
    }

    /// The command that asks twice and reports.
    pub(crate) fn command(&self, mode: Mode, root: &Path, work: &Path) -> Vec<OsString> {
        let out = work.join(self.name);
        let word = || OsString::from(mode.word());
        match self.kind {
            Kind::Curl => {
                let id = if mode == Mode::Named {
                    "&client_id=$PODID_CLIENT_ID"
                } else {
                    ""
                };
                let ask = format!(
                    "curl -sS --fail-with-body -H Metadata:true \
                     \"http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource={AUDIENCE}{id}\""
                );
                vec!["sh".into(), "-c".into(), ask.into()]
            }
            Kind::Python { package, .. } => {
                let script = source(root, "python").join("ask.py");
                vec![
                    out.join("bin/python").into(),
                    script.into(),
                    package.into(),
                    word(),
                ]
            }
            Kind::Node => vec!["node".into(), out.join("ask.mjs").into(), word()],
            Kind::Go => vec![out.join("ask").into(), word()],
            Kind::Rust => vec![out.join("debug/podid-e2e-rust").into(), word()],
            Kind::Java => {
                let mut path = OsString::from(out.join("ask.jar"));
                path.push(":");
                path.push(out.join("lib/*"));
                vec!["java".into(), "-cp".into(), path, "Ask".into(), word()]
            }
            Kind::Dotnet => {
                // The package for this machine is beside the one that was asked for.
                let machine = match std::env::consts::ARCH {
                    "aarch64" => "arm64",
                    _ => "x64",
                };
                let program = format!("node_modules/@azure/mcp-linux-{machine}/dist/azmcp");
                vec![
                    "python3".into(),
                    source(root, "dotnet").join("ask.py").into(),
                    out.join(program).into(),
                    out.join("certificate.pem").into(),
                    out.join("key.pem").into(),
                    word(),
                ]
            }
            Kind::Az => vec![
                "bash".into(),
                source(root, "az").join("ask.sh").into(),
                root.join("target/e2e/az/venv/bin/az").into(),
                word(),
            ],
        }
    }

    /// What it asks for, without a slash at the end.
    pub(crate) fn audience(&self) -> String {
        match self.kind {
            Kind::Dotnet => format!("https://{ARM}"),
            _ => AUDIENCE.to_owned(),
        }
    }

    /// What it reported.
    pub(crate) fn read(&self, said: &str) -> anyhow::Result<Outcome> {
        if matches!(self.kind, Kind::Curl) {
            return raw_token(said);
        }
        let line = said.lines().last().unwrap_or_default();
        serde_json::from_str(line).with_context(|| format!("it reported {line:?}"))
    }
}

/// Installs what a package lock says, with these files of ours beside it.
fn npm(from: &Path, files: &[&str], out: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("make the folder {}", out.display()))?;
    for file in files {
        let from = from.join(file);
        std::fs::copy(&from, out.join(file)).with_context(|| format!("copy {}", from.display()))?;
    }
    prepare("npm", &["ci", "--silent", "--no-audit", "--no-fund"], out)
}

/// The claims of a token endpoint's own answer.
fn raw_token(said: &str) -> anyhow::Result<Outcome> {
    let answer: Value = serde_json::from_str(said).with_context(|| format!("it printed {said:?}"))?;
    let token = answer
        .get("access_token")
        .and_then(Value::as_str)
        .context("there is no access_token")?;
    let payload = token.split('.').nth(1).context("the token is not a JWT")?;
    let claims: Value = serde_json::from_slice(
        &URL_SAFE_NO_PAD
            .decode(payload)
            .context("the token is not base64url")?,
    )
    .context("the token's claims are not JSON")?;
    let claim = |name: &str| {
        claims
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    Ok(Outcome {
        version: String::new(),
        appid: claim("appid"),
        aud: claim("aud"),
        first_ms: 0.0,
    })
}
