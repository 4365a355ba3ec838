//! What every request under `/v1` may ask for: to wait, to indent, and much that there is one of here and that Consul's
//! Enterprise edition has many of.

use std::time::Duration;

use axum::extract::{FromRequestParts, Query};
use http::StatusCode;
use http::request::Parts;
use schema::kind::duration;

use super::answer::ConsulError;
use crate::api::ApiState;
use crate::trust::{Caller, Who};

/// How long a query waits that does not say it.
const USUAL_WAIT: Duration = Duration::from_secs(300);
/// The longest that one may.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// The one namespace and the one partition.
const DEFAULT: &str = "default";

/// Options of a query. As an argument of a handler it refuses what Consul refuses before it looks at anything else.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Who asks, as the request was begun.
    pub caller: Caller,
    /// The index that the client has seen; `None`: it does not wait.
    pub index: Option<u64>,
    pub wait: Duration,
    pub pretty: bool,
    pairs: Vec<(String, String)>,
}

impl Asked {
    /// Whether `?name` is there, whatever its value.
    pub fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|(key, _)| key == name)
    }

    /// The value of `?name=`; of several the first, and of none an empty one, as Go has it.
    pub fn get(&self, name: &str) -> &str {
        self.all(name).next().unwrap_or_default()
    }

    /// Every value of `?name=`.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn read(parts: &Parts, own: &str) -> Result<Self, ConsulError> {
        // Pairs of text can be read from any query.
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri).unwrap_or_default();
        let caller = parts.extensions.get::<Caller>().cloned();
        // Each request has one; without it nobody is asking.
        let caller = caller.unwrap_or_else(|| Who::Anonymous { certificate: None }.into());
        let pretty = pairs.iter().any(|(key, _)| key == "pretty");
        let mut asked = Self { caller, index: None, wait: USUAL_WAIT, pretty, pairs };
        for (name, header, what) in [
            ("ns", "X-Consul-Namespace", "Namespaces are"),
            ("partition", "X-Consul-Partition", "Partitions are"),
        ] {
            let other = |value: &str| !value.is_empty() && !value.eq_ignore_ascii_case(DEFAULT);
            let enterprise = |place: &str, name: &str| {
                ConsulError::bad_request(format!(
                    "Invalid {place}: {name:?} - {what} a Consul Enterprise feature"
                ))
            };
            if asked.all(name).any(other) {
                return Err(enterprise("query parameter", name));
            }
            let sent = parts.headers.get_all(header).iter();
            if sent.map(|value| value.to_str().unwrap_or("?")).any(other) {
                return Err(enterprise("header", header));
            }
        }
        if asked.has("stale") && asked.has("consistent") {
            let message = "Cannot specify ?stale with ?consistent, conflicting semantics.";
            return Err(ConsulError::bad_request(message));
        }
        if asked.has("cached") && asked.has("consistent") {
            let message = "Cannot specify ?cached with ?consistent, conflicting semantics.";
            return Err(ConsulError::bad_request(message));
        }
        if !matches!(asked.get("dc"), dc if dc.is_empty() || dc == own) {
            return Err(ConsulError::new(StatusCode::INTERNAL_SERVER_ERROR, "No path to datacenter"));
        }
        if !asked.get("index").is_empty() {
            let index =
                asked.get("index").parse::<u64>().map_err(|_| ConsulError::bad_request("Invalid index"))?;
            asked.index = Some(index).filter(|index| *index != 0);
        }
        if !asked.get("wait").is_empty() {
            let wait = match asked.get("wait") {
                "0" => Some(0),
                text => duration::parse_ms(text),
            };
            let wait = wait.ok_or_else(|| ConsulError::bad_request("Invalid wait time"))?;
            if wait != 0 {
                asked.wait = Duration::from_millis(wait).min(LONGEST_WAIT);
            }
        }
        Ok(asked)
    }
}

impl FromRequestParts<ApiState> for Asked {
    type Rejection = ConsulError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ConsulError> {
        Self::read(parts, state.name.as_str())
    }
}

#[cfg(test)]
pub(super) fn asked(path: &str) -> Result<Asked, ConsulError> {
    let (parts, ()) = http::Request::get(path).body(()).unwrap().into_parts();
    Asked::read(&parts, "east")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_consul_reads_them() {
        let plain = asked("/v1/config/mesh").unwrap();
        assert_eq!((plain.index, plain.wait, plain.pretty), (None, USUAL_WAIT, false));
        let full = asked("/v1/x?index=7&wait=5000ms&pretty&stale&dc=east&tag=a&tag=b&ns=default&partition=");
        let full = full.unwrap();
        assert_eq!((full.index, full.wait, full.pretty), (Some(7), Duration::from_secs(5), true));
        assert_eq!(full.all("tag").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((full.get("tag"), full.get("none"), full.has("stale")), ("a", "", true));
        assert_eq!(asked("/v1/x?index=0").unwrap().index, None);
        assert_eq!(asked("/v1/x?wait=2h").unwrap().wait, LONGEST_WAIT);
        assert_eq!(asked("/v1/x?wait=0s").unwrap().wait, USUAL_WAIT);
        assert_eq!(asked("/v1/x?filter=a+%3D%3D+b").unwrap().get("filter"), "a == b");
    }

    #[test]
    fn what_consul_refuses_is_refused_in_its_words() {
        for (query, status, message) in [
            ("ns=other", 400, "Invalid query parameter: \"ns\" - Namespaces are a Consul Enterprise feature"),
            (
                "partition=a",
                400,
                "Invalid query parameter: \"partition\" - Partitions are a Consul Enterprise feature",
            ),
            ("index=-1", 400, "Invalid index"),
            ("index=x", 400, "Invalid index"),
            ("wait=10", 400, "Invalid wait time"),
            ("stale&consistent", 400, "Cannot specify ?stale with ?consistent, conflicting semantics."),
            ("cached&consistent", 400, "Cannot specify ?cached with ?consistent, conflicting semantics."),
            ("dc=west", 500, "No path to datacenter"),
        ] {
            let refused = asked(&format!("/v1/x?{query}")).unwrap_err();
            assert_eq!((refused.status.as_u16(), refused.message.as_str()), (status, message), "{query}");
        }
        let request = http::Request::get("/v1/x").header("X-Consul-Namespace", "team");
        let (parts, ()) = request.body(()).unwrap().into_parts();
        assert_eq!(
            Asked::read(&parts, "east").unwrap_err().message,
            "Invalid header: \"X-Consul-Namespace\" - Namespaces are a Consul Enterprise feature"
        );
    }
}
