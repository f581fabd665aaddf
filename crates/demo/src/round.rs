//! One round of the sample workload: four checks, each says what came back. A failed check does not stop the others.

use serde_json::json;

use crate::arm::Arm;
use crate::door::DoorError;
use crate::metadata::{Metadata, Token};
use crate::printer::Printer;

/// What a round needs.
pub(crate) struct Round {
    pub(crate) metadata: Metadata,
    pub(crate) arm: Arm,
    pub(crate) subscription_id: String,
    pub(crate) resource_group: String,
    pub(crate) client_id: String,
    pub(crate) resource: String,
}

impl Round {
    /// Runs the four checks; gives the number of those that failed.
    ///
    /// The success lines are those of the tutorial, letter by letter.
    pub(crate) async fn run(&self, printer: &mut Printer) -> u32 {
        let endpoint = self.metadata.token_url();
        let client_id = self.client_id.as_str();
        let mut failed = 0;

        match self.count_machines().await {
            Ok(count) => {
                printer
                    .detail(&json!({ "event": "arm", "resourceGroup": self.resource_group, "vms": count }));
                printer.line(&format!("successfully doARMOperations vm count {count}"));
            }
            Err(error) => failed += failure(printer, "failed doARMOperations", &error),
        }
        match self.metadata.token(&self.resource, None).await {
            Ok(token) => {
                printer.detail(&about(&token));
                printer.line(&format!(
                    "successfully acquired a token using the MSI, msiEndpoint({endpoint})"
                ));
            }
            Err(error) => {
                failed += failure(
                    printer,
                    &format!("failed to acquire a token using the MSI, msiEndpoint({endpoint})"),
                    &error,
                );
            }
        }
        let named = format!("userAssignedID MSI, msiEndpoint({endpoint}) clientID({client_id})");
        match self.metadata.token(&self.resource, Some(client_id)).await {
            Ok(token) => {
                printer.detail(&about(&token));
                printer.line(&format!("successfully acquired a token, {named}"));
            }
            Err(error) => failed += failure(printer, &format!("failed to acquire a token, {named}"), &error),
        }
        match self.metadata.instance().await {
            Ok(instance) => {
                let compute = instance.compute;
                printer.detail(&json!({
                    "event": "instance", "name": compute.name, "location": compute.location,
                    "scaleSet": compute.vm_scale_set_name,
                }));
                printer.line("successfully made GET on instance metadata");
            }
            Err(error) => failed += failure(printer, "failed to make GET on instance metadata", &error),
        }
        failed
    }

    async fn count_machines(&self) -> Result<usize, DoorError> {
        let token = self.metadata.token(&self.resource, Some(&self.client_id)).await?;
        self.arm
            .count_machines(&token, &self.subscription_id, &self.resource_group)
            .await
    }
}

/// What may be said of a token.
fn about(token: &Token) -> serde_json::Value {
    json!({
        "event": "token", "clientId": token.client_id, "expiresOn": token.expires_on, "resource": token.resource,
    })
}

/// Says the whole chain of causes on one line; counts as one failure.
fn failure(printer: &mut Printer, what: &str, error: &DoorError) -> u32 {
    let mut chain = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        chain = format!("{chain}: {cause}");
        source = cause.source();
    }
    let chain = chain.replace(['\n', '\r'], " ");
    printer.detail(&json!({ "event": "error", "check": what, "error": chain }));
    printer.line(&format!("{what}: {chain}"));
    1
}
