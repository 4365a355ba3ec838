//! `manifest "NAME" {}`: the owner of what a folder declares, and the remote it is applied to.

use serde::{Deserialize, Serialize};

use crate::name::{GroupName, RemoteName};

/// A manifest as declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Manifest {
    /// The remote to apply to; `None` means the default remote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<RemoteName>,
    /// Groups whose members may apply it, besides the identity that first did. Sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<GroupName>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}
