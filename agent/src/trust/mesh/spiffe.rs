//! The names that services' certificates carry (SPIFFE), in Consul's form.

use std::fmt;
use std::str::FromStr;

use schema::name::{ClusterName, ServiceName};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::wire::bundle::MAX_DOMAIN;

/// What Consul's clients expect at the end of a trust domain.
const SUFFIX: &str = ".consul";
/// The one namespace, and partition, that there is.
const DEFAULT: &str = "default";

/// Within which names are a mesh CA's to give: `UUID.consul` where it is one of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(String);

/// Why a text is no name of this kind. Never repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    #[error("a trust domain is a host's name in lower case")]
    Domain,
    #[error("the URI does not begin with spiffe://")]
    Scheme,
    #[error("the URI names nothing that is known here")]
    Path,
}

/// Whom a URI names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpiffeId {
    Service(ServiceId),
    /// An agent, a server, a gateway, or a CA itself.
    Other(TrustDomain),
}

/// A service, by the word of the cluster whose trust domain it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceId {
    pub domain: TrustDomain,
    pub partition: String,
    pub namespace: String,
    pub datacenter: String,
    pub service: String,
}

impl TrustDomain {
    pub fn random() -> Self {
        Self(format!("{}{SUFFIX}", Uuid::new_v4()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before `.consul`: Consul's id of the cluster.
    pub fn cluster_id(&self) -> &str {
        self.0.strip_suffix(SUFFIX).unwrap_or(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeError;
    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| letter(byte) || byte == b'-')
                && label.bytes().next().is_some_and(letter)
                && label.bytes().next_back().is_some_and(letter)
        };
        let good = text.len() <= MAX_DOMAIN && text.split('.').all(label);
        if good { Ok(Self(text.to_owned())) } else { Err(SpiffeError::Domain) }
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = SpiffeError;
    fn try_from(text: String) -> Result<Self, SpiffeError> {
        text.parse()
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> String {
        domain.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SpiffeId {
    pub fn of_service(domain: TrustDomain, cluster: &ClusterName, service: &ServiceName) -> Self {
        SpiffeId::Service(ServiceId {
            domain,
            partition: DEFAULT.to_owned(),
            namespace: DEFAULT.to_owned(),
            datacenter: cluster.to_string(),
            service: service.to_string(),
        })
    }
}

impl ServiceId {
    /// Whether it is in the one namespace and partition that there is.
    pub fn is_default(&self) -> bool {
        self.partition == DEFAULT && self.namespace == DEFAULT
    }
}

/// Names hold nothing that would have to be escaped.
impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpiffeId::Service(ServiceId { domain, partition, namespace, datacenter, service }) => {
                write!(f, "spiffe://{domain}")?;
                if partition != DEFAULT {
                    write!(f, "/ap/{partition}")?;
                }
                write!(f, "/ns/{namespace}/dc/{datacenter}/svc/{service}")
            }
            SpiffeId::Other(domain) => write!(f, "spiffe://{domain}"),
        }
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;
    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        let rest = text.strip_prefix("spiffe://").ok_or(SpiffeError::Scheme)?;
        let (domain, path) = rest.split_once('/').map_or((rest, None), |(domain, path)| (domain, Some(path)));
        let domain: TrustDomain = domain.to_ascii_lowercase().parse()?;
        let Some(path) = path.filter(|path| !path.is_empty()) else {
            // The CA itself.
            return Ok(SpiffeId::Other(domain));
        };
        let parts = path.split('/').map(unescaped).collect::<Option<Vec<_>>>().ok_or(SpiffeError::Path)?;
        if parts.iter().any(String::is_empty) {
            return Err(SpiffeError::Path);
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (partition, parts) = match parts.as_slice() {
            ["ap", partition, rest @ ..] => (*partition, rest),
            whole => (DEFAULT, whole),
        };
        match parts {
            ["ns", namespace, "dc", datacenter, "svc", service] => Ok(SpiffeId::Service(ServiceId {
                domain,
                partition: partition.to_owned(),
                namespace: (*namespace).to_owned(),
                datacenter: (*datacenter).to_owned(),
                service: (*service).to_owned(),
            })),
            ["agent", "client", "dc", _, "id", _]
            | ["agent", "server", "dc", _]
            | ["gateway", "mesh", "dc", _]
            | ["ns", _, "identity", _] => Ok(SpiffeId::Other(domain)),
            _ => Err(SpiffeError::Path),
        }
    }
}

/// A part of a path without its `%XX`; `None` where that is broken.
fn unescaped(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_and_read_as_consul_has_them() {
        let domain: TrustDomain = "7f42f496-fbc7-8692-05ed-334aa5340c1e.consul".parse().unwrap();
        let id = SpiffeId::of_service(domain.clone(), &"dc1".parse().unwrap(), &"web".parse().unwrap());
        let text = "spiffe://7f42f496-fbc7-8692-05ed-334aa5340c1e.consul/ns/default/dc/dc1/svc/web";
        assert_eq!(id.to_string(), text);
        assert_eq!(text.parse(), Ok(id.clone()));
        assert_eq!(text.replace("/ns/", "/ap/default/ns/").parse(), Ok(id));
        assert_eq!(domain.cluster_id().len(), 36);
        for other in
            ["", "/", "/agent/client/dc/dc1/id/n", "/agent/server/dc/dc1", "/ap/default/gateway/mesh/dc/dc1"]
        {
            let uri = format!("spiffe://{domain}{other}");
            assert_eq!(uri.parse(), Ok(SpiffeId::Other(domain.clone())), "{uri}");
        }
        let escaped = format!("spiffe://{domain}/ns/default/dc/dc1/svc/a%2Fb");
        assert!(matches!(escaped.parse(), Ok(SpiffeId::Service(id)) if id.service == "a/b"));
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for (text, why) in [
            ("tubes", SpiffeError::Scheme),
            ("https://x.consul/ns/default/dc/dc1/svc/web", SpiffeError::Scheme),
            ("spiffe:///ns/default/dc/dc1/svc/web", SpiffeError::Domain),
            ("spiffe://a b/ns/default/dc/dc1/svc/web", SpiffeError::Domain),
            ("spiffe://x.consul/ns/default/dc/dc1/svc/", SpiffeError::Path),
            ("spiffe://x.consul/ns/default/dc/dc1/svc/%zz", SpiffeError::Path),
            ("spiffe://x.consul/what/ever", SpiffeError::Path),
        ] {
            assert_eq!(text.parse::<SpiffeId>(), Err(why), "{text}");
        }
    }
}
