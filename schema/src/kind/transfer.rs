//! `transfer "NAME" {}`: a copy of a volume or an instance from one cluster to another, run on demand.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::fields::{Fields, Place, Text};
use super::{Declaration, Decoded, Kind, Mention};
use crate::diagnostic::secret::looks_secret;
use crate::diagnostic::{Diagnostic, Faults, Severity, sentence};
use crate::document::Span;
use crate::name::{ContainerName, NameError, PoolName, RemoteName, SnapshotName, TransferName, VolumeName};
use crate::record::{Record, RecordKey};

/// A declared copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    pub source: Address,
    /// The source's snapshot that is copied in place of the source as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotName>,
    pub target: Address,
    #[serde(default)]
    pub mode: Mode,
    #[serde(default, skip_serializing_if = "is_usual")]
    pub connect: Connect,
    #[serde(default, skip_serializing_if = "is_usual")]
    pub snapshots: Snapshots,
    #[serde(default, skip_serializing_if = "is_usual")]
    pub consistency: Consistency,
}

fn is_usual<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What to do when the target exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Refuse.
    Copy,
    /// Bring the target to the source's state (LXD: `--refresh`).
    #[default]
    Refresh,
}

/// Who connects to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Connect {
    /// The target to the source.
    #[default]
    Pull,
    /// The source to the target.
    Push,
    /// The command that runs it to both.
    Relay,
}

/// Which snapshots go along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Snapshots {
    /// The source's; those that the target alone has stay.
    #[default]
    Added,
    /// The source's; those that the target alone has go.
    Pruned,
    /// None.
    None,
}

/// What is done about a source that changes while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// It is refused.
    #[default]
    Strict,
    /// It is taken as it is found.
    AllowInconsistent,
}

/// `REMOTE:POOL/VOLUME` or `REMOTE:INSTANCE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Address {
    Volume(VolumeAddress),
    Instance(InstanceAddress),
}

/// `REMOTE:INSTANCE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceAddress {
    /// As a volume's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteName>,
    pub instance: ContainerName,
}

impl Address {
    pub fn remote(&self) -> Option<&RemoteName> {
        match self {
            Address::Volume(volume) => volume.remote.as_ref(),
            Address::Instance(instance) => instance.remote.as_ref(),
        }
    }

    fn noun(&self) -> &'static str {
        match self {
            Address::Volume(_) => "volume",
            Address::Instance(_) => "instance",
        }
    }

    /// The key that leaves the snapshots of such a thing behind, as LXD's flag for it is called.
    pub fn alone(&self) -> &'static str {
        match self {
            Address::Volume(_) => VOLUME_ONLY,
            Address::Instance(_) => INSTANCE_ONLY,
        }
    }
}

const VOLUME_ONLY: &str = "volume_only";
const INSTANCE_ONLY: &str = "instance_only";
const PRUNE: &str = "prune";
const ALLOW_INCONSISTENT: &str = "allow_inconsistent";

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Volume(volume) => volume.fmt(f),
            Address::Instance(InstanceAddress { remote: Some(remote), instance }) => {
                write!(f, "{remote}:{instance}")
            }
            Address::Instance(InstanceAddress { remote: None, instance }) => instance.fmt(f),
        }
    }
}

/// Why a text is not an address. Never repeats the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error(
        "a volume is REMOTE:POOL/VOLUME, an instance REMOTE:INSTANCE; a snapshot of it is named by the key snapshot"
    )]
    Shape,
    #[error("the instance in it is not a name: {0}")]
    Instance(NameError),
    #[error(transparent)]
    Volume(VolumeAddressError),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (remote, path) = parted(text).map_err(AddressError::Volume)?;
        match path.matches('/').count() {
            0 => {
                let instance = path.parse().map_err(AddressError::Instance)?;
                Ok(Address::Instance(InstanceAddress { remote, instance }))
            }
            1 => text.parse().map(Address::Volume).map_err(AddressError::Volume),
            _ => Err(AddressError::Shape),
        }
    }
}

fn parted(text: &str) -> Result<(Option<RemoteName>, &str), VolumeAddressError> {
    match text.split_once(':') {
        Some((remote, path)) => Ok((Some(remote.parse().map_err(VolumeAddressError::Remote)?), path)),
        None => Ok((None, text)),
    }
}

/// `REMOTE:POOL/VOLUME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeAddress {
    /// `None` means the default remote, or the manifest's own cluster in a declaration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteName>,
    pub pool: PoolName,
    pub volume: VolumeName,
}

impl fmt::Display for VolumeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(remote) = &self.remote {
            write!(f, "{remote}:")?;
        }
        write!(f, "{}/{}", self.pool, self.volume)
    }
}

/// Why a text is not a volume's address. Never repeats the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VolumeAddressError {
    #[error("a volume's address is REMOTE:POOL/VOLUME or POOL/VOLUME, such as east:default/orders")]
    Shape,
    #[error("the remote in it is not a name: {0}")]
    Remote(NameError),
    #[error("the pool in it is not a name: {0}")]
    Pool(NameError),
    #[error("the volume in it is not a name: {0}")]
    Volume(NameError),
}

impl FromStr for VolumeAddress {
    type Err = VolumeAddressError;

    fn from_str(text: &str) -> Result<Self, VolumeAddressError> {
        let (remote, path) = parted(text)?;
        let (pool, volume) = path.split_once('/').ok_or(VolumeAddressError::Shape)?;
        Ok(Self {
            remote,
            pool: pool.parse().map_err(VolumeAddressError::Pool)?,
            volume: volume.parse().map_err(VolumeAddressError::Volume)?,
        })
    }
}

/// Decodes one block.
pub fn decode(declaration: &Declaration<'_>, faults: &mut Faults) -> Decoded {
    let root = Place::Root(declaration.form);
    let mut decoded = Decoded::default();
    let name: Option<TransferName> = declaration.parse_name(Kind::Transfer, faults);
    let mut fields = declaration.fields(&root, faults);
    let source = address(&mut fields, "source");
    let snapshot: Option<SnapshotName> = fields.name("snapshot");
    let target = address(&mut fields, "target");
    let mode = fields.word("mode", &[("copy", Mode::Copy), ("refresh", Mode::Refresh)]).unwrap_or_default();
    let ways = [("pull", Connect::Pull), ("push", Connect::Push), ("relay", Connect::Relay)];
    let connect = fields.word("connect", &ways).unwrap_or_default();
    let mut said = [VOLUME_ONLY, INSTANCE_ONLY, PRUNE, ALLOW_INCONSISTENT].to_vec();
    said.retain(|name| fields.boolean(name).unwrap_or_default());
    if let (Some((source, from)), Some((target, to))) = (&source, &target) {
        if source.noun() != target.noun() {
            let summary = format!("source is {}, target {}", article(source.noun()), article(target.noun()));
            fields.fault("bad-value", summary, to.span);
        } else if source == target {
            fields.fault("bad-value", format!("source and target are the same {}", source.noun()), to.span);
        }
        let snapshot = snapshot.as_ref();
        check_snapshots(&mut fields, (source, snapshot, mode), &said, from.span);
    }
    fields.finish();
    if let (Some(name), Some((source, text)), Some((target, _))) = (name, source, target) {
        let key = RecordKey::Transfer(name);
        if let Address::Volume(VolumeAddress { remote, pool, volume }) = &source {
            decoded.mentions.push(Mention {
                from: Some(key.clone()),
                to: RecordKey::Volume { pool: pool.clone(), volume: volume.clone() },
                cluster: remote.clone(),
                span: text.span,
                severity: Severity::Error,
            });
        }
        let says = |flag| said.contains(&flag);
        let snapshots = if says(PRUNE) {
            Snapshots::Pruned
        } else if says(source.alone()) {
            Snapshots::None
        } else {
            Snapshots::Added
        };
        let consistency =
            if says(ALLOW_INCONSISTENT) { Consistency::AllowInconsistent } else { Consistency::Strict };
        let transfer = Transfer { source, snapshot, target, mode, connect, snapshots, consistency };
        decoded.record(key, Record::Transfer(transfer), declaration.header);
    }
    decoded
}

/// Faults of keys that mean nothing together; `said` are those that are true.
fn check_snapshots(
    fields: &mut Fields<'_, '_>,
    (source, snapshot, mode): (&Address, Option<&SnapshotName>, Mode),
    said: &[&'static str],
    otherwise: Span,
) {
    let alone = source.alone();
    let mut fault = |key: &str, summary: String| {
        let span = fields.span(key).unwrap_or(otherwise);
        fields.fault("bad-value", summary, span);
    };
    let prunes = said.contains(&PRUNE);
    for key in [VOLUME_ONLY, INSTANCE_ONLY].into_iter().filter(|key| said.contains(key)) {
        if key != alone {
            let noun = article(source.noun());
            fault(key, format!("{key} is not for {noun}, of which {alone} leaves the snapshots behind"));
        } else if prunes {
            fault(PRUNE, format!("prune is of snapshots, which {key} leaves out of it"));
        }
    }
    if prunes && mode == Mode::Copy {
        fault(PRUNE, "prune needs a target that may exist: mode = \"refresh\"".to_owned());
    }
    if snapshot.is_none() {
        return;
    }
    for key in said.iter().filter(|key| **key != ALLOW_INCONSISTENT) {
        fault(key, format!("{key} is not for a snapshot, which has no snapshots"));
    }
    if mode == Mode::Refresh && matches!(source, Address::Instance(_)) {
        fault("snapshot", "a snapshot of an instance makes a new instance: mode = \"copy\"".to_owned());
    }
}

fn article(noun: &str) -> String {
    let article = if noun.starts_with('i') { "an" } else { "a" };
    format!("{article} {noun}")
}

fn address<'a>(fields: &mut Fields<'a, '_>, name: &'static str) -> Option<(Address, Text<'a>)> {
    let text = fields.required_text(name)?;
    match text.text.parse() {
        Ok(address) => Some((address, text)),
        Err(error) => {
            let at = fields.faults.at(text.span);
            let error: AddressError = error;
            let mut fault = Diagnostic::error(
                "bad-value",
                format!("{name} is no address of a volume or an instance"),
                Some(at),
            )
            .detail(sentence(&error.to_string()));
            if looks_secret(text.text) {
                fault = fault.hiding_source();
            }
            fields.faults.push(fault);
            None
        }
    }
}
