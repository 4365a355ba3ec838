//! Calls about config entries and intentions, in Consul's shapes.

use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::trust::segment;
use super::{Client, ClientError, NO_BODY};
use crate::wire::consul::config::{ConfigEntry, ResolvedService};
use crate::wire::consul::intention::Intention;
use crate::wire::control::{OwnedParts, WrittenEntries};

impl Client {
    /// Writes one entry; with `cas` only if it is at that index, 0 for an entry that is not there. False if it is not.
    pub async fn write_config_entry(
        &self,
        entry: &impl Serialize,
        cas: Option<u64>,
    ) -> Result<bool, ClientError> {
        let cas = cas.map(|index| format!("?cas={index}")).unwrap_or_default();
        self.consul(Method::PUT, &format!("/v1/config{cas}"), Some(entry)).await
    }

    /// Writes several entries whole or not at all.
    pub async fn write_config_entries(&self, entries: &[ConfigEntry]) -> Result<WrittenEntries, ClientError> {
        let body = serde_json::json!({ "entries": entries });
        self.request(Method::POST, "/control/v1/config", Some(&body)).await
    }

    /// One entry as the agent shows it.
    pub async fn config_entry(&self, kind: &str, name: &str) -> Result<Value, ClientError> {
        let path = format!("/v1/config/{}/{}", segment(kind), segment(name));
        self.consul(Method::GET, &path, NO_BODY).await
    }

    /// Every entry of a kind that the caller may see.
    pub async fn config_entries(&self, kind: &str, filter: Option<&str>) -> Result<Vec<Value>, ClientError> {
        let filter = filter.map(|filter| format!("?filter={}", segment(filter))).unwrap_or_default();
        self.consul(Method::GET, &format!("/v1/config/{}{filter}", segment(kind)), NO_BODY).await
    }

    /// Deletes an entry; with `cas` only if it is at that index. False if it is not.
    pub async fn delete_config_entry(
        &self,
        kind: &str,
        name: &str,
        cas: Option<u64>,
    ) -> Result<bool, ClientError> {
        let cas = cas.map(|index| format!("?cas={index}")).unwrap_or_default();
        let path = format!("/v1/config/{}/{}{cas}", segment(kind), segment(name));
        let answer: Value = self.consul(Method::DELETE, &path, NO_BODY).await?;
        Ok(answer != Value::Bool(false))
    }

    /// What manifests own of an entry.
    pub async fn owned_parts(&self, kind: &str, name: &str) -> Result<OwnedParts, ClientError> {
        let path = format!("/control/v1/config/{}/{}/owned", segment(kind), segment(name));
        self.request(Method::GET, &path, NO_BODY).await
    }

    /// Which service is offered to whom, of those that `filter` is true of.
    pub async fn resolved_exports(&self, filter: Option<&str>) -> Result<Vec<ResolvedService>, ClientError> {
        let filter = filter.map(|filter| format!("?filter={}", segment(filter))).unwrap_or_default();
        self.consul(Method::GET, &format!("/v1/exported-services{filter}"), NO_BODY).await
    }

    /// Every intention that the caller may see.
    pub async fn intentions(&self) -> Result<Vec<Intention>, ClientError> {
        self.consul(Method::GET, "/v1/connect/intentions", NO_BODY).await
    }

    /// The intention between these two, or of this id; `None` if there is none.
    pub async fn intention(&self, which: &Which<'_>) -> Result<Option<Intention>, ClientError> {
        match self.consul(Method::GET, &which.path(), NO_BODY).await {
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => Ok(None),
            answer => answer.map(Some),
        }
    }

    pub async fn create_intention(&self, intention: &impl Serialize) -> Result<(), ClientError> {
        self.consul::<Value>(Method::POST, "/v1/connect/intentions", Some(intention)).await.map(drop)
    }

    pub async fn replace_intention(&self, id: &str, intention: &impl Serialize) -> Result<(), ClientError> {
        self.consul::<Value>(Method::PUT, &Which::Id(id).path(), Some(intention)).await.map(drop)
    }

    pub async fn delete_intention(&self, which: &Which<'_>) -> Result<(), ClientError> {
        self.consul::<Value>(Method::DELETE, &which.path(), NO_BODY).await.map(drop)
    }

    /// Whether a connection may be made.
    pub async fn check_intention(&self, source: &str, destination: &str) -> Result<bool, ClientError> {
        let path = format!(
            "/v1/connect/intentions/check?source={}&destination={}&source-type=consul",
            segment(source),
            segment(destination)
        );
        let answer: Value = self.consul(Method::GET, &path, NO_BODY).await?;
        Ok(answer["Allowed"] == Value::Bool(true))
    }

    /// The intentions that name `name` as `by` (`source` or `destination`), or every service in its place.
    pub async fn match_intentions(&self, by: &str, name: &str) -> Result<Vec<Intention>, ClientError> {
        let path = format!("/v1/connect/intentions/match?by={by}&name={}", segment(name));
        let mut answer: std::collections::BTreeMap<String, Option<Vec<Intention>>> =
            self.consul(Method::GET, &path, NO_BODY).await?;
        Ok(answer.remove(name).flatten().unwrap_or_default())
    }
}

/// How an intention is named.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    Id(&'a str),
    Between { source: &'a str, destination: &'a str },
}

impl Which<'_> {
    fn path(&self) -> String {
        match self {
            Which::Id(id) => format!("/v1/connect/intentions/{}", segment(id)),
            Which::Between { source, destination } => format!(
                "/v1/connect/intentions/exact?source={}&destination={}",
                segment(source),
                segment(destination)
            ),
        }
    }
}
