//! The emulator's answers against the golden bodies in `fixtures/azure`.

use std::path::PathBuf;

use podid_azure_emulator::{Authorization, Config, NodeConfig};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{ARM, Azure, CLUSTER, OPERATOR, Reply, cluster};

/// Compares answers and remembers what was compared.
struct Golden {
    folder: PathBuf,
    seen: Vec<String>,
}

impl Golden {
    fn open() -> Self {
        Self {
            folder: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/azure"),
            seen: Vec::new(),
        }
    }

    #[track_caller]
    fn check(&mut self, name: &str, reply: &Reply) {
        let text = std::fs::read_to_string(self.folder.join(format!("{name}.json")))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let golden: Value = serde_json::from_str(&text).unwrap();
        assert!(
            golden["source"].as_str().is_some_and(|source| !source.is_empty()),
            "{name} has no source"
        );
        assert_eq!(golden["status"], reply.status, "{name}: {}", reply.body);
        if let Err(difference) = like(&golden["body"], &reply.body, "") {
            panic!("{name}{difference}\n{}", reply.body);
        }
        for pointer in golden["exact"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            assert_eq!(
                golden["body"].pointer(pointer),
                reply.body.pointer(pointer),
                "{name}{pointer}"
            );
        }
        self.seen.push(format!("{name}.json"));
    }
}

/// Whether `answer` has the members of `golden`, of the same types. Null stands for anything that may be null.
fn like(golden: &Value, answer: &Value, at: &str) -> Result<(), String> {
    match (golden, answer) {
        (Value::Object(golden), Value::Object(answer)) => {
            golden
                .iter()
                .try_for_each(|(name, value)| match answer.get(name) {
                    Some(found) => like(value, found, &format!("{at}/{name}")),
                    None => Err(format!("{at}/{name} is missing")),
                })
        }
        (Value::Array(golden), Value::Array(answer)) => golden.first().map_or(Ok(()), |first| {
            if answer.is_empty() {
                return Err(format!("{at} is empty"));
            }
            answer
                .iter()
                .enumerate()
                .try_for_each(|(index, item)| like(first, item, &format!("{at}/{index}")))
        }),
        (Value::Null, _) => Ok(()),
        (golden, answer) if std::mem::discriminant(golden) == std::mem::discriminant(answer) => Ok(()),
        (golden, answer) => Err(format!("{at} is {answer} and should be like {golden}")),
    }
}

#[tokio::test]
async fn every_golden_body_is_what_the_emulator_answers() {
    let mut golden = Golden::open();
    let node = NodeConfig {
        name: "n".to_owned(),
        addresses: vec!["127.0.0.1".parse().unwrap()],
    };
    let azure = Azure::start(Config {
        nodes: vec![node],
        require_features: true,
        imds_quota: None,
        ..Config::default()
    })
    .await;
    let (id, secret, tenant) = (
        azure.emulator.client_id(),
        azure.emulator.client_secret(),
        azure.emulator.tenant_id(),
    );

    // Entra.
    golden.check("entra-token-v2", &azure.sign_in(id, secret, ARM).await);
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", id),
        ("client_secret", secret),
        ("resource", ARM),
    ];
    golden.check("entra-token-v1", &azure.form("oauth2/token", &fields).await);
    golden.check("entra-error-secret", &azure.sign_in(id, "wrong", ARM).await);
    golden.check(
        "entra-error-application",
        &azure.sign_in("nobody", secret, ARM).await,
    );
    let get = async |path: String| azure.send(azure.http.get(format!("{}{path}", azure.arm()))).await;
    golden.check(
        "entra-error-tenant",
        &get("/contoso.test/v2.0/.well-known/openid-configuration".to_owned()).await,
    );
    golden.check(
        "entra-openid-configuration",
        &get(format!("/{tenant}/v2.0/.well-known/openid-configuration")).await,
    );
    golden.check("entra-keys", &get(format!("/{tenant}/discovery/v2.0/keys")).await);

    // ARM.
    golden.check(
        "arm-metadata-endpoints",
        &get("/metadata/endpoints?api-version=2022-09-01".to_owned()).await,
    );
    golden.check(
        "arm-error-no-token",
        &get("/subscriptions?api-version=2022-12-01".to_owned()).await,
    );
    golden.check("arm-subscriptions", &azure.get("//subscriptions").await);
    golden.check("arm-error-group-not-found", &azure.get("/resourcegroups/x").await);
    golden.check(
        "arm-group",
        &azure
            .put("/resourcegroups/g", json!({ "location": "eastus" }))
            .await,
    );
    let identities = "/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities";
    golden.check(
        "arm-error-resource-not-found",
        &azure.get(&format!("{identities}/missing")).await,
    );
    let identity = azure
        .put(
            &format!("{identities}/application-identity"),
            json!({ "location": "eastus" }),
        )
        .await;
    golden.check("arm-identity", &identity);
    let (identity_id, client_id) = (identity.text("/id"), identity.text("/properties/clientId"));
    let principal_id = identity.text("/properties/principalId");
    let federated = json!({ "properties": { "issuer": "https://issuer.test", "subject": "system:serviceaccount:ns:sa", "audiences": ["api://AzureADTokenExchange"] } });
    golden.check(
        "arm-federated-credential",
        &azure
            .put(
                &format!("{identity_id}/federatedIdentityCredentials/f"),
                federated,
            )
            .await,
    );
    let assertion = unsigned(
        &json!({ "iss": "https://issuer.test", "sub": "other", "aud": "api://AzureADTokenExchange" }),
    );
    let scope = format!("{ARM}/.default");
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", client_id),
        ("client_assertion", assertion.as_str()),
        (
            "client_assertion_type",
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        ),
        ("scope", scope.as_str()),
    ];
    golden.check(
        "entra-error-subject",
        &azure.form("oauth2/v2.0/token", &fields).await,
    );
    let definitions =
        format!("/providers/Microsoft.Authorization/roleDefinitions?$filter=roleName%20eq%20'{OPERATOR}'");
    golden.check("arm-role-definitions", &azure.get(&definitions).await);
    let group = format!("{}/resourceGroups/g", azure.sub());
    golden.check(
        "arm-role-assignment",
        &azure.grant(OPERATOR, principal_id, &group).await,
    );
    golden.check(
        "arm-error-grant-exists",
        &azure.grant(OPERATOR, principal_id, &group).await,
    );
    let names =
        format!("//v1.0/servicePrincipals?$filter=servicePrincipalNames/any(c:c%20eq%20'{client_id}')");
    golden.check("graph-service-principals", &azure.get(&names).await);
    golden.check(
        "graph-by-ids",
        &azure
            .call(
                Method::POST,
                "//v1.0/directoryObjects/getByIds",
                Some(json!({ "ids": [principal_id] })),
            )
            .await,
    );

    // Managed clusters.
    golden.check(
        "arm-error-feature",
        &azure
            .put(CLUSTER, cluster(Some("azure"), json!({ "enabled": true })))
            .await,
    );
    let feature = "/providers/Microsoft.Features/providers/Microsoft.ContainerService/features/EnablePodIdentityPreview";
    azure
        .call(Method::POST, &format!("{feature}/register"), None)
        .await
        .expect(200);
    golden.check("arm-feature", &azure.get(feature).await);
    golden.check(
        "arm-error-kubenet",
        &azure
            .put(CLUSTER, cluster(Some("kubenet"), json!({ "enabled": true })))
            .await,
    );
    let entry = json!({ "name": "my-pod-identity", "namespace": "my-app",
        "identity": { "resourceId": identity_id, "clientId": client_id, "objectId": principal_id } });
    let with_entry = json!({ "enabled": true, "userAssignedIdentities": [entry] });
    golden.check(
        "arm-error-identities-at-creation",
        &azure
            .put(CLUSTER, cluster(Some("azure"), with_entry.clone()))
            .await,
    );
    golden.check("imds-error-not-found", &azure.machine_token("").await);
    let made = azure
        .put(CLUSTER, cluster(Some("azure"), json!({ "enabled": true })))
        .await;
    assert_eq!(azure.finish(&made).await, "Succeeded");
    golden.check(
        "arm-operation",
        &azure.get(made.header("azure-asyncoperation")).await,
    );
    golden.check("arm-managed-cluster", &azure.get(CLUSTER).await);
    golden.check(
        "arm-credentials",
        &azure
            .call(
                Method::POST,
                &format!("{CLUSTER}/listClusterUserCredential"),
                None,
            )
            .await,
    );
    azure
        .put(CLUSTER, cluster(Some("azure"), with_entry))
        .await
        .expect(200);
    golden.check("arm-managed-cluster-pod-identity", &azure.get(CLUSTER).await);
    let sets = azure
        .get("/resourceGroups/MC_g_c_eastus/providers/Microsoft.Compute/virtualMachineScaleSets")
        .await;
    golden.check("arm-scale-set", &azure.get(sets.text("/value/0/id")).await);
    golden.check(
        "arm-machines-empty",
        &azure
            .get("/resourceGroups/g/providers/Microsoft.Compute/virtualMachines")
            .await,
    );

    // The metadata service.
    golden.check(
        "imds-token",
        &azure.machine_token(&format!("&client_id={client_id}")).await,
    );
    golden.check("imds-error-several", &azure.machine_token("").await);
    let token = "/metadata/identity/oauth2/token?api-version=2018-02-01";
    golden.check(
        "imds-error-no-header",
        &azure
            .send(azure.http.get(format!("{}{token}", azure.imds())))
            .await,
    );
    golden.check("imds-error-no-resource", &azure.metadata(token).await);
    golden.check("imds-error-version", &azure.metadata("/metadata/instance").await);
    golden.check(
        "imds-instance",
        &azure.metadata("/metadata/instance?api-version=2021-02-01").await,
    );
    let throttled = Azure::start(Config {
        imds_quota: Some((1, 1)),
        ..Config::default()
    })
    .await;
    let both = tokio::join!(throttled.machine_token(""), throttled.machine_token(""));
    golden.check(
        "imds-error-throttled",
        if both.0.status == 429 { &both.0 } else { &both.1 },
    );

    // Rights.
    let strict = Azure::start(Config {
        authorization: Authorization::Enforce,
        ..Config::default()
    })
    .await;
    strict.group("g").await;
    let nobody = strict
        .control(Method::POST, "applications", Some(json!({ "name": "nobody" })))
        .await;
    let signed_in = strict
        .sign_in(nobody.text("/clientId"), nobody.text("/clientSecret"), ARM)
        .await;
    let bearer = signed_in.text("/access_token");
    golden.check(
        "arm-error-forbidden",
        &strict.call_as(bearer, Method::GET, "/resourcegroups", None).await,
    );
    let set = "/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/pool";
    strict.put(set, json!({ "location": "eastus" })).await.expect(201);
    let foreign = strict.identity("g", "foreign").await;
    strict
        .grant(
            "Virtual Machine Contributor",
            nobody.text("/objectId"),
            &format!("{}/resourceGroups/g", strict.sub()),
        )
        .await
        .expect(201);
    let assign = json!({ "identity": { "type": "UserAssigned", "userAssignedIdentities": { foreign["id"].as_str().unwrap(): {} } } });
    golden.check(
        "arm-error-linked",
        &strict.call_as(bearer, Method::PATCH, set, Some(assign)).await,
    );

    let mut files: Vec<String> = std::fs::read_dir(&golden.folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md")
        .collect();
    files.sort();
    golden.seen.sort();
    assert_eq!(files, golden.seen, "each golden body is compared once");
}

/// A JWT whose signature nobody will look at.
fn unsigned(claims: &Value) -> String {
    use base64::Engine as _;
    let part = |value: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.AAAA", part(&json!({ "alg": "RS256" })), part(claims))
}
