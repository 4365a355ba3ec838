//! `transfer "NAME" {}`: a copy of a volume from one cluster to another, run on demand.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::fields::{Fields, Place, Text};
use super::{Declaration, Decoded, Kind, Mention};
use crate::diagnostic::secret::looks_secret;
use crate::diagnostic::{Diagnostic, Faults, Severity, sentence};
use crate::name::{NameError, PoolName, RemoteName, TransferName, VolumeName};
use crate::record::{Record, RecordKey};

/// A declared copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    pub source: VolumeAddress,
    pub target: VolumeAddress,
    #[serde(default)]
    pub mode: Mode,
}

/// What to do when the target exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Refuse.
    #[default]
    Copy,
    /// Bring the target to the source's state (LXD: `--refresh`).
    Refresh,
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
        let (remote, path) = match text.split_once(':') {
            Some((remote, path)) => (Some(remote.parse().map_err(VolumeAddressError::Remote)?), path),
            None => (None, text),
        };
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
    let target = address(&mut fields, "target");
    let mode = fields.word("mode", &[("copy", Mode::Copy), ("refresh", Mode::Refresh)]).unwrap_or_default();
    if let (Some((source, _)), Some((target, text))) = (&source, &target)
        && source == target
    {
        fields.fault("bad-value", "source and target are the same volume", text.span);
    }
    fields.finish();
    if let (Some(name), Some((source, text)), Some((target, _))) = (name, source, target) {
        let key = RecordKey::Transfer(name);
        decoded.mentions.push(Mention {
            from: Some(key.clone()),
            to: RecordKey::Volume { pool: source.pool.clone(), volume: source.volume.clone() },
            cluster: source.remote.clone(),
            span: text.span,
            severity: Severity::Error,
        });
        decoded.record(key, Record::Transfer(Transfer { source, target, mode }), declaration.header);
    }
    decoded
}

fn address<'a>(fields: &mut Fields<'a, '_>, name: &'static str) -> Option<(VolumeAddress, Text<'a>)> {
    let text = fields.required_text(name)?;
    match text.text.parse() {
        Ok(address) => Some((address, text)),
        Err(error) => {
            let at = fields.faults.at(text.span);
            let mut fault =
                Diagnostic::error("bad-value", format!("{name} is not a volume's address"), Some(at))
                    .detail(sentence(&error.to_string()));
            if looks_secret(text.text) {
                fault = fault.hiding_source();
            }
            fields.faults.push(fault);
            None
        }
    }
}
