//! Names: a type for each noun, so that a link cannot be passed where a service is meant.
//!
//! A name is 1 to 63 ASCII letters, digits, `-`, `_` or `.`, beginning and ending with a letter or digit. That is
//! what LXD takes for groups and links and what Consul takes for services; a surface with stricter rules (Consul
//! peers: lower case, no `_`) checks them itself on creation.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest name, in bytes: one DNS label, so that every name can become a SAN.
pub const MAX_NAME: usize = 63;

/// Why a text is not a name. Never repeats the text: it may be a token pasted in the wrong place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name must not be empty")]
    Empty,
    #[error("this is {0} characters long; a name has at most {MAX_NAME}")]
    TooLong(usize),
    #[error("a name holds ASCII letters, digits, '-', '_' and '.', not {0:?}")]
    BadCharacter(char),
    #[error("a name begins and ends with a letter or a digit")]
    BadEdge,
    #[error("an instance is named like a host, with ASCII letters, digits and '-', not {0:?}")]
    BadHostCharacter(char),
    #[error("the name of an instance does not begin with a digit")]
    LeadingDigit,
    #[error("this is {0} characters long; an instance's id has at most {MAX_INSTANCE_ID}")]
    IdTooLong(usize),
    #[error("an instance's id holds visible ASCII characters other than '/', not {0:?}")]
    BadIdCharacter(char),
}

/// Checks `text` against the rule for names.
pub fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > MAX_NAME {
        return Err(NameError::TooLong(text.chars().count()));
    }
    if let Some(bad) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))) {
        return Err(NameError::BadCharacter(bad));
    }
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if edge(text.chars().next()) && edge(text.chars().next_back()) { Ok(()) } else { Err(NameError::BadEdge) }
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                check(&text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    )*};
}

names! {
    /// A cluster: one or more agents over one store, named at its first start.
    ClusterName;
    /// A cluster as the command line knows it (LXD: remote).
    RemoteName;
    /// The owner of a set of declarations.
    ManifestName;
    /// A set of permissions (LXD: auth group).
    GroupName;
    /// The trust between two clusters, as this side names it (LXD: cluster link, Consul: peer).
    LinkName;
    /// A service of this cluster or of a peer (Consul).
    ServiceName;
    /// A set of peers, and perhaps this cluster, that are treated alike (Consul: sameness group).
    SamenessGroupName;
    /// What instances and volumes are grouped by (LXD: project).
    ProjectName;
    /// A storage pool (LXD).
    PoolName;
    /// A custom storage volume within a pool (LXD).
    VolumeName;
    /// A declared transfer.
    TransferName;
    /// A snapshot of a volume or of an instance, within it (LXD).
    SnapshotName;
}

/// An instance that is kept in a pool (LXD: container). It is a host name: 1 to 63 ASCII letters, digits and `-`, beginning
/// with a letter and ending with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerName(String);

impl ContainerName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        check(text)?;
        match text.chars().find(|c| matches!(c, '_' | '.')) {
            Some(bad) => Err(NameError::BadHostCharacter(bad)),
            None if text.starts_with(|c: char| c.is_ascii_digit()) => Err(NameError::LeadingDigit),
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl TryFrom<String> for ContainerName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ContainerName> for String {
    fn from(name: ContainerName) -> String {
        name.0
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Names one instance of a service among all of its cluster. Consul takes nearly anything here, so this takes more than
/// a name: 1 to 255 visible ASCII characters without `/`, which divides a record's key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId(Arc<str>);

/// Longest id of an instance, in bytes.
pub const MAX_INSTANCE_ID: usize = 255;

impl InstanceId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The id of an instance that gives none.
impl From<&ServiceName> for InstanceId {
    fn from(service: &ServiceName) -> Self {
        Self(service.as_str().into())
    }
}

impl FromStr for InstanceId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > MAX_INSTANCE_ID {
            return Err(NameError::IdTooLong(text.chars().count()));
        }
        match text.chars().find(|c| !c.is_ascii_graphic() || *c == '/') {
            Some(bad) => Err(NameError::BadIdCharacter(bad)),
            None => Ok(Self(text.into())),
        }
    }
}

impl TryFrom<String> for InstanceId {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> String {
        id.as_str().to_owned()
    }
}

impl Borrow<str> for InstanceId {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_called_what_consul_lets_it_be_called() {
        for good in ["web", "web-1", "_nomad-task-4f2a:http", "web@host#2"] {
            assert_eq!(good.parse::<InstanceId>().unwrap().as_str(), good);
        }
        for bad in ["", "a/b", "a b", "a\n", "é", &"x".repeat(256)] {
            let message = bad.parse::<InstanceId>().unwrap_err().to_string();
            assert!(!message.contains("xxx"), "{message}");
        }
    }

    #[test]
    fn a_container_is_named_like_a_host() {
        for good in ["c1", "web-1", "A"] {
            assert_eq!(good.parse::<ContainerName>().unwrap().as_str(), good);
        }
        for bad in ["", "1c", "-c", "c-", "a_b", "a.b", "a/b", "é", &"x".repeat(64)] {
            assert!(bad.parse::<ContainerName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn takes_what_lxd_and_consul_take() {
        for good in ["a", "cluster_b", "cluster-02", "backend.v1", "A9"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn refuses_with_a_reason_that_never_echoes() {
        assert_eq!(check(""), Err(NameError::Empty));
        assert_eq!(check("-a"), Err(NameError::BadEdge));
        assert_eq!(check("a/b"), Err(NameError::BadCharacter('/')));
        let token = "x".repeat(400);
        let message = check(&token).unwrap_err().to_string();
        assert!(!message.contains("xxx"), "{message}");
    }
}
