//! `env`: shell exports that lead `kubectl`, `az` and Azure SDKs to a running world.

use std::fmt::Write as _;

use anyhow::Context as _;
use podid_cli::printer::Printer;

use crate::args::WorldArgs;
use crate::control::Info;
use crate::control::client::Control;
use crate::state::Home;

pub(crate) fn run(args: &WorldArgs, printer: &mut Printer) -> anyhow::Result<()> {
    let WorldArgs { name } = args;
    let info = Control::find(&Home::locate(), name)?.info()?;
    let secret = std::fs::read_to_string(info.folder.join("client-secret"))
        .context("the world's secret cannot be read")?;
    printer.data(&exports(&info, &secret));
    Ok(())
}

fn exports(info: &Info, secret: &str) -> String {
    let ca = info.ca_file.display().to_string();
    let endpoints = &info.endpoints;
    let all = [
        ("KUBECONFIG", info.kubeconfig.display().to_string()),
        ("AZURE_AUTHORITY_HOST", format!("{}/", endpoints.authority)),
        (
            "AZURE_RESOURCE_MANAGER_ENDPOINT",
            endpoints.resource_manager.clone(),
        ),
        ("AZURE_POD_IDENTITY_AUTHORITY_HOST", endpoints.metadata.clone()),
        ("SSL_CERT_FILE", ca.clone()),
        ("REQUESTS_CA_BUNDLE", ca.clone()),
        ("NODE_EXTRA_CA_CERTS", ca),
        ("AZURE_TENANT_ID", info.tenant_id.clone()),
        ("AZURE_SUBSCRIPTION_ID", info.subscription_id.clone()),
        ("AZURE_CLIENT_ID", info.client_id.clone()),
        ("AZURE_CLIENT_SECRET", secret.to_owned()),
        ("PODID_WORLD", info.world.clone()),
    ];
    let mut text = String::new();
    for (name, value) in all {
        // Writing to a string cannot fail.
        let _written = writeln!(text, "export {name}={}", quoted(&value));
    }
    text
}

/// So that no shell makes anything else of it.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_quote_stays_one_word() {
        assert_eq!(quoted("/tmp/it's $HOME"), r"'/tmp/it'\''s $HOME'");
    }
}
