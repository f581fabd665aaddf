//! Service account tokens: asked for by TokenRequest, signed with RS256, verified when they come back, and published as
//! OIDC discovery and JWKS so that others can verify them too.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents};
use rsa::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey};
use rsa::traits::PublicKeyParts;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use crate::cluster::{Cluster, State};
use crate::json::{self as fields, list, text};
use crate::status::ApiError;
use crate::store::Key as ObjectKey;
use crate::user::User;

/// Size of the key, as kubeadm makes it.
const KEY_BITS: usize = 2048;
/// Lifetime of a token when none is asked for. Source: `TokenRequestSpec.expirationSeconds`.
const DEFAULT_SECONDS: i64 = 3_600;
/// The shortest and longest lifetime that may be asked for. Source: validation of `TokenRequestSpec`.
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;

/// Signs and verifies tokens. Clones share the key.
#[derive(Clone, Debug)]
pub(crate) struct Tokens(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    issuer: String,
    given: Option<Zeroizing<String>>,
    key: OnceCell<Key>,
}

struct Key {
    id: String,
    pair: RsaKeyPair,
    modulus: Vec<u8>,
    exponent: Vec<u8>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The key that signs tokens cannot be made or read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the service account key cannot be used: {0}")]
pub struct KeyError(String);

impl KeyError {
    /// A stable code.
    pub fn code(&self) -> &'static str {
        "service_account_key"
    }
}

impl Tokens {
    /// Tokens of this issuer, signed with a key (PKCS#8 PEM) or, without one, with a new key made when first needed.
    pub(crate) fn new(issuer: String, key_pem: Option<Zeroizing<String>>) -> Self {
        Self(Arc::new(Inner {
            issuer,
            given: key_pem,
            key: OnceCell::new(),
        }))
    }

    /// Makes the key now; it takes a moment.
    pub(crate) async fn prepare(&self) -> Result<(), KeyError> {
        self.key().await.map(drop)
    }

    async fn key(&self) -> Result<&Key, KeyError> {
        self.0
            .key
            .get_or_try_init(|| async {
                let given = self.0.given.clone();
                tokio::task::spawn_blocking(move || make_key(given.as_ref().map(|pem| pem.as_str())))
                    .await
                    .map_err(|error| KeyError(error.to_string()))?
            })
            .await
    }

    /// Answers a TokenRequest for a service account.
    pub(crate) async fn request(
        &self,
        cluster: &Cluster,
        namespace: &str,
        account: &str,
        request: &Value,
    ) -> Result<Value, ApiError> {
        let seconds = match fields::at(request, &["spec", "expirationSeconds"]).and_then(Value::as_i64) {
            None => DEFAULT_SECONDS,
            Some(seconds) if seconds < MIN_SECONDS => {
                return Err(invalid(
                    seconds,
                    "may not specify a duration less than 10 minutes",
                ));
            }
            Some(seconds) if seconds > MAX_SECONDS => {
                return Err(invalid(
                    seconds,
                    "may not specify a duration larger than 2^32 seconds",
                ));
            }
            Some(seconds) => seconds,
        };
        let mut audiences = list(request, &["spec", "audiences"]).to_vec();
        if audiences.is_empty() {
            audiences.push(json!(self.0.issuer));
        }
        let bound = fields::at(request, &["spec", "boundObjectRef"]).cloned();
        let facts = cluster.read(|state| facts(state, namespace, account, bound.as_ref()))?;
        let now = i64::try_from(cluster.clock().unix_secs()).unwrap_or_default();
        let claims = json!({
            "aud": audiences,
            "exp": now + seconds,
            "iat": now,
            "nbf": now,
            "iss": self.0.issuer,
            "jti": uuid::Uuid::new_v4().to_string(),
            "kubernetes.io": facts,
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
        });
        let token = self
            .sign(&claims)
            .await
            .map_err(|error| ApiError::internal(error.to_string()))?;
        let mut answer = request.clone();
        fields::set(&mut answer, &["apiVersion"], "authentication.k8s.io/v1");
        fields::set(&mut answer, &["kind"], "TokenRequest");
        fields::set(&mut answer, &["metadata", "name"], account);
        fields::set(&mut answer, &["metadata", "namespace"], namespace);
        fields::set(&mut answer, &["spec", "audiences"], audiences);
        fields::set(&mut answer, &["spec", "expirationSeconds"], seconds);
        let expires = jiff::Timestamp::from_second(now + seconds).unwrap_or_default();
        fields::set(
            &mut answer,
            &["status"],
            json!({ "token": token, "expirationTimestamp": crate::cluster::stamp(expires) }),
        );
        Ok(answer)
    }

    async fn sign(&self, claims: &Value) -> Result<String, KeyError> {
        let key = self.key().await?;
        let header = json!({ "alg": "RS256", "kid": key.id });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let mut signature = vec![0; key.pair.public().modulus_len()];
        key.pair
            .sign(
                &RSA_PKCS1_SHA256,
                &ring::rand::SystemRandom::new(),
                signed.as_bytes(),
                &mut signature,
            )
            .map_err(|error| KeyError(format!("signing failed: {error}")))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The user of a token and the audiences it was accepted for; `audiences` are those of the one who asks, the API
    /// server itself when none.
    pub(crate) async fn review(
        &self,
        token: &str,
        audiences: Option<&[String]>,
        cluster: &Cluster,
    ) -> Result<(User, Vec<String>), ApiError> {
        let claims = self.verify(token).await.ok_or_else(ApiError::unauthorized)?;
        let now = i64::try_from(cluster.clock().unix_secs()).unwrap_or_default();
        let time = |claim: &str| claims.get(claim).and_then(Value::as_i64);
        let live = time("exp").is_some_and(|end| now < end) && time("nbf").is_none_or(|start| start <= now);
        let own = [self.0.issuer.clone()];
        let accepted: Vec<String> = audiences
            .unwrap_or(&own)
            .iter()
            .filter(|audience| {
                list(&claims, &["aud"])
                    .iter()
                    .any(|one| one.as_str() == Some(audience))
            })
            .cloned()
            .collect();
        if !live || text(&claims, &["iss"]) != self.0.issuer || accepted.is_empty() {
            return Err(ApiError::unauthorized());
        }
        let facts = claims.get("kubernetes.io").cloned().unwrap_or_default();
        let user = cluster
            .read(|state| user(state, &facts))
            .ok_or_else(ApiError::unauthorized)?;
        Ok((user, accepted))
    }

    /// The claims of a token with a good signature.
    async fn verify(&self, token: &str) -> Option<Value> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let header: Value = serde_json::from_slice(&decode(header)?).ok()?;
        if text(&header, &["alg"]) != "RS256" {
            return None;
        }
        let key = self.key().await.ok()?;
        RsaPublicKeyComponents {
            n: &key.modulus,
            e: &key.exponent,
        }
        .verify(
            &RSA_PKCS1_2048_8192_SHA256,
            signed.as_bytes(),
            &decode(signature)?,
        )
        .ok()?;
        serde_json::from_slice(&decode(claims)?).ok()
    }

    /// `/.well-known/openid-configuration`.
    pub(crate) fn discovery(&self) -> Value {
        json!({
            "issuer": self.0.issuer,
            "jwks_uri": format!("{}/openid/v1/jwks", self.0.issuer.trim_end_matches('/')),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        })
    }

    /// `/openid/v1/jwks`.
    pub(crate) async fn key_set(&self) -> Result<Value, KeyError> {
        let key = self.key().await?;
        Ok(json!({ "keys": [{
            "use": "sig",
            "kty": "RSA",
            "kid": key.id,
            "alg": "RS256",
            "n": URL_SAFE_NO_PAD.encode(&key.modulus),
            "e": URL_SAFE_NO_PAD.encode(&key.exponent),
        }] }))
    }
}

fn invalid(seconds: i64, why: &str) -> ApiError {
    let cause = crate::kinds::invalid("spec.expirationSeconds", &json!(seconds), why);
    ApiError::invalid("authentication.k8s.io", "TokenRequest", "", &[cause])
}

fn make_key(given: Option<&str>) -> Result<Key, KeyError> {
    let failed = |error: &dyn std::fmt::Display| KeyError(error.to_string());
    let private = match given {
        Some(pem) => rsa::RsaPrivateKey::from_pkcs8_pem(pem).map_err(|error| failed(&error))?,
        None => {
            rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, KEY_BITS).map_err(|error| failed(&error))?
        }
    };
    let der = private.to_pkcs8_der().map_err(|error| failed(&error))?;
    let pair = RsaKeyPair::from_pkcs8(der.as_bytes()).map_err(|error| failed(&error))?;
    let public = private.to_public_key();
    let spki = public.to_public_key_der().map_err(|error| failed(&error))?;
    Ok(Key {
        // As kube-apiserver names its keys.
        id: URL_SAFE_NO_PAD.encode(Sha256::digest(spki.as_bytes())),
        pair,
        modulus: public.n().to_bytes_be(),
        exponent: public.e().to_bytes_be(),
    })
}

/// What a token says of its subject: the account, and what it is bound to.
fn facts(state: &State, namespace: &str, account: &str, bound: Option<&Value>) -> Result<Value, ApiError> {
    let found = state
        .store
        .get(&ObjectKey::new("serviceaccounts", namespace, account))
        .ok_or_else(|| ApiError::not_found("", "serviceaccounts", account))?;
    let mut facts = json!({
        "namespace": namespace,
        "serviceaccount": { "name": account, "uid": fields::uid(&found) },
    });
    let Some(bound) = bound else { return Ok(facts) };
    let (kind, name, uid) = (
        text(bound, &["kind"]),
        text(bound, &["name"]),
        text(bound, &["uid"]),
    );
    let (plural, field, home) = match kind {
        "Pod" => ("pods", "pod", namespace),
        "Secret" => ("secrets", "secret", namespace),
        "Node" => ("nodes", "node", ""),
        other => {
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount {account:?} to object of kind {other:?}"
            )));
        }
    };
    let object = state
        .store
        .get(&ObjectKey::new(plural, home, name))
        .ok_or_else(|| ApiError::not_found("", plural, name))?;
    if !uid.is_empty() && uid != fields::uid(&object) {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been \
             deleted and then recreated"
        );
        return Err(ApiError::conflict("", plural, name, &why));
    }
    if kind == "Pod" && text(&object, &["spec", "serviceAccountName"]) != account {
        return Err(ApiError::bad_request(format!(
            "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
        )));
    }
    fields::set(
        &mut facts,
        &[field],
        json!({ "name": name, "uid": fields::uid(&object) }),
    );
    let node = text(&object, &["spec", "nodeName"]);
    if kind == "Pod"
        && let Some(node) = state.store.get(&ObjectKey::cluster("nodes", node))
    {
        let node = json!({ "name": fields::name(&node), "uid": fields::uid(&node) });
        fields::set(&mut facts, &["node"], node);
    }
    Ok(facts)
}

/// The user of a token, if the account and what it is bound to are still there.
fn user(state: &State, facts: &Value) -> Option<User> {
    let namespace = text(facts, &["namespace"]);
    let is_there = |plural: &str, namespace: &str, of: &Value| {
        let key = ObjectKey::new(plural, namespace, text(of, &["name"]));
        state
            .store
            .get(&key)
            .is_some_and(|object| fields::uid(&object) == text(of, &["uid"]))
    };
    let account = facts.get("serviceaccount")?;
    if !is_there("serviceaccounts", namespace, account) {
        return None;
    }
    let mut extra = Vec::new();
    for (field, plural, home) in [("pod", "pods", namespace), ("secret", "secrets", namespace)] {
        if let Some(bound) = facts.get(field) {
            if !is_there(plural, home, bound) {
                return None;
            }
            for part in ["name", "uid"] {
                extra.push((
                    format!("authentication.kubernetes.io/{field}-{part}"),
                    text(bound, &[part]).to_owned(),
                ));
            }
        }
    }
    Some(User {
        name: format!("system:serviceaccount:{namespace}:{}", text(account, &["name"])),
        uid: text(account, &["uid"]).to_owned(),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
        ],
        extra,
    })
}
