//! Whole instances and volumes as one tar file: asked for, fetched and brought.

use futures::TryStreamExt as _;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Empty, Limited, StreamBody};
use hyper::body::Frame;
use serde_json::Value;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use super::{Body, Client, ClientError};
use crate::wire::lxd::Envelope;
use crate::wire::lxd::operation::OperationBody;

/// Read at once from a file that is sent.
const PIECE: usize = 256 * 1024;
/// Largest answer to a file that was brought.
const MAX_ANSWER: usize = 1024 * 1024;

impl Client {
    /// Has a backup made of what is at `of`.
    pub async fn begin_backup(&self, of: &str, body: &Value) -> Result<OperationBody, ClientError> {
        let path = self.in_its_project(&format!("{of}/backups"));
        self.begin_operation(Method::POST, &path, Some(body)).await
    }

    /// The tar file of a backup, and its size if that is told.
    pub async fn backup_file(&self, backup: &str) -> Result<(Body, Option<u64>), ClientError> {
        let path = self.in_its_project(&format!("{backup}/export"));
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let request = Request::builder().uri(path).body(body).map_err(|error| self.unexpected(&error))?;
        let response = self.stream(request).await?;
        let length = response.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        Ok((response.into_body(), length))
    }

    /// Brings a tar file, of which the collection at `path` makes something new.
    pub async fn import_file(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        file: impl AsyncRead + Send + 'static,
    ) -> Result<OperationBody, ClientError> {
        let unexpected = |error: &dyn std::fmt::Display| self.unexpected(error);
        let pieces = ReaderStream::with_capacity(file, PIECE).map_ok(Frame::data);
        let body: Body = StreamBody::new(pieces).boxed_unsync();
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.in_its_project(path))
            .header(header::CONTENT_TYPE, "application/octet-stream");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.stream(request.body(body).map_err(|error| unexpected(&error))?).await?;
        let answer = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let answer = answer.map_err(|error| self.broken(&*error))?.to_bytes();
        let envelope: Envelope = serde_json::from_slice(&answer).map_err(|error| unexpected(&error))?;
        serde_json::from_value(envelope.metadata).map_err(|error| unexpected(&error))
    }
}
