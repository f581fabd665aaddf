//! Questions that are answered and not stored: who am I, may I, is this token good.

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::json::{self as fields, list, text};
use crate::status::ApiError;
use crate::token::Tokens;
use crate::user::User;

/// Answers a review.
pub(crate) async fn answer(
    kind: &str,
    group: &str,
    mut review: Value,
    user: &User,
    cluster: &Cluster,
    tokens: &Tokens,
) -> Result<Value, ApiError> {
    let status = match kind {
        "SelfSubjectReview" => json!({ "userInfo": user.to_info() }),
        "SelfSubjectRulesReview" => json!({
            "resourceRules": [{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }],
            "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }],
            "incomplete": false,
        }),
        "TokenReview" => token_review(&review, cluster, tokens).await,
        "SelfSubjectAccessReview" | "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            json!({ "allowed": true, "reason": "this API server allows everything to who is known" })
        }
        _ => return Err(ApiError::no_route()),
    };
    fields::default(&mut review, &["apiVersion"], format!("{group}/v1"));
    fields::default(&mut review, &["kind"], kind);
    fields::default(&mut review, &["metadata"], json!({ "creationTimestamp": null }));
    fields::set(&mut review, &["status"], status);
    Ok(review)
}

async fn token_review(review: &Value, cluster: &Cluster, tokens: &Tokens) -> Value {
    let audiences: Vec<String> = list(review, &["spec", "audiences"])
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let audiences = (!audiences.is_empty()).then_some(audiences.as_slice());
    match tokens
        .review(text(review, &["spec", "token"]), audiences, cluster)
        .await
    {
        Ok((user, accepted)) => {
            json!({ "authenticated": true, "user": user.to_info(), "audiences": accepted })
        }
        Err(_) => {
            json!({ "authenticated": false, "error": "invalid bearer token" })
        }
    }
}
