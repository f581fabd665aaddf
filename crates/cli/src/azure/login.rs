//! An Azure login: a service principal in the environment, as every Azure SDK reads it, or that of `az`, which is asked as
//! a child process. Keeps nothing on disk.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use podid_azure::arm::{Arm, FetchToken, Fetching};
use podid_azure::{
    Authorities, Authority, ClientCertificate, ClientError, Cloud, Endpoint, Entra, Proof, TlsRoots,
    TokenAsk, WallClock,
};
use podid_core::{AccessToken, Guid, Retry, Secret, SourceError, TroubleKind};
use podid_rt::clock::Clock;
use reqwest::Url;
use serde::Deserialize;

/// How long az may take; it needs a second or two, and more when it renews its own token.
const AZ_DEADLINE: Duration = Duration::from_mins(2);
/// How long a token of az is taken to be good when az does not say: one command's time. Old releases say it in local time only.
const UNSAID_LIFE_SECS: u64 = 600;

/// Flags about the login.
#[derive(Args, Clone, Debug)]
pub struct LoginArgs {
    /// Whose Azure login is used: that of AZURE_TENANT_ID, AZURE_CLIENT_ID and a secret, certificate or federated token
    /// (`environment`), that of az (`az`), the first of these that is there (`auto`), or none
    #[arg(
        long,
        env = "PODID_AZURE_LOGIN",
        hide_env_values = true,
        value_enum,
        value_name = "FROM",
        default_value = "auto",
        hide_possible_values = true
    )]
    pub azure_login: From,

    /// Cloud of a login from the environment; az knows its own
    #[arg(long, env = "PODID_CLOUD", hide_env_values = true, value_name = "NAME", default_value = Cloud::Public.name())]
    pub cloud: Cloud,

    /// Address of ARM, for clouds that are not in the table; the cloud's when not given
    #[arg(
        long,
        env = "AZURE_RESOURCE_MANAGER_ENDPOINT",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub arm_endpoint: Option<Url>,

    /// Certificates (PEM) to trust beside the system's when asking Azure
    #[arg(long, env = "SSL_CERT_FILE", hide_env_values = true, value_name = "PATH")]
    pub ca_file: Option<PathBuf>,

    /// Program that is az
    #[arg(
        long,
        hide = true,
        env = "PODID_AZ",
        hide_env_values = true,
        default_value = "az"
    )]
    pub az: OsString,
    /// Tenant of the service principal
    #[arg(long, hide = true, env = "AZURE_TENANT_ID", hide_env_values = true)]
    pub azure_tenant_id: Option<String>,
    /// Its client id
    #[arg(long, hide = true, env = "AZURE_CLIENT_ID", hide_env_values = true)]
    pub azure_client_id: Option<String>,
    /// Its secret
    #[arg(long, hide = true, env = "AZURE_CLIENT_SECRET", hide_env_values = true, value_parser = secret)]
    pub azure_client_secret: Option<Secret>,
    /// Its certificate and key (PEM)
    #[arg(
        long,
        hide = true,
        env = "AZURE_CLIENT_CERTIFICATE_PATH",
        hide_env_values = true
    )]
    pub azure_client_certificate_path: Option<PathBuf>,
    /// A token of another issuer that stands for it
    #[arg(long, hide = true, env = "AZURE_FEDERATED_TOKEN_FILE", hide_env_values = true)]
    pub azure_federated_token_file: Option<PathBuf>,
    /// Where it logs in
    #[arg(long, hide = true, env = "AZURE_AUTHORITY_HOST", hide_env_values = true)]
    pub azure_authority_host: Option<Authority>,
}

/// Whose login is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum From {
    /// The environment's, else az's, else none.
    Auto,
    /// az's.
    Az,
    /// The environment's.
    Environment,
    /// None.
    None,
}

#[expect(clippy::unnecessary_wraps, reason = "the shape that clap asks for")]
fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text.to_owned()))
}

/// Why there is no login.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// Nobody may log in.
    #[error("--azure-login none")]
    Off,
    /// Nobody is.
    #[error("neither in the environment nor by az: {0}")]
    Nobody(String),
    /// az gave no token.
    #[error("az: {0}")]
    Az(String),
    /// The environment has no whole login.
    #[error("{0}")]
    Environment(String),
    /// A file cannot be used.
    #[error("{0} cannot be used")]
    File(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// No client could be made.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl LoginError {
    /// What could be done about it.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Environment(_) => {
                "set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET (or AZURE_FEDERATED_TOKEN_FILE, or AZURE_CLIENT_CERTIFICATE_PATH)"
            }
            Self::File(..) | Self::Client(_) => "nothing was changed; mend what the message names",
            Self::Off | Self::Nobody(_) | Self::Az(_) => {
                "`az login`, or give --client-id and --object-id and --azure-login none"
            }
        }
    }
}

/// A login that is there.
pub(super) struct Login {
    token: FetchToken,
    endpoint: Url,
    roots: TlsRoots,
    subscription: Option<String>,
}

impl LoginArgs {
    /// Finds the login. az is asked for a token at once, so that a login that has ended is none.
    pub(super) async fn find(self, subscription: Option<&str>) -> Result<Login, LoginError> {
        let roots = match &self.ca_file {
            Some(path) => {
                let pem =
                    std::fs::read(path).map_err(|error| LoginError::File(path.clone(), error.into()))?;
                TlsRoots::from_pem(&pem)?
            }
            None => TlsRoots::default(),
        };
        match self.azure_login {
            From::None => Err(LoginError::Off),
            From::Environment => self.environment(roots),
            From::Az => self.az(roots, subscription).await,
            // Half a login is a mistake; only none at all leads to az.
            From::Auto
                if self.azure_tenant_id.is_some() && self.azure_client_id.is_some() && self.has_proof() =>
            {
                self.environment(roots)
            }
            From::Auto => match self.az(roots, subscription).await {
                Err(LoginError::Az(why)) => Err(LoginError::Nobody(why)),
                other => other,
            },
        }
    }

    fn has_proof(&self) -> bool {
        self.azure_client_secret.is_some()
            || self.azure_client_certificate_path.is_some()
            || self.azure_federated_token_file.is_some()
    }

    fn environment(self, roots: TlsRoots) -> Result<Login, LoginError> {
        let lacks = |what: &str| LoginError::Environment(format!("{what} is not set"));
        let tenant = self.azure_tenant_id.ok_or_else(|| lacks("AZURE_TENANT_ID"))?;
        let client_id = self.azure_client_id.ok_or_else(|| lacks("AZURE_CLIENT_ID"))?;
        let client_id: Guid = client_id
            .parse()
            .map_err(|error| LoginError::Environment(format!("AZURE_CLIENT_ID: {error}")))?;
        let held = match (
            self.azure_client_secret,
            self.azure_client_certificate_path,
            self.azure_federated_token_file,
        ) {
            (Some(secret), ..) => Held::Secret(secret),
            (None, Some(path), _) => {
                let unusable =
                    |error: Box<dyn std::error::Error + Send + Sync>| LoginError::File(path.clone(), error);
                let pem = std::fs::read(&path).map_err(|error| unusable(error.into()))?;
                let certificate = ClientCertificate::from_pem(&pem);
                Held::Certificate(certificate.map_err(|error| unusable(error.into()))?)
            }
            (None, None, Some(path)) => {
                let token = std::fs::read_to_string(&path)
                    .map_err(|error| LoginError::File(path.clone(), error.into()))?;
                Held::Assertion(Secret::new(token.trim().to_owned()))
            }
            (None, None, None) => return Err(lacks("AZURE_CLIENT_SECRET")),
        };
        let authority = match self.azure_authority_host {
            Some(authority) => authority,
            None => known(self.cloud.authority())?,
        };
        let endpoint = match self.arm_endpoint {
            Some(endpoint) => endpoint,
            None => known(self.cloud.arm())?,
        };
        let system = Clock::system();
        let clock: WallClock = Arc::new(move || system.unix_secs());
        let entra = Entra::new(Authorities::new(authority), &roots, clock)?;
        let (audience, held) = (self.cloud.arm(), Arc::new(held));
        let token: FetchToken = Arc::new(move || {
            let (entra, tenant, held) = (entra.clone(), tenant.clone(), Arc::clone(&held));
            let fetch = async move {
                let ask = TokenAsk {
                    authority: None,
                    tenant: &tenant,
                    client_id,
                    resource: audience,
                    endpoint: Endpoint::V2,
                    proof: held.proof(),
                };
                Ok(entra.token(ask).await?)
            };
            Box::pin(fetch) as Fetching
        });
        Ok(Login {
            token,
            endpoint,
            roots,
            subscription: None,
        })
    }

    async fn az(self, roots: TlsRoots, subscription: Option<&str>) -> Result<Login, LoginError> {
        let mut words = vec!["account", "get-access-token", "--output", "json"];
        if let Some(subscription) = subscription {
            words.extend(["--subscription", subscription]);
        }
        let token: AzToken = parsed(&run(&self.az, &words).await?)?;
        let endpoint = if let Some(endpoint) = self.arm_endpoint {
            endpoint
        } else {
            let cloud: AzCloud = parsed(&run(&self.az, &["cloud", "show", "--output", "json"]).await?)?;
            known(&cloud.endpoints.resource_manager)?
        };
        let kept = AccessToken {
            secret: token.access_token,
            expires_on: token
                .expires_on
                .unwrap_or_else(|| Clock::system().unix_secs() + UNSAID_LIFE_SECS),
            not_before: None,
            token_type: "Bearer".into(),
            resource: endpoint.as_str().into(),
            client_id: None,
        };
        let fetch: FetchToken = Arc::new(move || {
            let kept = kept.clone();
            Box::pin(async move {
                if kept.expires_in(Clock::system().unix_secs()) == 0 {
                    let text = "the token of az has ended; run the command again";
                    return Err(SourceError::new(
                        "az_token_ended",
                        TroubleKind::InvalidCredential,
                        Retry::Never,
                        text,
                    ));
                }
                Ok(kept)
            })
        });
        Ok(Login {
            token: fetch,
            endpoint,
            roots,
            subscription: token.subscription,
        })
    }
}

impl Login {
    /// ARM, asked with this login.
    pub(super) fn arm(&self, clock: &Clock) -> Result<Arm, LoginError> {
        let clock = clock.clone();
        let clock: WallClock = Arc::new(move || clock.unix_secs());
        Ok(Arm::new(
            &self.endpoint,
            &self.roots,
            Arc::clone(&self.token),
            clock,
        )?)
    }

    /// The login's own subscription, where it has one.
    pub(super) fn subscription(&self) -> Option<&str> {
        self.subscription.as_deref()
    }
}

/// How the service principal proves itself.
enum Held {
    Secret(Secret),
    Certificate(ClientCertificate),
    Assertion(Secret),
}

impl Held {
    fn proof(&self) -> Proof<'_> {
        match self {
            Self::Secret(secret) => Proof::Secret(secret),
            Self::Certificate(certificate) => Proof::Certificate(certificate),
            Self::Assertion(token) => Proof::Assertion(token),
        }
    }
}

/// What `az account get-access-token` prints, as far as it matters.
#[derive(Deserialize)]
struct AzToken {
    #[serde(rename = "accessToken", deserialize_with = "as_secret")]
    access_token: Secret,
    #[serde(default)]
    expires_on: Option<u64>,
    #[serde(default)]
    subscription: Option<String>,
}

fn as_secret<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
    String::deserialize(from).map(Secret::new)
}

/// What `az cloud show` prints, as far as it matters.
#[derive(Deserialize)]
struct AzCloud {
    endpoints: AzEndpoints,
}

#[derive(Deserialize)]
struct AzEndpoints {
    #[serde(rename = "resourceManager")]
    resource_manager: String,
}

/// Runs az and gives what it printed, or its own words about why not.
async fn run(az: &OsString, words: &[&str]) -> Result<Vec<u8>, LoginError> {
    let child = tokio::process::Command::new(az)
        .args(words)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(AZ_DEADLINE, child)
        .await
        .map_err(|_elapsed| LoginError::Az(format!("no answer within {} s", AZ_DEADLINE.as_secs())))?
        .map_err(|error| LoginError::Az(format!("it cannot be started: {error}")))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let why = said
        .lines()
        .find_map(|line| line.strip_prefix("ERROR: "))
        .or_else(|| said.lines().next())
        .unwrap_or("it failed without a word");
    Err(LoginError::Az(why.to_owned()))
}

fn parsed<T: serde::de::DeserializeOwned>(text: &[u8]) -> Result<T, LoginError> {
    serde_json::from_slice(text)
        .map_err(|error| LoginError::Az(format!("its answer cannot be read: {error}")))
}

/// An address out of a table, or out of az.
fn known<T: std::str::FromStr>(text: &str) -> Result<T, LoginError> {
    text.parse()
        .map_err(|_unreadable| LoginError::Environment(format!("`{text}` is not an address")))
}
