//! Service account tokens: asked for, used, bound, published keys.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde_json::{Value, json};

use crate::world::World;

async fn token(world: &World, spec: Value) -> String {
    let answer = world
        .post(
            &world.core("serviceaccounts/default/token"),
            &json!({ "spec": spec }),
        )
        .await
        .expect(201);
    answer["status"]["token"].as_str().unwrap().to_owned()
}

/// Who the bearer of the token is, if anybody.
async fn review(world: &World, token: &str, audiences: Value) -> Value {
    let body = json!({ "spec": { "token": token, "audiences": audiences } });
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    world.post(path, &body).await.expect(201)["status"].clone()
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[tokio::test]
async fn a_token_says_whose_it_is_and_opens_the_api() {
    let world = World::new().await;
    let token = token(&world, json!({ "expirationSeconds": 600 })).await;
    let claims = claims(&token);
    assert_eq!(
        claims["sub"],
        format!("system:serviceaccount:{}:default", world.namespace)
    );
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        600
    );
    assert_eq!(claims["kubernetes.io"]["serviceaccount"]["name"], "default");

    let mut config = world.config.clone();
    config.auth_info = kube::config::AuthInfo {
        token: Some(token.into()),
        ..kube::config::AuthInfo::default()
    };
    let bearer = kube::Client::try_from(config).unwrap();
    let request = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
        .header("content-type", "application/json")
        .body(b"{}".to_vec())
        .unwrap();
    let me: Value = bearer.request(request).await.unwrap();
    let user = &me["status"]["userInfo"];
    assert_eq!(user["username"], claims["sub"]);
    assert!(
        user["groups"]
            .as_array()
            .unwrap()
            .contains(&json!("system:serviceaccounts"))
    );
}

#[tokio::test]
async fn a_token_is_good_for_its_audiences_only() {
    let world = World::new().await;
    let audience = "api://AzureADTokenExchange";
    let token = token(&world, json!({ "audiences": [audience] })).await;
    assert_eq!(claims(&token)["aud"], json!([audience]));
    let good = review(&world, &token, json!([audience])).await;
    assert_eq!(
        (&good["authenticated"], &good["audiences"]),
        (&json!(true), &json!([audience]))
    );
    assert_ne!(
        review(&world, &token, json!(["other"])).await["authenticated"],
        true
    );
    // The API server itself is another audience.
    assert_ne!(review(&world, &token, json!([])).await["authenticated"], true);
}

#[tokio::test]
async fn a_token_bound_to_a_pod_dies_with_it() {
    let world = World::new().await;
    let body =
        json!({ "metadata": { "name": "a" }, "spec": { "containers": [{ "name": "m", "image": "i" }] } });
    let pod = world.post(&world.core("pods"), &body).await.expect(201);
    let uid = &pod["metadata"]["uid"];
    let bound = json!({ "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": "a", "uid": uid } });
    let token = token(&world, bound.clone()).await;
    assert_eq!(&claims(&token)["kubernetes.io"]["pod"]["uid"], uid);
    let status = review(&world, &token, json!([])).await;
    assert_eq!(
        status["user"]["extra"]["authentication.kubernetes.io/pod-name"],
        json!(["a"])
    );

    world.delete(&world.core("pods/a"), &json!({})).await.expect(200);
    podid_testkit::eventually("the token is dead", || async {
        let status = review(&world, &token, json!([])).await;
        if status["authenticated"] == true {
            Err(status)
        } else {
            Ok(())
        }
    })
    .await
    .unwrap();
    let path = world.core("serviceaccounts/default/token");
    world.post(&path, &json!({ "spec": bound })).await.refused(404);
}

#[tokio::test]
async fn a_lifetime_below_ten_minutes_is_refused() {
    let world = World::new().await;
    let path = world.core("serviceaccounts/default/token");
    let (_, message) = world
        .post(&path, &json!({ "spec": { "expirationSeconds": 60 } }))
        .await
        .refused(422);
    assert!(
        message.contains("may not specify a duration less than 10 minutes"),
        "{message}"
    );
    world
        .post(&world.core("serviceaccounts/none/token"), &json!({}))
        .await
        .refused(404);
}

#[tokio::test]
async fn the_published_keys_verify_tokens() {
    let world = World::new().await;
    let token = token(&world, json!({})).await;
    let discovery = world.get("/.well-known/openid-configuration").await.expect(200);
    assert_eq!(discovery["issuer"], claims(&token)["iss"]);
    let keys = world.get("/openid/v1/jwks").await.expect(200);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let header: Value = serde_json::from_slice(&decode(signed.split('.').next().unwrap())).unwrap();
    let keys = keys["keys"].as_array().unwrap();
    let key = keys.iter().find(|key| key["kid"] == header["kid"]).unwrap();
    let part = |name: &str| decode(key[name].as_str().unwrap());
    let (signed, signature) = (signed.as_bytes(), decode(signature));
    // A real cluster may sign with an elliptic curve.
    if header["alg"] == "ES256" {
        let point = [vec![4], part("x"), part("y")].concat();
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        key.verify(signed, &signature).unwrap();
    } else {
        let (n, e) = (part("n"), part("e"));
        let key = RsaPublicKeyComponents { n, e };
        key.verify(&RSA_PKCS1_2048_8192_SHA256, signed, &signature)
            .unwrap();
    }
}
