//! What needs no right: the cloud's endpoints in their three shapes, tenants, subscriptions, locations.

use http::Method;
use serde_json::{Value, json};

use crate::answer::{Answer, list};
use crate::cloud::Cloud;
use crate::front::Ask;

/// The audiences of the public cloud: only the endpoints are local. Source: requests of az 2.91.0 and answers that people pasted.
const AUDIENCES: [&str; 2] = [
    "https://management.core.windows.net/",
    "https://management.azure.com/",
];

/// `/metadata/endpoints`, without a token.
pub(crate) fn answer(cloud: &Cloud, ask: &Ask) -> Option<Answer> {
    if ask.path.lower() != ["metadata", "endpoints"] || ask.method != Method::GET {
        return None;
    }
    let version = ask.query.arm("api-version").unwrap_or("2015-01-01");
    let cloud = endpoints(cloud, &ask.base);
    // An object for the oldest and the newest, a list between.
    Some(if version > "2015-01-01" && version < "2022-09-01" {
        Answer::ok(json!([cloud]))
    } else {
        Answer::ok(cloud)
    })
}

fn endpoints(cloud: &Cloud, base: &str) -> Value {
    json!({
        "name": "AzureEmulator",
        "portal": base,
        "authentication": {
            "loginEndpoint": base, "audiences": AUDIENCES, "tenant": "common", "identityProvider": "AAD",
        },
        "galleryEndpoint": base,
        "graphEndpoint": base,
        "graph": base,
        "graphAudience": base,
        "gallery": base,
        "resourceManager": base,
        "microsoftGraphResourceId": format!("{base}/"),
        "azmirrorStorageAccountResourceId": format!("{base}/mirror"),
        "suffixes": {
            "acrLoginServer": "azurecr.io", "keyVaultDns": "vault.azure.net", "sqlServerHostname": "database.windows.net",
            "storage": "core.windows.net",
        },
        "tenantId": cloud.settings.tenant,
    })
}

/// `/tenants`.
pub(crate) fn tenants(cloud: &Cloud) -> Answer {
    let tenant = &cloud.settings.tenant;
    list(vec![json!({
        "id": format!("/tenants/{tenant}"), "tenantId": tenant, "countryCode": "US", "displayName": "azure-emulator",
        "domains": ["azure-emulator.onmicrosoft.com"], "tenantCategory": "Home", "tenantType": "AAD",
        "defaultDomain": "azure-emulator.onmicrosoft.com",
    })])
}

/// `/subscriptions` and `/subscriptions/ID`.
pub(crate) fn subscriptions(cloud: &Cloud, ask: &Ask) -> Answer {
    let (subscription, tenant) = (&cloud.settings.subscription, &cloud.settings.tenant);
    let one = json!({
        "id": format!("/subscriptions/{subscription}"), "subscriptionId": subscription, "tenantId": tenant,
        "displayName": "azure-emulator", "state": "Enabled", "authorizationSource": "RoleBased", "managedByTenants": [],
        "subscriptionPolicies": {
            "locationPlacementId": "Public_2014-09-01", "quotaId": "PayAsYouGo_2014-09-01", "spendingLimit": "Off",
        },
    });
    if ask.path.lower().len() == 1 {
        return Answer::ok(json!({ "value": [one], "count": { "type": "Total", "value": 1 } }));
    }
    Answer::ok(one)
}

/// `/subscriptions/ID/locations`.
pub(crate) fn locations(cloud: &Cloud) -> Answer {
    let subscription = &cloud.settings.subscription;
    let all = [
        ("eastus", "East US"),
        ("eastus2", "East US 2"),
        ("westus2", "West US 2"),
        ("westeurope", "West Europe"),
        ("northeurope", "North Europe"),
        ("koreacentral", "Korea Central"),
    ];
    list(
        all.iter()
            .map(|(name, shown)| {
                json!({
                    "id": format!("/subscriptions/{subscription}/locations/{name}"), "name": name, "type": "Region",
                    "displayName": shown, "regionalDisplayName": shown,
                    "metadata": { "regionType": "Physical", "regionCategory": "Recommended" },
                })
            })
            .collect(),
    )
}
