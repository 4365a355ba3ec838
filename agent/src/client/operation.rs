//! Calls that become operations, and the operations themselves.

use std::time::Duration;

use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::Value;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use uuid::Uuid;

use super::trust::segment;
use super::upgrade::Upgraded;
use super::{Client, ClientError, InProject, NO_BODY, Target};
use crate::wire::lxd::operation::OperationBody;
use crate::wire::token::Secret;

/// What became of a call that may take its time.
#[derive(Debug)]
pub enum Begun {
    /// It was done at once.
    Done(Value),
    Running(Box<OperationBody>),
}

impl Client {
    /// Begins what may become an operation.
    pub async fn begin(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Begun, ClientError> {
        let metadata: Value = self.lxd(method, path, body).await?;
        Ok(match serde_json::from_value::<OperationBody>(metadata.clone()) {
            Ok(operation) => Begun::Running(Box::new(operation)),
            Err(_) => Begun::Done(metadata),
        })
    }

    /// The same, of what is always one.
    pub async fn begin_operation(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<OperationBody, ClientError> {
        match self.begin(method, path, body).await? {
            Begun::Running(operation) => Ok(*operation),
            Begun::Done(_) => Err(self.unexpected(&format_args!("{path}: no operation"))),
        }
    }

    pub async fn operation(&self, id: Uuid) -> Result<OperationBody, ClientError> {
        self.lxd(Method::GET, &format!("/1.0/operations/{id}"), NO_BODY).await
    }

    /// The operation as it stands, or as soon as it has ended, but no later than after `limit`.
    pub async fn wait_operation(&self, id: Uuid, limit: Duration) -> Result<OperationBody, ClientError> {
        let path = format!("/1.0/operations/{id}/wait?timeout={}", limit.as_secs());
        let client = self.clone().with_timeout(limit + Duration::from_secs(30));
        match client.lxd(Method::GET, &path, NO_BODY).await {
            // LXD 5.0 answers so when the time is up.
            Err(error) if error.status() == Some(StatusCode::INTERNAL_SERVER_ERROR) => {
                self.operation(id).await
            }
            answered => answered,
        }
    }

    pub async fn cancel_operation(&self, id: Uuid) -> Result<(), ClientError> {
        self.lxd::<Value>(Method::DELETE, &format!("/1.0/operations/{id}"), NO_BODY).await.map(drop)
    }

    /// One of an operation's websockets, which the secret opens.
    pub async fn operation_websocket(
        &self,
        id: Uuid,
        secret: &Secret,
    ) -> Result<WebSocketStream<Upgraded>, ClientError> {
        let stream = self.websocket(&format!("/1.0/operations/{id}/websocket"), secret).await?;
        Ok(WebSocketStream::from_raw_socket(stream, Role::Client, None).await)
    }

    /// Where the agent is reached; nowhere, over its socket.
    pub fn addresses(&self) -> &[String] {
        match &self.target {
            Target::Unix(_) => &[],
            Target::Pinned { addresses, .. } => addresses,
        }
    }

    /// `path` of a volume, or of what there is of volumes.
    pub fn of_volumes(&self, path: &str) -> String {
        match self.volumes {
            InProject::Asked => self.in_its_project(path),
            InProject::Default => path.to_owned(),
        }
    }

    /// `path` of what belongs to a project: the remote's, where it has one.
    pub fn in_its_project(&self, path: &str) -> String {
        match &self.project {
            None => path.to_owned(),
            Some(project) => {
                let mark = if path.contains('?') { '&' } else { '?' };
                format!("{path}{mark}project={}", segment(project.as_str()))
            }
        }
    }
}
