//! The requests, as SDKs send them, written once as bytes; and the connections over which they go.

use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::IDENTITIES;
use crate::process::Azure;

/// Which request comes at that place in a row.
pub(crate) type Next = fn(&Calls, usize) -> Call;

/// A request.
pub(crate) struct Call {
    pub(crate) door: Door,
    bytes: String,
}

/// Over which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Https,
    Imds,
}

/// What the requests are made of.
pub(crate) struct Calls {
    connector: TlsConnector,
    https: std::net::SocketAddr,
    imds: std::net::SocketAddr,
    subscription: String,
    tenant: String,
    form: String,
    token: String,
}

/// A client's connections, kept.
pub(crate) struct Wire {
    https: TlsStream<TcpStream>,
    imds: TcpStream,
    room: Vec<u8>,
}

impl Calls {
    /// Signs in as the built-in principal.
    pub(crate) async fn sign_in(azure: &Azure) -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&azure.authority()?) {
            roots.add(certificate?)?;
        }
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (id, secret) = (azure.said("clientId")?, azure.said("clientSecret")?);
        let mut calls = Self {
            connector: TlsConnector::from(Arc::new(config)),
            https: azure.https,
            imds: azure.imds,
            subscription: format!("/subscriptions/{}", azure.said("subscriptionId")?),
            tenant: azure.said("tenantId")?.to_owned(),
            form: format!(
                "client_id={id}&client_secret={secret}&grant_type=client_credentials&scope=https%3A%2F%2Fmanagement.azure.com%2F.default"
            ),
            token: String::new(),
        };
        let answer = calls.once(&calls.entra(0)).await?;
        let token = answer.get("access_token").and_then(Value::as_str);
        token
            .context("an answer with a token")?
            .clone_into(&mut calls.token);
        Ok(calls)
    }

    /// The group that the identities are in.
    pub(crate) async fn group(&self) -> anyhow::Result<()> {
        let path = format!("{}/resourceGroups/bench", self.subscription);
        self.once(&self.arm("PUT", &path, "", Some(&json!({ "location": "eastus" }))))
            .await?;
        Ok(())
    }

    /// Puts the first identity on the machine that asks IMDS.
    pub(crate) async fn assign(&self) -> anyhow::Result<()> {
        let path = format!(
            "{}/resourceGroups/azure-emulator/providers/Microsoft.Compute/virtualMachines/vm-0",
            self.subscription
        );
        let identity = self.identity(0);
        let body =
            json!({ "identity": { "type": "UserAssigned", "userAssignedIdentities": { identity: {} } } });
        self.once(&self.arm("PATCH", &path, "", Some(&body))).await?;
        Ok(())
    }

    fn identity(&self, n: usize) -> String {
        // Neighbours in time are not neighbours in the store.
        let n = n * 7_919 % IDENTITIES;
        format!(
            "{}/resourceGroups/bench/providers/Microsoft.ManagedIdentity/userAssignedIdentities/identity-{n:05}",
            self.subscription
        )
    }

    pub(crate) fn read(&self, n: usize) -> Call {
        self.arm("GET", &self.identity(n), "", None)
    }

    pub(crate) fn write(&self, n: usize) -> Call {
        let body = json!({ "location": "eastus", "tags": { "written": n.to_string() } });
        self.arm("PUT", &self.identity(n), "", Some(&body))
    }

    pub(crate) fn credential(&self, n: usize) -> Call {
        let path = format!("{}/federatedIdentityCredentials/one", self.identity(n / 2));
        if n % 2 == 1 {
            return self.arm("DELETE", &path, "", None);
        }
        let body = json!({ "properties": {
            "issuer": "https://issuer.example.test", "subject": "system:serviceaccount:ns:sa", "audiences": ["api://AzureADTokenExchange"],
        } });
        self.arm("PUT", &path, "", Some(&body))
    }

    fn credentials(&self, n: usize) -> Call {
        self.arm(
            "GET",
            &format!("{}/federatedIdentityCredentials", self.identity(n)),
            "",
            None,
        )
    }

    pub(crate) fn first_page(&self, _n: usize) -> Call {
        let path = format!(
            "{}/providers/Microsoft.ManagedIdentity/userAssignedIdentities",
            self.subscription
        );
        self.arm("GET", &path, "", None)
    }

    pub(crate) fn last_page(&self, _n: usize) -> Call {
        let path = format!(
            "{}/providers/Microsoft.ManagedIdentity/userAssignedIdentities",
            self.subscription
        );
        self.arm("GET", &path, &format!("&%24skiptoken={}", IDENTITIES - 200), None)
    }

    pub(crate) fn entra(&self, _n: usize) -> Call {
        let head = format!("POST /{}/oauth2/v2.0/token HTTP/1.1\r\n", self.tenant);
        let form = "Content-Type: application/x-www-form-urlencoded\r\n";
        Call {
            door: Door::Https,
            bytes: format!(
                "{head}Host: {}\r\n{form}Content-Length: {}\r\n\r\n{}",
                self.https,
                self.form.len(),
                self.form
            ),
        }
    }

    pub(crate) fn imds(&self, _n: usize) -> Call {
        let target =
            "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net";
        Call {
            door: Door::Imds,
            bytes: format!(
                "GET {target} HTTP/1.1\r\nHost: {}\r\nMetadata: true\r\n\r\n",
                self.imds
            ),
        }
    }

    /// 70 % reads, 10 % writes, 10 % IMDS, 5 % lists of credentials, 5 % Entra.
    pub(crate) fn mixed(&self, n: usize) -> Call {
        match n % 20 {
            0 | 10 => self.write(n),
            1 | 11 => self.imds(n),
            2 => self.credentials(n),
            3 => self.entra(n),
            _ => self.read(n),
        }
    }

    fn arm(&self, method: &str, path: &str, query: &str, body: Option<&Value>) -> Call {
        let body = body.map(Value::to_string).unwrap_or_default();
        let kind = if body.is_empty() {
            ""
        } else {
            "Content-Type: application/json\r\n"
        };
        Call {
            door: Door::Https,
            bytes: format!(
                "{method} {path}?api-version=2024-11-30{query} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\nAuthorization: Bearer {}\r\n\
                 User-Agent: azsdk-python-mgmt-msi/7.1.0 Python/3.12.3 (Linux-6.8.0-x86_64)\r\n{kind}Content-Length: {}\r\n\r\n{body}",
                self.https,
                self.token,
                body.len()
            ),
        }
    }

    /// New connections.
    pub(crate) async fn connect(&self) -> anyhow::Result<Wire> {
        let (https, imds) = (
            TcpStream::connect(self.https).await?,
            TcpStream::connect(self.imds).await?,
        );
        https.set_nodelay(true)?;
        imds.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.https.ip().into());
        let https = self
            .connector
            .connect(name, https)
            .await
            .context("TLS with the emulator")?;
        Ok(Wire {
            https,
            imds,
            room: vec![0; 1 << 20],
        })
    }

    async fn once(&self, call: &Call) -> anyhow::Result<Value> {
        let mut wire = self.connect().await?;
        let (status, body) = wire.ask(call).await?;
        ensure!(
            (200..300).contains(&status),
            "answered {status}: {}",
            String::from_utf8_lossy(body)
        );
        serde_json::from_slice(body).context("an answer in JSON")
    }
}

impl Wire {
    /// Status and body of the answer.
    pub(crate) async fn ask(&mut self, call: &Call) -> anyhow::Result<(u16, &[u8])> {
        let Self { https, imds, room } = self;
        match call.door {
            Door::Https => exchange(https, &call.bytes, room).await,
            Door::Imds => exchange(imds, &call.bytes, room).await,
        }
    }
}

async fn exchange<'a>(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &str,
    room: &'a mut [u8],
) -> anyhow::Result<(u16, &'a [u8])> {
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let (mut have, mut whole) = (0, None);
    loop {
        if let Some((status, from, to)) = whole
            && have >= to
        {
            return Ok((status, room.get(from..to).unwrap_or_default()));
        }
        let read = stream.read(room.get_mut(have..).unwrap_or_default()).await?;
        if read == 0 {
            bail!("the connection was closed after {have} bytes of an answer");
        }
        have += read;
        if whole.is_none() {
            whole = head(room.get(..have).unwrap_or_default())?;
        }
    }
}

/// Status, and where the body begins and ends, once the head is there.
fn head(got: &[u8]) -> anyhow::Result<Option<(u16, usize, usize)>> {
    let Some(end) = got.windows(4).position(|end| end == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(got.get(..end).unwrap_or_default())?;
    let status = text.get(9..12).context("an answer without status")?.parse()?;
    let length = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.map_or(Ok(0), |(_, length)| length.trim().parse())?;
    Ok(Some((status, end + 4, end + 4 + length)))
}
