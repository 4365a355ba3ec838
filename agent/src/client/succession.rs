//! The proof that a server's certificate follows another: asked of a server that is not trusted yet.

use std::time::Duration;

use http::{Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};

use super::{Client, ClientError};
use crate::trust::Fingerprint;
use crate::trust::succession::Chain;

/// Largest answer: a chain of the most steps with the largest certificates, and then some.
const MAX_CHAIN: usize = 256 * 1024;
/// How long the server may take. It has the answer ready.
const LIMIT: Duration = Duration::from_secs(5);

/// Asks the server at `address`, which has just shown the certificate `shown`, how that one follows `from`. Nothing is
/// told to the server but this question, and nothing is believed of the answer here.
pub async fn succession(address: &str, shown: Fingerprint, from: Fingerprint) -> Result<Chain, ClientError> {
    let client = Client::pinned(address, vec![address.to_owned()], shown, None).with_timeout(LIMIT);
    client
        .within(async {
            let body = Full::default().map_err(|never| match never {}).boxed_unsync();
            let request = Request::builder()
                .method(Method::GET)
                .uri(format!("/control/v1/succession?from={from}"))
                .body(body)
                .map_err(|error| client.unexpected(&error))?;
            let (sender, driver) = client.connect().await?;
            let response = client.send(sender, driver, request).await?;
            if !response.status().is_success() {
                return Err(client.refusal(response).await);
            }
            let body = Limited::new(response.into_body(), MAX_CHAIN).collect().await;
            let body = body.map_err(|error| client.broken(&*error))?.to_bytes();
            serde_json::from_slice(&body).map_err(|error| client.unexpected(&error))
        })
        .await
}
