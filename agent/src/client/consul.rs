//! Calls under `/v1`, whose errors are plain text.

use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Client, ClientError};

impl Client {
    /// A call with JSON both ways. An empty answer reads as `null`.
    pub async fn consul<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        self.request(method, path, body).await
    }
}

/// A failed call as Consul's commands tell of it.
pub fn told(error: &ClientError) -> String {
    match error {
        ClientError::Refused { status, message, .. } => {
            format!("Unexpected response code: {} ({})", status.as_u16(), message.trim())
        }
        other => other.to_string(),
    }
}
