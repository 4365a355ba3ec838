//! Calls under `/1.0` that change what was read, and only that: an ETag with the answer, `If-Match` with the change.

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Client, ClientError};
use crate::wire::lxd::Envelope;

/// Largest answer that is read: one object.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// What was read, and the tag that stands for it.
#[derive(Debug, Clone)]
pub struct Tagged<T> {
    pub content: T,
    /// Empty if the agent gave none.
    pub tag: String,
}

impl Client {
    /// Reads `path`.
    pub async fn tagged<T: DeserializeOwned>(&self, path: &str) -> Result<Tagged<T>, ClientError> {
        let unexpected = |reason: &dyn std::fmt::Display| self.unexpected(&format_args!("{path}: {reason}"));
        let body = Full::default().map_err(|never| match never {}).boxed_unsync();
        let request = Request::get(path).body(body).map_err(|error| unexpected(&error))?;
        let response = self.stream(request).await?;
        let tag = response.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok());
        let tag = tag.unwrap_or_default().to_owned();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect();
        let body = tokio::time::timeout(self.timeout, body).await.map_err(|_| unexpected(&"no end of it"))?;
        let body = body.map_err(|error| unexpected(&error))?.to_bytes();
        let envelope: Envelope = serde_json::from_slice(&body).map_err(|error| unexpected(&error))?;
        let content = serde_json::from_value(envelope.metadata).map_err(|error| unexpected(&error))?;
        Ok(Tagged { content, tag })
    }

    /// Sends `body`, if what is at `path` still is what `tag` was given for.
    pub async fn if_match(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        tag: &str,
    ) -> Result<(), ClientError> {
        let unexpected = |reason: &dyn std::fmt::Display| self.unexpected(&format_args!("{path}: {reason}"));
        let json = serde_json::to_vec(body).map_err(|error| unexpected(&error))?;
        let json = Full::new(Bytes::from(json)).map_err(|never| match never {}).boxed_unsync();
        let mut request = Request::builder()
            .method(method)
            .uri(self.of_volumes(path))
            .header(header::CONTENT_TYPE, "application/json");
        if !tag.is_empty() {
            request = request.header(header::IF_MATCH, tag);
        }
        self.stream(request.body(json).map_err(|error| unexpected(&error))?).await.map(drop)
    }
}
