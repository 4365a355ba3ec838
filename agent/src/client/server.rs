//! The server's settings, its operations, its projects, and what it tells of itself.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Empty};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use super::upgrade::Upgraded;
use super::{Client, ClientError, NO_BODY};
use crate::wire::lxd::operation::OperationBody;

/// Settings, or a project's configuration.
pub type Config = BTreeMap<String, String>;

/// A project as it is shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Project {
    pub name: String,
    pub description: String,
    pub config: Config,
    #[serde(default)]
    pub used_by: Vec<String>,
}

/// Events as they happen.
pub struct Events(WebSocketStream<Upgraded>);

impl Events {
    /// The next event; `None` when there are no more.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            match self.0.next().await? {
                Ok(Message::Text(text)) => return serde_json::from_str(&text).ok(),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

impl Client {
    /// What is set.
    pub async fn settings(&self) -> Result<Config, ClientError> {
        #[derive(Deserialize)]
        struct Info {
            config: Option<Config>,
        }
        let info: Info = self.lxd(Method::GET, "/1.0", NO_BODY).await?;
        Ok(info.config.unwrap_or_default())
    }

    /// Sets these keys, and unsets those that are set to nothing.
    pub async fn set(&self, config: &Config) -> Result<(), ClientError> {
        self.lxd::<Value>(Method::PATCH, "/1.0", Some(&json!({ "config": config }))).await.map(drop)
    }

    /// Sets these keys and no others.
    pub async fn replace_settings(&self, config: &Config) -> Result<(), ClientError> {
        self.lxd::<Value>(Method::PUT, "/1.0", Some(&json!({ "config": config }))).await.map(drop)
    }

    /// Whether the server has a feature, by LXD's name of it.
    pub async fn has_extension(&self, name: &str) -> Result<bool, ClientError> {
        Ok(self.server().await?.api_extensions.iter().any(|extension| extension == name))
    }

    /// Every operation that the caller may see.
    pub async fn operations(&self) -> Result<Vec<OperationBody>, ClientError> {
        let path = format!("/1.0/operations?recursion=1&{}", self.which_projects());
        let by_status: BTreeMap<String, Vec<OperationBody>> = self.lxd(Method::GET, &path, NO_BODY).await?;
        let mut all: Vec<_> = by_status.into_values().flatten().collect();
        all.sort_by_key(|operation| operation.created_at);
        Ok(all)
    }

    pub async fn projects(&self) -> Result<Vec<Project>, ClientError> {
        self.lxd(Method::GET, "/1.0/projects?recursion=1", NO_BODY).await
    }

    pub async fn project(&self, name: &str) -> Result<Project, ClientError> {
        self.lxd(Method::GET, &format!("/1.0/projects/{name}"), NO_BODY).await
    }

    pub async fn create_project(
        &self,
        name: &str,
        description: &str,
        config: &Config,
    ) -> Result<(), ClientError> {
        let body = json!({ "name": name, "description": description, "config": config });
        self.lxd::<Value>(Method::POST, "/1.0/projects", Some(&body)).await.map(drop)
    }

    /// Sets these keys of a project, and unsets those that are set to nothing.
    pub async fn set_project(&self, name: &str, config: &Config) -> Result<(), ClientError> {
        let body = json!({ "config": config });
        self.lxd::<Value>(Method::PATCH, &format!("/1.0/projects/{name}"), Some(&body)).await.map(drop)
    }

    pub async fn rename_project(&self, name: &str, to: &str) -> Result<(), ClientError> {
        let body = json!({ "name": to });
        self.lxd::<Value>(Method::POST, &format!("/1.0/projects/{name}"), Some(&body)).await.map(drop)
    }

    pub async fn delete_project(&self, name: &str) -> Result<(), ClientError> {
        self.lxd::<Value>(Method::DELETE, &format!("/1.0/projects/{name}"), NO_BODY).await.map(drop)
    }

    /// Listens to events of these kinds (all, if there are none).
    pub async fn events(&self, kinds: &[String]) -> Result<Events, ClientError> {
        let path = match kinds {
            [] => format!("/1.0/events?{}", self.which_projects()),
            kinds => format!("/1.0/events?{}&type={}", self.which_projects(), kinds.join(",")),
        };
        let key = generate_key();
        let headers = [("sec-websocket-version", "13"), ("sec-websocket-key", key.as_str())];
        let stream = self.upgrade_with(Method::GET, &path, "websocket", &headers).await?;
        Ok(Events(WebSocketStream::from_raw_socket(stream, Role::Client, None).await))
    }

    /// Gives each line of the audit log to `take`, to the end; with `follow` there is none.
    pub async fn audit(
        &self,
        query: &[(&str, String)],
        mut take: impl FnMut(Value),
    ) -> Result<(), ClientError> {
        let query: Vec<String> =
            query.iter().map(|(key, value)| format!("{key}={}", escaped(value))).collect();
        let path = format!("/control/v1/audit?{}", query.join("&"));
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let request = Request::builder().uri(path).body(body).map_err(|error| self.unexpected(&error))?;
        let mut body = self.stream(request).await?.into_body();
        let mut rest: Vec<u8> = Vec::new();
        while let Some(frame) = body.frame().await {
            let data: Bytes = frame.map_err(|error| self.broken(&error))?.into_data().unwrap_or_default();
            rest.extend_from_slice(&data);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                take(serde_json::from_slice(&line).map_err(|error| self.unexpected(&error))?);
            }
        }
        Ok(())
    }
}

/// `text` as a value in a query.
fn escaped(text: &str) -> String {
    use std::fmt::Write as _;
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b':') {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}
