//! Asks for a token with azure_identity twice, and prints what came as one JSON line.
//! usage: podid-e2e-rust default|named (the crate has no DefaultAzureCredential; both are its managed-identity one)

use std::error::Error;
use std::time::Instant;

use azure_core::credentials::TokenCredential;
use azure_identity::{ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let named = std::env::args().nth(1).as_deref() == Some("named");
    let id = named.then(|| std::env::var("PODID_CLIENT_ID")).transpose()?;
    let options = ManagedIdentityCredentialOptions {
        user_assigned_id: id.map(UserAssignedId::ClientId),
        ..Default::default()
    };
    let credential = ManagedIdentityCredential::new(Some(options))?;
    let mut took = Vec::new();
    let mut token = String::new();
    for _ in 0..2 {
        let start = Instant::now();
        let scopes = ["https://vault.azure.net/.default"];
        token = credential.get_token(&scopes, None).await?.token.secret().to_owned();
        took.push((start.elapsed().as_secs_f64() * 10_000.0).round() / 10.0);
    }
    let payload = token.split('.').nth(1).ok_or("not a JWT")?;
    let claims: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?;
    println!(
        "{}",
        serde_json::json!({
            "version": "1.0.0", "appid": claims["appid"], "aud": claims["aud"], "first_ms": took[0], "again_ms": took[1],
        })
    );
    Ok(())
}
