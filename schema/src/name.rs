//! Names: a type for each noun, so that a link cannot be passed where a service is meant.
//!
//! A name is 1 to 63 ASCII letters, digits, `-`, `_` or `.`, beginning and ending with a letter or digit. That is
//! what LXD takes for groups and links and what Consul takes for services; a surface with stricter rules (Consul
//! peers: lower case, no `_`) checks them itself on creation.

use std::fmt;
use std::str::FromStr;

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
}

#[cfg(test)]
mod tests {
    use super::*;

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
