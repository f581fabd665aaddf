//! The clients against the emulator, one after the other as the agent and the controller use them. The two share no type,
//! so a name that is wrong in one of them shows here.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that fails is a test that fails"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use podid_azure::arm::{FederatedCredential, Host, IdentityChange};
use podid_azure::{
    Arm, Authorities, Endpoint, Entra, Imds, Proof, TlsRoots, TokenAsk, TransportError, WallClock, Who,
};
use podid_azure_emulator::{App, Config, Fault, SharedEmulator};
use podid_core::{AccessToken, Guid, IdentityResourceId, Retry, Secret};
use podid_rt::clock::Clock;
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use ring::signature::RSA_PKCS1_SHA256;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

const ARM: &str = "https://management.azure.com/";
const ISSUER: &str = "https://issuer.example/cluster";
const AUDIENCE: &str = "api://AzureADTokenExchange";
const PEM: &[u8] = include_bytes!("doors/client.pem");

struct World {
    emulator: SharedEmulator,
    imds: Imds,
    entra: Entra,
    arm: Arm,
    secret: Secret,
    _tasks: Tasks,
}

fn now() -> u64 {
    Clock::system().unix_secs()
}

async fn world(config: Config) -> World {
    let app = App::bind(config).await.unwrap();
    let emulator = app.handle();
    let mut tasks = Tasks::new(Stop::new());
    app.spawn(&mut tasks);
    let clock: WallClock = Arc::new(now);
    let roots = TlsRoots::from_pem(emulator.ca_pem().as_bytes()).unwrap();
    let endpoints = emulator.endpoints();
    let imds = Imds::new(&endpoints.imds[0].parse().unwrap(), Arc::clone(&clock)).unwrap();
    let authorities = Authorities::new(endpoints.entra[0].parse().unwrap());
    let entra = Entra::new(authorities, &roots, Arc::clone(&clock)).unwrap();
    let secret = Secret::new(emulator.client_secret().to_owned());
    let fetch = {
        let (entra, emulator, secret) = (entra.clone(), emulator.clone(), secret.clone());
        Arc::new(move || {
            let (entra, emulator, secret) = (entra.clone(), emulator.clone(), secret.clone());
            let fetch = async move { Ok(entra.token(owner(&emulator, Proof::Secret(&secret))).await?) };
            Box::pin(fetch) as podid_azure::arm::Fetching
        })
    };
    let arm = Arm::new(&endpoints.arm[0].parse().unwrap(), &roots, fetch, clock).unwrap();
    World {
        imds,
        entra,
        arm,
        secret,
        emulator,
        _tasks: tasks,
    }
}

/// The built-in service principal, for ARM.
fn owner<'a>(emulator: &'a SharedEmulator, proof: Proof<'a>) -> TokenAsk<'a> {
    TokenAsk {
        authority: None,
        tenant: emulator.tenant_id(),
        client_id: emulator.client_id().parse().unwrap(),
        resource: ARM,
        endpoint: Endpoint::V2,
        proof,
    }
}

fn claims(token: &AccessToken) -> Value {
    let part = token.secret.expose().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

impl World {
    fn group(&self) -> String {
        format!(
            "/subscriptions/{}/resourceGroups/azure-emulator",
            self.emulator.subscription_id()
        )
    }

    fn host(&self) -> Host {
        format!(
            "azure://{}/providers/Microsoft.Compute/virtualMachines/vm-0",
            self.group()
        )
        .parse()
        .unwrap()
    }

    /// Makes a managed identity, as `az identity create` does.
    async fn identity(&self, name: &str) -> IdentityResourceId {
        let id = format!(
            "{}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}",
            self.group()
        );
        let roots = reqwest::Certificate::from_pem_bundle(self.emulator.ca_pem().as_bytes()).unwrap();
        let client = reqwest::Client::builder().tls_certs_only(roots).build().unwrap();
        let token = self
            .entra
            .token(owner(&self.emulator, Proof::Secret(&self.secret)))
            .await
            .unwrap();
        let url = format!(
            "{}{id}?api-version=2023-01-31",
            self.emulator.endpoints().arm[0].trim_end_matches('/')
        );
        let made = client
            .put(url)
            .bearer_auth(token.secret.expose())
            .json(&json!({"location": "eastus"}));
        made.send().await.unwrap().error_for_status().unwrap();
        id.parse().unwrap()
    }

    async fn change(&self, add: &[&IdentityResourceId], remove: &[&IdentityResourceId]) {
        let ids = |ids: &[&IdentityResourceId]| ids.iter().map(|id| (*id).clone()).collect();
        let change = IdentityChange {
            add: ids(add),
            remove: ids(remove),
        };
        self.arm
            .change_host_identities(&self.host(), &change)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn an_identity_has_tokens_from_when_it_is_put_on_the_vm_until_it_is_taken_off() {
    let world = world(Config {
        operation_delay: Duration::from_millis(50),
        ..Config::default()
    })
    .await;
    let (one, two) = (world.identity("one").await, world.identity("two").await);
    let identity = world.arm.managed_identity(&one).await.unwrap();
    assert_eq!(identity.tenant_id.to_string(), world.emulator.tenant_id());
    let who = Who::ClientId(identity.client_id);
    assert_eq!(
        world.imds.token(who, ARM).await.unwrap_err().code(),
        "imds_identity_not_found"
    );

    world.change(&[&one, &two], &[]).await;
    let there = world.arm.host_identities(&world.host()).await.unwrap();
    assert!(there.system_assigned, "the VM's own identity is still there");
    assert!(there.user_assigned.contains(&one) && there.user_assigned.contains(&two));

    for who in [who, Who::ResourceId(&one)] {
        let token = world.imds.token(who, ARM).await.unwrap();
        let claims = claims(&token);
        assert_eq!((claims["aud"].as_str(), &*token.resource), (Some(ARM), ARM));
        assert_eq!(
            claims["appid"].as_str().map(str::parse),
            Some(Ok(identity.client_id))
        );
        assert_eq!(claims["exp"].as_u64(), Some(token.expires_on));
        assert!(
            (3_000..=86_400).contains(&token.expires_in(now())),
            "{}",
            token.expires_in(now())
        );
    }

    world.change(&[], &[&one]).await;
    let left = world.arm.host_identities(&world.host()).await.unwrap();
    assert!(left.system_assigned && left.user_assigned == [two.clone()]);
    assert_eq!(
        world.imds.token(who, ARM).await.unwrap_err().code(),
        "imds_identity_not_found"
    );
    world.change(&[], &[&two]).await;
    let none = world.arm.host_identities(&world.host()).await.unwrap();
    assert!(none.system_assigned && none.user_assigned.is_empty());
    assert!(
        world.emulator.unsupported().is_empty(),
        "{:?}",
        world.emulator.unsupported()
    );
}

#[tokio::test]
async fn an_identity_that_is_not_there_is_blamed_and_the_others_are_not() {
    let world = world(Config::default()).await;
    let good = world.identity("good").await;
    let bad: IdentityResourceId = good.as_str().replace("/good", "/bad").parse().unwrap();
    let change = IdentityChange {
        add: vec![good.clone(), bad.clone()],
        remove: Vec::new(),
    };
    let error = world
        .arm
        .change_host_identities(&world.host(), &change)
        .await
        .unwrap_err();
    assert_eq!(error.blamed_identities(), std::slice::from_ref(&bad), "{error}");
    assert!(world.arm.managed_identity(&bad).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn trouble_of_the_metadata_service_is_told_apart() {
    let world = world(Config::default()).await;
    let fault = |status, after: Option<&str>| Fault {
        service: Some("imds".to_owned()),
        status: Some(status),
        headers: after
            .map(|after| ("Retry-After".to_owned(), after.to_owned()))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
        times: Some(1),
        ..Fault::default()
    };
    let who = Who::ClientId(Guid::from_u128(1));
    for (status, after, code, retry) in [
        (410, None, "imds_unavailable", Retry::Backoff),
        (
            429,
            Some("3"),
            "imds_throttled",
            Retry::After(Duration::from_secs(3)),
        ),
        (500, None, "imds_unavailable", Retry::Backoff),
    ] {
        world.emulator.set_fault(fault(status, after)).unwrap();
        let error = world.imds.token(who, ARM).await.unwrap_err();
        assert_eq!((error.code(), error.retry()), (code, retry), "{status}");
    }
    world
        .emulator
        .set_fault(Fault {
            service: Some("imds".to_owned()),
            reset: true,
            times: Some(2),
            ..Fault::default()
        })
        .unwrap();
    let error = world.imds.token(who, ARM).await.unwrap_err();
    assert!(
        matches!(
            error,
            podid_azure::ImdsError::Transport(TransportError::Broken(_))
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_metadata_services_own_quota_is_seen_as_throttling() {
    let world = world(Config {
        imds_latency: Duration::from_millis(50),
        ..Config::default()
    })
    .await;
    let who = Who::ClientId(Guid::from_u128(1));
    let asks = (0..30).map(|_| world.imds.token(who, ARM));
    let answers = futures::future::join_all(asks).await;
    let throttled = answers
        .iter()
        .filter(|answer| {
            answer
                .as_ref()
                .is_err_and(|error| error.code() == "imds_throttled")
        })
        .count();
    assert!((1..30).contains(&throttled), "{throttled}");
}

#[tokio::test]
async fn entra_says_who_can_repair_it() {
    let world = world(Config::default()).await;
    let (right, wrong) = (&world.secret, Secret::new("wrong".to_owned()));
    let base = owner(&world.emulator, Proof::Secret(right));
    let v1 = TokenAsk {
        endpoint: Endpoint::V1,
        ..base
    };
    for ask in [base, v1] {
        let token = world.entra.token(ask).await.unwrap();
        assert_eq!(claims(&token)["aud"], ARM);
        assert!(token.expires_in(now()) > 3_000);
    }
    for (ask, code) in [
        (
            TokenAsk {
                proof: Proof::Secret(&wrong),
                ..base
            },
            "entra_invalid_credential",
        ),
        (
            TokenAsk {
                client_id: Guid::from_u128(404),
                ..base
            },
            "entra_identity_not_found",
        ),
        (
            TokenAsk {
                tenant: "00000000-0000-0000-0000-000000000404",
                ..base
            },
            "entra_identity_not_found",
        ),
    ] {
        let error = world.entra.token(ask).await.unwrap_err();
        assert_eq!((error.code(), error.retry()), (code, Retry::Never), "{error}");
        assert!(
            error.to_string().contains("AADSTS") && !error.to_string().contains("Trace ID"),
            "{error}"
        );
    }
}

/// A token of a service account, signed with the tests' key.
fn service_account_token(subject: &str) -> Secret {
    let key = PrivatePkcs8KeyDer::from_pem_slice(PEM).unwrap();
    let key = ring::rsa::KeyPair::from_pkcs8(key.secret_pkcs8_der()).unwrap();
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(json!({"alg": "RS256", "typ": "JWT", "kid": "test"}));
    let body = part(
        json!({"iss": ISSUER, "sub": subject, "aud": [AUDIENCE], "iat": now(), "nbf": now(), "exp": now() + 600}),
    );
    let signed = format!("{header}.{body}");
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(
        &RSA_PKCS1_SHA256,
        &ring::rand::SystemRandom::new(),
        signed.as_bytes(),
        &mut signature,
    )
    .unwrap();
    Secret::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

#[tokio::test]
async fn a_service_accounts_token_is_exchanged_where_the_identity_trusts_it() {
    let key = PrivatePkcs8KeyDer::from_pem_slice(PEM).unwrap();
    let key = ring::rsa::KeyPair::from_pkcs8(key.secret_pkcs8_der()).unwrap();
    let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(key.public());
    let jwks = json!({"keys": [{
        "kty": "RSA", "use": "sig", "alg": "RS256", "kid": "test",
        "n": number(&public.n),
        "e": number(&public.e),
    }]});
    let world = world(Config {
        issuer_keys: [(ISSUER.to_owned(), jwks)].into(),
        ..Config::default()
    })
    .await;
    let id = world.identity("app").await;
    let identity = world.arm.managed_identity(&id).await.unwrap();
    let subject = "system:serviceaccount:my-app:default";
    let assertion = service_account_token(subject);
    let ask = |proof| TokenAsk {
        client_id: identity.client_id,
        ..owner(&world.emulator, proof)
    };
    let error = world
        .entra
        .token(ask(Proof::Assertion(&assertion)))
        .await
        .unwrap_err();
    assert_eq!(
        error.code(),
        "entra_invalid_credential",
        "nobody is trusted yet: {error}"
    );

    let credential = FederatedCredential {
        name: "my-app".to_owned(),
        issuer: ISSUER.to_owned(),
        subject: subject.to_owned(),
        audiences: vec![AUDIENCE.to_owned()],
    };
    world
        .arm
        .put_federated_credential(&id, &credential)
        .await
        .unwrap();
    assert_eq!(world.arm.federated_credentials(&id).await.unwrap(), [credential]);
    let token = world
        .entra
        .token(ask(Proof::Assertion(&assertion)))
        .await
        .unwrap();
    assert_eq!(
        claims(&token)["appid"].as_str().map(str::parse),
        Some(Ok(identity.client_id))
    );

    let other = service_account_token("system:serviceaccount:other:default");
    let error = world
        .entra
        .token(ask(Proof::Assertion(&other)))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "entra_invalid_credential", "{error}");
    world
        .arm
        .delete_federated_credential(&id, "my-app")
        .await
        .unwrap();
    world
        .arm
        .delete_federated_credential(&id, "my-app")
        .await
        .unwrap();
    assert!(world.arm.federated_credentials(&id).await.unwrap().is_empty());
}
