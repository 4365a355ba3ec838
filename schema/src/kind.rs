//! What can be declared: one file a kind, each answering the same questions (decode, check, normalise).
//!
//! The structs here are the *normalised* forms: what a record holds in the store, what a plan compares. Lists
//! whose order means nothing are sorted and free of duplicates once normalised, so that equal meaning is equal bytes.

use std::fmt;

use serde::{Deserialize, Serialize};

pub mod auth_group;
pub mod cluster_link;
pub mod exported_services;
pub mod manifest;
pub mod service;
pub mod service_intentions;
pub mod transfer;
pub mod volume;

/// The kinds of declaration, in the order in which a plan lists and an apply creates them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Manifest,
    AuthGroup,
    ClusterLink,
    Service,
    ExportedServices,
    ServiceIntentions,
    Volume,
    Transfer,
}

impl Kind {
    pub const ALL: [Kind; 8] = [
        Kind::Manifest,
        Kind::AuthGroup,
        Kind::ClusterLink,
        Kind::Service,
        Kind::ExportedServices,
        Kind::ServiceIntentions,
        Kind::Volume,
        Kind::Transfer,
    ];

    /// The word used in files and addresses.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Manifest => "manifest",
            Kind::AuthGroup => "auth_group",
            Kind::ClusterLink => "cluster_link",
            Kind::Service => "service",
            Kind::ExportedServices => "exported_services",
            Kind::ServiceIntentions => "service_intentions",
            Kind::Volume => "volume",
            Kind::Transfer => "transfer",
        }
    }

    /// The kind that `word` names, in a block (`exported_services`) or a config entry (`exported-services`).
    pub fn from_word(word: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| {
            kind.as_str().len() == word.len()
                && kind.as_str().bytes().zip(word.bytes()).all(|(k, w)| k == w || (k == b'_' && w == b'-'))
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
