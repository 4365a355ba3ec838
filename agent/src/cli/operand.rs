//! What operands name: `[REMOTE:]INSTANCE[/SNAPSHOT]`, `[REMOTE:]POOL/VOLUME[/SNAPSHOT]` and `[REMOTE:]NAME`, as LXD's
//! command has them. What was given is never repeated: it may be a token in the wrong place.

use std::fmt;

use schema::kind::transfer::VolumeAddress;
use schema::name::{ContainerName, RemoteName, SnapshotName};

use super::context::name;
use super::{CliError, Context};
use crate::client::Client;
use crate::dataset::pool::DEFAULT_POOL;

/// An instance or one of its snapshots; only a remote, where no name was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceOperand {
    pub remote: Option<RemoteName>,
    pub name: Option<ContainerName>,
    pub snapshot: Option<SnapshotName>,
}

/// A custom volume or one of its snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeOperand {
    pub volume: VolumeAddress,
    pub snapshot: Option<SnapshotName>,
}

/// `REMOTE:` and what follows it; without a remote, all of `text` follows.
pub fn split(text: &str) -> Result<(Option<RemoteName>, &str), CliError> {
    match text.split_once(':') {
        Some((remote, rest)) => Ok((Some(name("REMOTE", remote)?), rest)),
        None => Ok((None, text)),
    }
}

/// An optional `[REMOTE:][REST]`: the agent, and the rest if there is any.
pub async fn at(context: &Context, operand: Option<&str>) -> Result<(Client, Option<String>), CliError> {
    let (remote, rest) = split(operand.unwrap_or_default())?;
    let client = context.client(remote.as_ref()).await?;
    Ok((client, (!rest.is_empty()).then(|| rest.to_owned())))
}

impl InstanceOperand {
    pub fn parse(place: &str, text: &str) -> Result<Self, CliError> {
        let (remote, rest) = split(text)?;
        let (called, snapshot) = match rest.split_once('/') {
            Some((called, snapshot)) => (called, Some(name(&format!("{place} (snapshot)"), snapshot)?)),
            None => (rest, None),
        };
        let called = match called {
            "" if snapshot.is_some() => return Err(missing()),
            "" => None,
            called => Some(name(place, called)?),
        };
        Ok(Self { remote, name: called, snapshot })
    }

    /// One that names an instance or a snapshot.
    pub fn whole(place: &str, text: &str) -> Result<(Self, ContainerName), CliError> {
        let operand = Self::parse(place, text)?;
        let called = operand.name.clone().ok_or_else(missing)?;
        Ok((operand, called))
    }

    /// One that names an instance.
    pub fn instance(place: &str, text: &str) -> Result<(Option<RemoteName>, ContainerName), CliError> {
        let (operand, called) = Self::whole(place, text)?;
        match operand.snapshot {
            None => Ok((operand.remote, called)),
            Some(_) => Err(no_instance(place)),
        }
    }
}

/// What has a slash in it is a snapshot, or was meant as a volume.
pub fn no_instance(place: &str) -> CliError {
    CliError::usage(format!("{place}: an instance belongs here, not a snapshot"))
        .hint("If POOL/NAME is meant: volumes have commands of their own, such as `comity volume copy`.")
}

fn missing() -> CliError {
    CliError::usage("Missing instance name")
        .hint("An instance is [REMOTE:]NAME, a snapshot [REMOTE:]NAME/SNAPSHOT.")
}

impl fmt::Display for InstanceOperand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(remote) = &self.remote {
            write!(f, "{remote}:")?;
        }
        if let Some(name) = &self.name {
            write!(f, "{name}")?;
        }
        match &self.snapshot {
            Some(snapshot) => write!(f, "/{snapshot}"),
            None => Ok(()),
        }
    }
}

impl VolumeOperand {
    pub fn parse(place: &str, text: &str) -> Result<Self, CliError> {
        let parts = text.match_indices('/').nth(1).map(|(at, _)| text.split_at(at));
        let (volume, snapshot) = match parts {
            Some((volume, snapshot)) => (volume, Some(name(&format!("{place} (snapshot)"), &snapshot[1..])?)),
            None => (text, None),
        };
        let volume = volume.parse().map_err(|error| {
            let hint = format!("The pool that every agent has is {DEFAULT_POOL:?}.");
            CliError::usage(format!("{place}: {error}")).code("bad-name").hint(hint)
        })?;
        Ok(Self { volume, snapshot })
    }

    /// One that names a volume.
    pub fn volume(place: &str, text: &str) -> Result<VolumeAddress, CliError> {
        let operand = Self::parse(place, text)?;
        match operand.snapshot {
            None => Ok(operand.volume),
            Some(_) => Err(CliError::usage(format!("{place}: a volume belongs here, not a snapshot"))),
        }
    }
}

impl fmt::Display for VolumeOperand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.snapshot {
            Some(snapshot) => write!(f, "{}/{snapshot}", self.volume),
            None => self.volume.fmt(f),
        }
    }
}

/// `key=value` pairs, as `-c` takes them.
pub fn pairs(given: &[String]) -> Result<Vec<(String, String)>, CliError> {
    given
        .iter()
        .map(|pair| {
            let (key, value) = pair.split_once('=').ok_or_else(|| bad_pair(pair))?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

fn bad_pair(pair: &str) -> CliError {
    // What has no `=` may be anything.
    let shown = if pair.len() > 40 { "(not shown: it may be a secret)" } else { pair };
    CliError::usage(format!("Bad key=value pair: {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_named_with_or_without_its_remote_and_snapshot() {
        for (text, shown) in [("c1", "c1"), ("foo:c1/s0", "foo:c1/s0"), ("foo:", "foo:"), ("", "")] {
            assert_eq!(InstanceOperand::parse("SOURCE", text).unwrap().to_string(), shown);
        }
        for bad in ["foo:/s", "c1/s/t", "c 1", "foo:c1/..", "a:b:c"] {
            let error = InstanceOperand::parse("SOURCE", bad).unwrap_err();
            assert!(!error.message.contains(bad), "{error:?}");
        }
        assert!(InstanceOperand::instance("NAME", "c1/s").is_err());
        assert!(InstanceOperand::whole("NAME", "foo:").is_err());
    }

    #[test]
    fn a_volume_is_named_with_its_pool() {
        for text in ["default/orders", "east:default/orders", "east:default/orders/s0"] {
            assert_eq!(VolumeOperand::parse("SOURCE", text).unwrap().to_string(), text);
        }
        for bad in ["orders", "east:", "east:default/", "default/orders/a/b", "default/orders/"] {
            assert!(VolumeOperand::parse("SOURCE", bad).is_err(), "{bad}");
        }
        assert!(VolumeOperand::volume("VOLUME", "default/orders/s0").is_err());
    }

    #[test]
    fn a_pair_without_an_equals_sign_is_not_repeated_where_it_could_be_a_secret() {
        assert_eq!(pairs(&["a=b=c".to_owned()]).unwrap(), [("a".to_owned(), "b=c".to_owned())]);
        assert!(pairs(&["x".repeat(64)]).unwrap_err().message.contains("not shown"));
    }
}
