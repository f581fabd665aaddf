//! Azure's clouds and their endpoints. One that is not in the table (Azure Stack, an emulator) is given by its endpoints.

use std::str::FromStr;

use thiserror::Error;

/// A cloud of Azure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cloud {
    /// Public Azure.
    #[default]
    Public,
    /// Azure for the US government.
    UsGovernment,
    /// Azure in China, by 21Vianet.
    China,
}

/// Not the name of a cloud.
#[derive(Debug, Error)]
#[error("{0:?} is not a cloud (AzurePublicCloud, AzureUSGovernmentCloud or AzureChinaCloud); {1}")]
pub struct CloudError(String, &'static str);

/// One row: names (the first one is printed), authority, ARM, audience of federated credentials.
struct Row {
    cloud: Cloud,
    names: &'static [&'static str],
    authority: &'static str,
    arm: &'static str,
    federation_audience: &'static str,
}

/// Source: go-autorest's environments, as aad-pod-identity v1.8.17 has them; audiences:
/// <https://learn.microsoft.com/entra/workload-id/workload-identity-federation-create-trust-user-assigned-managed-identity>.
const TABLE: [Row; 3] = [
    Row {
        cloud: Cloud::Public,
        names: &["AzurePublicCloud", "AzureCloud"],
        authority: "https://login.microsoftonline.com/",
        arm: "https://management.azure.com/",
        federation_audience: "api://AzureADTokenExchange",
    },
    Row {
        cloud: Cloud::UsGovernment,
        names: &["AzureUSGovernmentCloud", "AzureUSGovernment"],
        authority: "https://login.microsoftonline.us/",
        arm: "https://management.usgovcloudapi.net/",
        federation_audience: "api://AzureADTokenExchangeUSGov",
    },
    Row {
        cloud: Cloud::China,
        names: &["AzureChinaCloud"],
        authority: "https://login.chinacloudapi.cn/",
        arm: "https://management.chinacloudapi.cn/",
        federation_audience: "api://AzureADTokenExchangeChina",
    },
];

impl Cloud {
    /// All clouds.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.cloud)
    }

    fn row(self) -> &'static Row {
        TABLE
            .iter()
            .find(|row| row.cloud == self)
            .expect("every cloud has a row")
    }

    /// Its name, as `azure.json` has it.
    pub fn name(self) -> &'static str {
        self.row().names.first().copied().unwrap_or_default()
    }

    /// Base URL of Entra.
    pub fn authority(self) -> &'static str {
        self.row().authority
    }

    /// Base URL of ARM, which is also the audience of tokens for it.
    pub fn arm(self) -> &'static str {
        self.row().arm
    }

    /// Audience that Entra expects of a token that is exchanged.
    pub fn federation_audience(self) -> &'static str {
        self.row().federation_audience
    }
}

impl FromStr for Cloud {
    type Err = CloudError;

    fn from_str(text: &str) -> Result<Self, CloudError> {
        let row = TABLE
            .iter()
            .find(|row| row.names.iter().any(|name| name.eq_ignore_ascii_case(text)));
        row.map(|row| row.cloud).ok_or_else(|| {
            let hint = if text.eq_ignore_ascii_case("AzureGermanCloud") {
                "Azure Germany was closed in 2021"
            } else {
                "for Azure Stack give the endpoints themselves"
            };
            CloudError(text.to_owned(), hint)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clouds_are_read_in_any_case_and_others_are_refused_with_what_to_do() {
        for cloud in Cloud::all() {
            assert_eq!(cloud.name().to_uppercase().parse::<Cloud>().unwrap(), cloud);
        }
        let closed = "AzureGermanCloud".parse::<Cloud>().unwrap_err().to_string();
        assert!(closed.contains("closed in 2021"), "{closed}");
        "".parse::<Cloud>().unwrap_err();
    }
}
