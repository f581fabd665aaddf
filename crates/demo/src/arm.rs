//! Azure Resource Manager: the list of virtual machines of a resource group.

use reqwest::{Client, Url};
use serde::Deserialize;

use crate::door::{DoorError, fetch};
use crate::flags::Endpoint;
use crate::metadata::Token;

/// Source: <https://learn.microsoft.com/rest/api/compute/virtual-machines/list>.
const COMPUTE_VERSION: &str = "2018-06-01";
/// Pages that are followed at most; a page has some hundred machines.
const MAX_PAGES: usize = 100;

const WHAT: &str = "list of virtual machines";

/// Azure Resource Manager.
pub(crate) struct Arm {
    http: Client,
    endpoint: Endpoint,
}

#[derive(Deserialize)]
struct Page {
    value: Vec<serde::de::IgnoredAny>,
    #[serde(rename = "nextLink", default)]
    next_link: Option<String>,
}

impl Arm {
    pub(crate) fn new(http: Client, endpoint: Endpoint) -> Self {
        Self { http, endpoint }
    }

    /// How many virtual machines the group has.
    pub(crate) async fn count_machines(
        &self,
        token: &Token,
        subscription_id: &str,
        resource_group: &str,
    ) -> Result<usize, DoorError> {
        let mut url = self.endpoint.segments(&[
            "subscriptions",
            subscription_id,
            "resourceGroups",
            resource_group,
            "providers",
            "Microsoft.Compute",
            "virtualMachines",
        ]);
        url.query_pairs_mut().append_pair("api-version", COMPUTE_VERSION);
        let mut count = 0_usize;
        for _page in 0..MAX_PAGES {
            let page: Page = fetch(WHAT, self.http.get(url.clone()).bearer_auth(token.expose())).await?;
            count = count.saturating_add(page.value.len());
            let Some(next) = page.next_link.filter(|next| !next.is_empty()) else {
                break;
            };
            // The token is for this endpoint only.
            url = match Url::parse(&next) {
                Ok(next) if self.endpoint.owns(&next) => next,
                _ => {
                    return Err(DoorError::StrayPage {
                        what: WHAT,
                        url: next,
                    });
                }
            };
        }
        Ok(count)
    }
}
