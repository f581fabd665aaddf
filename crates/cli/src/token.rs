//! `podid token`: tokens of pods of this node, for tests, through the agent's admin socket. Root only; each use is in the
//! agent's log.

use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde_json::Value;

use crate::agent::{AgentArgs, about};
use crate::error::CliError;
use crate::explain::AsksArgs;
use crate::output::{self, Format, Listing};
use crate::printer::Printer;

/// What `podid token` does.
#[derive(Subcommand, Clone, Debug)]
#[command(after_long_help = "\
For tests, as root, on the pod's node: the agent is asked at its admin socket, and logs who asked.

Examples:
  curl -H \"Authorization: Bearer $(podid token get web-7d4b9 -n my-app)\" https://management.azure.com/…
  podid token get web-7d4b9 -n my-app --resource https://vault.azure.net -o json
  podid token list
  podid token refresh web-7d4b9 -n my-app")]
pub enum TokenCommand {
    /// Print a token exactly as the pod would get it
    Get(GetTokenArgs),
    /// Fetch the kept tokens of the pod's identity anew; the old ones stay when that fails
    Refresh(RefreshArgs),
    /// Show which tokens the agent keeps, without the tokens
    List(ListTokensArgs),
}

/// Which pod, and what it asks for.
#[derive(Args, Clone, Debug)]
pub struct PodArgs {
    /// Name of the pod, which runs on this node
    #[arg(value_name = "POD")]
    pub pod: String,
    /// Its namespace
    #[arg(short, long, value_name = "NS", default_value = "default")]
    pub namespace: String,
    /// Audience of the token, as the pod would ask for it
    #[arg(long, value_name = "URI")]
    pub resource: Option<String>,
    #[command(flatten)]
    pub asks: AsksArgs,
    #[command(flatten)]
    pub agent: AgentArgs,
}

/// Flags of `podid token get`.
#[derive(Args, Clone, Debug)]
pub struct GetTokenArgs {
    #[command(flatten)]
    pub pod: PodArgs,
    /// Format: the token alone, or the whole answer
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "token")]
    pub output: TokenFormat,
}

/// How a token is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TokenFormat {
    /// The token alone.
    Token,
    /// The whole answer, as the metadata service gives it.
    Json,
}

/// Flags of `podid token refresh`.
#[derive(Args, Clone, Debug)]
pub struct RefreshArgs {
    #[command(flatten)]
    pub pod: PodArgs,
    /// Format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
}

/// Flags of `podid token list`.
#[derive(Args, Clone, Debug)]
pub struct ListTokensArgs {
    #[command(flatten)]
    pub agent: AgentArgs,
    /// Format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
}

impl PodArgs {
    async fn ask(self, path: &str) -> Result<Value, CliError> {
        let Self {
            pod,
            namespace,
            resource,
            asks,
            agent,
        } = self;
        let target = about(path, &format!("{namespace}/{pod}"), resource.as_deref(), &asks);
        agent.ask(Method::POST, target).await
    }
}

impl TokenCommand {
    pub(crate) async fn run(self, printer: &mut Printer) -> Result<(), CliError> {
        match self {
            Self::Get(GetTokenArgs { pod, output }) => {
                let answer = pod.ask("/tokens").await?;
                match output {
                    TokenFormat::Token => printer.data(&text(&answer, "access_token")),
                    TokenFormat::Json => output::object(&answer, "", Format::Json, printer)?,
                }
            }
            Self::Refresh(RefreshArgs { pod, output }) => {
                let answer = pod.ask("/tokens/refresh").await?;
                let identity = text(&answer, "identity");
                let tokens = list(&answer);
                let row = |token: &Value| {
                    vec![
                        identity.clone(),
                        text(token, "resource"),
                        text(token, "expires_in"),
                        text(token.get("error").unwrap_or(&Value::Null), "message"),
                    ]
                };
                let failed = tokens.iter().filter(|token| token.get("error").is_some()).count();
                Listing {
                    what: "tokens",
                    titles: vec!["IDENTITY", "RESOURCE", "SECONDS", "ERROR"],
                    rows: tokens.iter().map(row).collect(),
                    names: tokens.iter().map(|token| text(token, "resource")).collect(),
                    data: &answer,
                }
                .print(output, printer)?;
                if failed > 0 {
                    return Err(CliError::NotRefreshed { failed });
                }
            }
            Self::List(ListTokensArgs { agent, output }) => {
                let answer = agent.ask(Method::GET, "/tokens".to_owned()).await?;
                let tokens = list(&answer);
                let row = |token: &Value| {
                    vec![
                        text(token, "identity"),
                        text(token, "resource"),
                        text(token, "via"),
                        text(token, "expires_in"),
                        text(token, "failures"),
                    ]
                };
                Listing {
                    what: "tokens",
                    titles: vec!["IDENTITY", "RESOURCE", "VIA", "SECONDS", "FAILURES"],
                    rows: tokens.iter().map(row).collect(),
                    names: tokens.iter().map(|token| text(token, "identity")).collect(),
                    data: &answer,
                }
                .print(output, printer)?;
            }
        }
        Ok(())
    }
}

fn list(answer: &Value) -> Vec<Value> {
    answer
        .get("tokens")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default()
}

/// A member as text; empty when there is none.
fn text(of: &Value, member: &str) -> String {
    match of.get(member) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
