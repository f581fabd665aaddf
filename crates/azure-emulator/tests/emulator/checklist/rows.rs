//! The requests, row by row. They say what is sent and what `az` reads; asking is the test's.

/// Who asks.
#[derive(Clone, Copy)]
pub(super) enum Door {
    /// Anybody.
    Open,
    /// Whoever has a token for ARM.
    Arm,
    /// Whoever has a token for Graph.
    Graph,
}

/// What is sent.
#[derive(Clone, Copy)]
pub(super) enum Sent {
    Nothing,
    /// This, JSON.
    Json(&'static str),
    /// The managed cluster as it was read, with this put at that place: how each pod identity command writes.
    Edited(&'static str, &'static str),
}

/// One request. `{name}` in path and body is what was kept under that name.
pub(super) struct Ask {
    pub(super) door: Door,
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) sent: Sent,
    pub(super) status: u16,
    pub(super) must: &'static [&'static str],
    pub(super) keep: &'static [(&'static str, &'static str)],
}

pub(super) const fn ask(
    method: &'static str,
    path: &'static str,
    status: u16,
    must: &'static [&'static str],
) -> Ask {
    Ask {
        door: Door::Arm,
        method,
        path,
        sent: Sent::Nothing,
        status,
        must,
        keep: &[],
    }
}

impl Ask {
    pub(super) const fn sends(self, json: &'static str) -> Self {
        Self {
            sent: Sent::Json(json),
            ..self
        }
    }

    pub(super) const fn edits(self, at: &'static str, json: &'static str) -> Self {
        Self {
            sent: Sent::Edited(at, json),
            ..self
        }
    }

    pub(super) const fn keeps(self, keep: &'static [(&'static str, &'static str)]) -> Self {
        Self { keep, ..self }
    }

    pub(super) const fn at(self, door: Door) -> Self {
        Self { door, ..self }
    }
}

pub(super) const MC: &str = "/subscriptions/{S}/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/c?api-version=2026-06-01";
pub(super) const GROUP: &str = "/subscriptions/{S}/resourcegroups/g?api-version=2024-11-01";
pub(super) const NODE_GROUP: &str = "/subscriptions/{S}/resourcegroups/{nodeGroup}?api-version=2024-11-01";
pub(super) const IDENTITY: &str = "/subscriptions/{S}/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/app?api-version=2025-05-31-preview";
pub(super) const SERVICE_PRINCIPALS: &str =
    "/v1.0/servicePrincipals?$filter=servicePrincipalNames/any%28c:c%20eq%20%27{clientId}%27%29";
pub(super) const IDS: &str = r#"{"ids":["{principal}"],"types":["user","group","servicePrincipal","directoryObjectPartnerReference"]}"#;
pub(super) const OPERATOR: &str = r#"{"properties":{"roleDefinitionId":"{operator}","principalId":"{principal}","principalType":"ServicePrincipal"}}"#;
pub(super) const STATE: &str = "/properties/provisioningState";
pub(super) const ENTRIES: &str = "/properties/podIdentityProfile/userAssignedIdentities";
pub(super) const EXCEPTIONS: &str = "/properties/podIdentityProfile/userAssignedIdentityExceptions";

/// The rows, by the document's lines.
pub(super) const ROWS: &[(&str, &[Ask])] = &[
    (
        "cloud register",
        &[
            ask(
                "GET",
                "/metadata/endpoints?api-version=2022-09-01",
                200,
                &[
                    "/name",
                    "/authentication/loginEndpoint",
                    "/authentication/audiences/0",
                    "/resourceManager",
                    "/suffixes",
                    "/microsoftGraphResourceId",
                    "/azmirrorStorageAccountResourceId",
                ],
            )
            .at(Door::Open),
            ask(
                "GET",
                "/metadata/endpoints?api-version=2019-05-01",
                200,
                &[
                    "/0/name",
                    "/0/resourceManager",
                    "/0/authentication/loginEndpoint",
                ],
            )
            .at(Door::Open),
            ask(
                "GET",
                "/metadata/endpoints?api-version=2015-01-01",
                200,
                &[
                    "/galleryEndpoint",
                    "/graphEndpoint",
                    "/authentication/audiences/0",
                ],
            )
            .at(Door::Open),
        ],
    ),
    (
        "login --service-principal",
        &[
            ask(
                "GET",
                "/{T}/v2.0/.well-known/openid-configuration",
                200,
                &["/authorization_endpoint", "/token_endpoint"],
            )
            .at(Door::Open),
            ask(
                "GET",
                "/subscriptions?api-version=2022-12-01",
                200,
                &[
                    "/value/0/id",
                    "/value/0/subscriptionId",
                    "/value/0/displayName",
                    "/value/0/state",
                    "/value/0/tenantId",
                ],
            ),
            ask(
                "GET",
                "/tenants?api-version=2022-12-01",
                200,
                &["/value/0/tenantId"],
            ),
            ask(
                "GET",
                "/subscriptions/{S}/locations?api-version=2022-12-01",
                200,
                &["/value/0/name", "/value/0/displayName"],
            ),
        ],
    ),
    (
        "feature register, feature show, feature list",
        &[
            ask(
                "POST",
                "/subscriptions/{S}/providers/Microsoft.Features/providers/Microsoft.ContainerService/features/EnablePodIdentityPreview/register?api-version=2021-07-01",
                200,
                &["/name", "/properties/state"],
            ),
            ask(
                "GET",
                "/subscriptions/{S}/providers/Microsoft.Features/providers/Microsoft.ContainerService/features/EnablePodIdentityPreview?api-version=2021-07-01",
                200,
                &["/name", "/properties/state"],
            ),
            ask(
                "GET",
                "/subscriptions/{S}/providers/Microsoft.Features/providers/Microsoft.ContainerService/features?api-version=2021-07-01",
                200,
                &["/value/0/name"],
            ),
        ],
    ),
    (
        "provider register, provider show",
        &[
            ask(
                "POST",
                "/subscriptions/{S}/providers/Microsoft.ContainerService/register?api-version=2024-11-01",
                200,
                &["/registrationState"],
            ),
            ask(
                "GET",
                "/subscriptions/{S}/providers/Microsoft.ContainerService?api-version=2024-11-01",
                200,
                &[
                    "/registrationState",
                    "/resourceTypes/0/resourceType",
                    "/resourceTypes/0/apiVersions/0",
                ],
            ),
        ],
    ),
    (
        "extension add, extension update",
        &[
            ask(
                "GET",
                "/mirror/extensions/index.json",
                200,
                &[
                    "/formatVersion",
                    "/extensions/aks-preview/0/filename",
                    "/extensions/aks-preview/0/sha256Digest",
                    "/extensions/aks-preview/0/metadata/version",
                ],
            )
            .at(Door::Open)
            .keeps(&[("wheel", "/extensions/aks-preview/0/filename")]),
            ask("GET", "/mirror/extensions/{wheel}", 200, &[]).at(Door::Open),
        ],
    ),
    (
        "group create, show, exists, list",
        &[
            ask("HEAD", GROUP, 404, &[]),
            ask("GET", GROUP, 404, &["/error/code"]),
            ask(
                "PUT",
                GROUP,
                201,
                &["/id", "/name", "/location", "/properties/provisioningState"],
            )
            .sends(r#"{"location":"eastus"}"#),
            ask("PUT", GROUP, 200, &["/id"]).sends(r#"{"location":"eastus"}"#),
            ask("GET", GROUP, 200, &["/id", "/location"]),
            ask("HEAD", GROUP, 204, &[]),
            ask(
                "GET",
                "/subscriptions/{S}/resourcegroups?api-version=2024-11-01",
                200,
                &["/value/0/id"],
            ),
        ],
    ),
    (
        "aks create --enable-pod-identity, aks list",
        &[
            ask("GET", MC, 404, &["/error/code"]),
            ask("PUT", MC, 201, &[STATE, "/id", "/location"]).sends(
                r#"{"location":"eastus","identity":{"type":"SystemAssigned"},"sku":{"name":"Base","tier":"Free"},"properties":{
                "kubernetesVersion":"","dnsPrefix":"c-g-000000","enableRBAC":true,"disableLocalAccounts":false,"agentPoolProfiles":[{
                "name":"nodepool1","count":3,"vmSize":"","osType":"Linux","type":"VirtualMachineScaleSets","mode":"System",
                "orchestratorVersion":"","enableAutoScaling":false,"scaleSetPriority":"Regular","nodeTaints":[],"upgradeSettings":{},
                "enableNodePublicIP":false,"enableEncryptionAtHost":false,"enableUltraSSD":false,"enableFIPS":false}],
                "networkProfile":{"networkPlugin":"azure","loadBalancerSku":"standard","outboundType":"loadBalancer"},
                "addonProfiles":{},"storageProfile":{},"bootstrapProfile":{"artifactSource":"Direct"},
                "podIdentityProfile":{"enabled":true}}}"#,
            ),
            ask("GET", "{operation}", 200, &["/status", "/name"]),
            ask(
                "GET",
                MC,
                200,
                &[
                    STATE,
                    "/properties/nodeResourceGroup",
                    "/identity/principalId",
                    "/identity/tenantId",
                    "/properties/networkProfile/networkPlugin",
                    "/properties/podIdentityProfile/enabled",
                    "/properties/servicePrincipalProfile/clientId",
                    "/properties/identityProfile/kubeletidentity/resourceId",
                    "/properties/fqdn",
                    "/properties/currentKubernetesVersion",
                    "/properties/powerState/code",
                ],
            )
            .keeps(&[
                ("nodeGroup", "/properties/nodeResourceGroup"),
                ("clusterPrincipal", "/identity/principalId"),
            ]),
            ask(
                "GET",
                "/subscriptions/{S}/providers/Microsoft.ContainerService/managedClusters?api-version=2026-06-01",
                200,
                &["/value/0/id"],
            ),
        ],
    ),
    (
        "aks get-credentials",
        &[
            ask(
                "POST",
                "/subscriptions/{S}/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/c/listClusterUserCredential?api-version=2026-06-01",
                200,
                &["/kubeconfigs/0/value", "/kubeconfigs/0/name"],
            ),
            ask(
                "POST",
                "/subscriptions/{S}/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/c/listClusterAdminCredential?api-version=2026-06-01",
                200,
                &["/kubeconfigs/0/value"],
            ),
        ],
    ),
    (
        "aks update --enable-pod-identity",
        &[
            ask("PUT", MC, 200, &[STATE]).edits("/properties/podIdentityProfile/enabled", "true"),
            ask("GET", "{operation}", 200, &["/status"]),
        ],
    ),
    (
        "identity create, show, list",
        &[
            ask("GET", GROUP, 200, &["/location"]),
            ask(
                "PUT",
                IDENTITY,
                201,
                &[
                    "/id",
                    "/name",
                    "/location",
                    "/properties/clientId",
                    "/properties/principalId",
                    "/properties/tenantId",
                ],
            )
            .sends(r#"{"location":"eastus"}"#),
            ask("GET", IDENTITY, 200, &["/properties/clientId"]).keeps(&[
                ("clientId", "/properties/clientId"),
                ("principal", "/properties/principalId"),
                ("identity", "/id"),
            ]),
            ask(
                "GET",
                "/subscriptions/{S}/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities?api-version=2025-05-31-preview",
                200,
                &["/value/0/id"],
            ),
            ask(
                "GET",
                "/subscriptions/{S}/providers/Microsoft.ManagedIdentity/userAssignedIdentities?api-version=2025-05-31-preview",
                200,
                &["/value/0/id"],
            ),
        ],
    ),
    (
        "aks show --query nodeResourceGroup, group show of it",
        &[
            ask("GET", MC, 200, &["/properties/nodeResourceGroup"]),
            ask("GET", NODE_GROUP, 200, &["/id"]).keeps(&[("nodes", "/id")]),
        ],
    ),
    (
        "role assignment create --role NAME --assignee ID, and once more",
        &[
            ask("GET", SERVICE_PRINCIPALS, 200, &["/value/0/id"]).at(Door::Graph),
            ask(
                "POST",
                "/v1.0/directoryObjects/getByIds",
                200,
                &["/value/0/id", "/value/0/@odata.type"],
            )
            .at(Door::Graph)
            .sends(IDS),
            ask(
                "GET",
                "{nodes}/providers/Microsoft.Authorization/roleDefinitions?$filter=roleName%20eq%20%27Managed%20Identity%20Operator%27&api-version=2022-05-01-preview",
                200,
                &["/value/0/id", "/value/0/properties/roleName"],
            )
            .keeps(&[("operator", "/value/0/id")]),
            ask(
                "PUT",
                "{nodes}/providers/Microsoft.Authorization/roleAssignments/11111111-0000-4000-8000-000000000001?api-version=2022-04-01",
                201,
                &["/id", "/properties/principalId", "/properties/roleDefinitionId", "/properties/scope"],
            )
            .sends(OPERATOR),
            ask(
                "PUT",
                "{nodes}/providers/Microsoft.Authorization/roleAssignments/11111111-0000-4000-8000-000000000002?api-version=2022-04-01",
                409,
                &["/error/code"],
            )
            .sends(OPERATOR),
            ask(
                "GET",
                "{nodes}/providers/Microsoft.Authorization/roleAssignments?$filter=atScope%28%29&api-version=2022-04-01",
                200,
                &["/value/0/id"],
            ),
        ],
    ),
    (
        "aks pod-identity add, list",
        &[
            ask("GET", MC, 200, &["/properties/podIdentityProfile/enabled"]),
            ask(
                "GET",
                "/subscriptions/{S}/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/app?api-version=2024-11-30",
                200,
                &["/properties/clientId", "/properties/principalId"],
            ),
            ask(
                "GET",
                "/subscriptions/{S}/resourcegroups/g/providers/microsoft.managedidentity/userassignedidentities/app/providers/Microsoft.Authorization/roleAssignments?$filter=atScope%28%29%20and%20assignedTo%28%27{clusterPrincipal}%27%29&api-version=2022-04-01",
                200,
                &["/value"],
            ),
            ask(
                "GET",
                "/subscriptions/{S}/resourcegroups/g/providers/microsoft.managedidentity/userassignedidentities/app/providers/Microsoft.Authorization/roleDefinitions?$filter=roleName%20eq%20%27Managed%20Identity%20Operator%27&api-version=2022-05-01-preview",
                200,
                &["/value/0/id"],
            ),
            ask(
                "PUT",
                "/subscriptions/{S}/resourcegroups/g/providers/microsoft.managedidentity/userassignedidentities/app/providers/Microsoft.Authorization/roleAssignments/11111111-0000-4000-8000-000000000003?api-version=2022-04-01",
                201,
                &["/id"],
            )
            .sends(r#"{"properties":{"roleDefinitionId":"{operator}","principalId":"{clusterPrincipal}","principalType":"ServicePrincipal"}}"#),
            ask("PUT", MC, 200, &[STATE]).edits(
                ENTRIES,
                r#"[{"name":"my-pod-identity","namespace":"my-app","identity":{"resourceId":"{identity}","clientId":"{clientId}","objectId":"{principal}"}}]"#,
            ),
            ask("GET", "{operation}", 200, &["/status"]),
            ask(
                "GET",
                MC,
                200,
                &[
                    "/properties/podIdentityProfile/userAssignedIdentities/0/provisioningState",
                    "/properties/podIdentityProfile/userAssignedIdentities/0/identity/clientId",
                ],
            ),
        ],
    ),
    (
        "aks pod-identity exception add, update, delete; pod-identity delete",
        &[
            ask("PUT", MC, 200, &[STATE]).edits(EXCEPTIONS, r#"[{"name":"ex","namespace":"my-app","podLabels":{"app":"x"}}]"#),
            ask("GET", MC, 200, &["/properties/podIdentityProfile/userAssignedIdentityExceptions/0/podLabels/app"]),
            ask("PUT", MC, 200, &[STATE]).edits(EXCEPTIONS, r#"[{"name":"ex","namespace":"my-app","podLabels":{"app":"y"}}]"#),
            ask("PUT", MC, 200, &[STATE]).edits(EXCEPTIONS, "[]"),
            ask("PUT", MC, 200, &[STATE]).edits(ENTRIES, "[]"),
        ],
    ),
    (
        "role assignment list, delete; role definition list",
        &[
            ask(
                "GET",
                "/subscriptions/{S}/providers/Microsoft.Authorization/roleAssignments?$filter=principalId%20eq%20%27{principal}%27&api-version=2022-04-01",
                200,
                &["/value/0/id", "/value/0/properties/principalId"],
            ),
            ask(
                "GET",
                "/subscriptions/{S}/providers/Microsoft.Authorization/roleDefinitions?api-version=2022-05-01-preview",
                200,
                &["/value/0/properties/roleName"],
            ),
            ask(
                "DELETE",
                "{nodes}/providers/Microsoft.Authorization/roleAssignments/11111111-0000-4000-8000-000000000001?api-version=2022-04-01",
                200,
                &["/id"],
            ),
        ],
    ),
    (
        "vm list, vmss list, show, list-instances, identity assign, remove",
        &[
            ask(
                "GET",
                "/subscriptions/{S}/providers/Microsoft.Compute/virtualMachines?api-version=2026-04-01",
                200,
                &["/value"],
            ),
            ask(
                "GET",
                "/subscriptions/{S}/resourceGroups/g/providers/Microsoft.Compute/virtualMachines?api-version=2026-04-01",
                200,
                &["/value"],
            ),
            ask(
                "GET",
                "/subscriptions/{S}/resourceGroups/{nodeGroup}/providers/Microsoft.Compute/virtualMachineScaleSets?api-version=2024-11-01",
                200,
                &["/value/0/id"],
            )
            .keeps(&[("scaleSet", "/value/0/name")]),
            ask(
                "GET",
                "/subscriptions/{S}/resourceGroups/{nodeGroup}/providers/Microsoft.Compute/virtualMachineScaleSets/{scaleSet}?api-version=2026-04-01",
                200,
                &["/identity/type", "/identity/userAssignedIdentities"],
            ),
            ask(
                "PATCH",
                "/subscriptions/{S}/resourceGroups/{nodeGroup}/providers/Microsoft.Compute/virtualMachineScaleSets/{scaleSet}?api-version=2024-11-01",
                200,
                &["/identity/userAssignedIdentities"],
            )
            .sends(r#"{"identity":{"type":"UserAssigned","userAssignedIdentities":{"{identity}":{}}}}"#),
            ask(
                "PATCH",
                "/subscriptions/{S}/resourceGroups/{nodeGroup}/providers/Microsoft.Compute/virtualMachineScaleSets/{scaleSet}?api-version=2024-11-01",
                200,
                &["/identity/type"],
            )
            .sends(r#"{"identity":{"type":"UserAssigned","userAssignedIdentities":{"{identity}":null}}}"#),
            ask(
                "GET",
                "/subscriptions/{S}/resourceGroups/{nodeGroup}/providers/Microsoft.Compute/virtualMachineScaleSets/{scaleSet}/virtualMachines?api-version=2024-11-01",
                200,
                &["/value/0/instanceId"],
            ),
        ],
    ),
    (
        "aks update --enable-oidc-issuer, identity federated-credential",
        &[
            ask("PUT", MC, 200, &[STATE]).edits("/properties/oidcIssuerProfile", r#"{"enabled":true}"#),
            ask("GET", MC, 200, &["/properties/oidcIssuerProfile/issuerURL"]),
            ask(
                "PUT",
                "/subscriptions/{S}/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/app/federatedIdentityCredentials/f?api-version=2025-01-31-preview",
                201,
                &["/properties/issuer", "/properties/subject", "/properties/audiences/0"],
            )
            .sends(r#"{"properties":{"audiences":["api://AzureADTokenExchange"],"issuer":"https://issuer.example/","subject":"system:serviceaccount:n:s"}}"#),
            ask(
                "GET",
                "/subscriptions/{S}/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/app/federatedIdentityCredentials/f?api-version=2025-01-31-preview",
                200,
                &["/properties/subject"],
            ),
            ask(
                "GET",
                "/subscriptions/{S}/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/app/federatedIdentityCredentials?api-version=2025-01-31-preview",
                200,
                &["/value/0/id"],
            ),
            ask(
                "DELETE",
                "/subscriptions/{S}/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/app/federatedIdentityCredentials/f?api-version=2025-01-31-preview",
                200,
                &[],
            ),
        ],
    ),
    (
        "identity delete, aks delete, group delete",
        &[
            ask("DELETE", IDENTITY, 200, &[]),
            ask("DELETE", IDENTITY, 204, &[]),
            ask("DELETE", MC, 202, &[]),
            ask("GET", "{operation}", 200, &["/status"]),
            ask("DELETE", MC, 204, &[]),
            ask("DELETE", GROUP, 202, &[]),
            ask("DELETE", "/subscriptions/{S}/resourcegroups/none?api-version=2024-11-01", 404, &["/error/code"]),
        ],
    ),
];
