//! What can be declared: one file a kind, each answering the same questions (decode, check, normalise).
//!
//! The structs here are the *normalised* forms: what a record holds in the store, what a plan compares. Lists
//! whose order means nothing are sorted and free of duplicates once normalised, so that equal meaning is equal bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Faults, Severity};
use crate::document::{Span, Table};
use crate::name::{LinkName, ManifestName, NameError, RemoteName};
use crate::record::{Record, RecordKey};

use cluster_link::TokenSource;
use fields::{Fields, Form, Place, Text, bad_name};

pub mod auth_group;
pub mod cluster_link;
pub mod duration;
pub mod entry;
pub mod exported_services;
pub mod fields;
pub mod manifest;
mod meta;
pub mod sameness_group;
pub mod service;
pub mod service_defaults;
pub mod service_intentions;
mod tenancy;
pub mod transfer;
pub mod volume;

/// The kinds of declaration, in the order in which a plan lists and an apply creates them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Manifest,
    AuthGroup,
    ClusterLink,
    SamenessGroup,
    ServiceDefaults,
    Service,
    ExportedServices,
    ServiceIntentions,
    Volume,
    Transfer,
}

impl Kind {
    pub const ALL: [Kind; 10] = [
        Kind::Manifest,
        Kind::AuthGroup,
        Kind::ClusterLink,
        Kind::SamenessGroup,
        Kind::ServiceDefaults,
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
            Kind::SamenessGroup => "sameness_group",
            Kind::ServiceDefaults => "service_defaults",
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

/// One declaration as a file has it, in either form.
#[derive(Debug, Clone, Copy)]
pub struct Declaration<'a> {
    pub form: Form,
    /// The block's label, or the entry's `Name`.
    pub name: Text<'a>,
    /// What a message about the whole declaration points at.
    pub header: Span,
    pub table: &'a Table,
}

impl<'a> Declaration<'a> {
    /// The declaration's fields. The name of an entry is one of them, and has been taken.
    fn fields<'f>(&self, root: &'a Place<'a>, faults: &'f mut Faults) -> Fields<'a, 'f> {
        let mut fields = Fields::new(self.table, self.header, *root, faults);
        if self.form == Form::Entry {
            for name in ["kind", "name", "hash", "create_index", "modify_index"] {
                fields.take(name);
            }
        }
        fields
    }

    /// The name, parsed.
    fn parse_name<T: FromStr<Err = NameError>>(&self, kind: Kind, faults: &mut Faults) -> Option<T> {
        self.name
            .text
            .parse()
            .map_err(|error| bad_name(faults, &format!("the name of this {kind}"), self.name, &error))
            .ok()
    }
}

/// What a declaration comes to: its records, and the names in it that something else must declare.
#[derive(Debug, Default)]
pub struct Decoded {
    pub records: Vec<DecodedRecord>,
    pub mentions: Vec<Mention>,
    pub manifest: Option<(ManifestName, manifest::Manifest)>,
    pub token_source: Option<(LinkName, TokenSource)>,
}

/// A record and its place.
#[derive(Debug)]
pub struct DecodedRecord {
    pub key: RecordKey,
    pub record: Record,
    pub span: Span,
}

/// A name that a declaration uses and does not declare.
#[derive(Debug)]
pub struct Mention {
    /// `None` for the manifest itself.
    pub from: Option<RecordKey>,
    pub to: RecordKey,
    /// The cluster that `to` is on, if it is not the manifest's own.
    pub cluster: Option<RemoteName>,
    pub span: Span,
    /// How bad it is if nothing declares it.
    pub severity: Severity,
}

impl Decoded {
    fn record(&mut self, key: RecordKey, record: Record, span: Span) {
        self.records.push(DecodedRecord { key, record, span });
    }

    fn mention(&mut self, from: Option<RecordKey>, to: RecordKey, span: Span, severity: Severity) {
        self.mentions.push(Mention { from, to, cluster: None, span, severity });
    }
}

/// Decodes one declaration of `kind`; what is faulty is told of and left out.
pub fn decode(kind: Kind, declaration: &Declaration<'_>, faults: &mut Faults) -> Decoded {
    match kind {
        Kind::Manifest => manifest::decode(declaration, faults),
        Kind::AuthGroup => auth_group::decode(declaration, faults),
        Kind::ClusterLink => cluster_link::decode(declaration, faults),
        Kind::SamenessGroup => sameness_group::decode(declaration, faults),
        Kind::ServiceDefaults => service_defaults::decode(declaration, faults),
        Kind::Service => service::decode(declaration, faults),
        Kind::ExportedServices => exported_services::decode(declaration, faults),
        Kind::ServiceIntentions => service_intentions::decode(declaration, faults),
        Kind::Volume => volume::decode(declaration, faults),
        Kind::Transfer => transfer::decode(declaration, faults),
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
