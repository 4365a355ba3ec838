//! `comity server`: what is set on the server.

use std::collections::BTreeMap;

use clap::Subcommand;

use super::auth::remote;
use super::{CliError, Context, ExitCode, Format};
use crate::settings::Config;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the value of a key; nothing, if it is not set.
    Get {
        /// For example `core.https_address`.
        key: String,
    },
    /// Set keys: `core.https_address`, `core.remote_token_expiry`, `core.trust_ca_certificates`, `oidc.*`, `acme.*` and
    /// `user.*`.
    Set {
        /// KEY=VALUE, or one KEY and its VALUE.
        #[arg(value_name = "KEY=VALUE", required = true)]
        pairs: Vec<String>,
    },
    /// Have a key be as it is where nobody has set it.
    Unset { key: String },
    /// Show everything that is set.
    Show {
        /// The remote to ask, with its colon.
        #[arg(id = "asked_remote", value_name = "REMOTE:")]
        remote: Option<String>,
    },
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let output = &context.output;
    match args.command {
        Command::Get { key } => {
            let client = context.client(None).await?;
            let config = client.settings().await?;
            let unknown = if config.contains_key(&key) { None } else { Config::check_key(&key).err() };
            // An LXD server has keys of its own.
            if let Some(error) = unknown
                && client.cluster_certificate().await?.is_some()
            {
                return Err(CliError::failed(error).code("bad-request"));
            }
            let value = config.get(&key).cloned().unwrap_or_default();
            match output.format() {
                Format::Json => output.json(&value),
                Format::Text => output.line(value),
            }
        }
        Command::Set { pairs } => context.client(None).await?.set(&read_pairs(&pairs)?).await?,
        Command::Unset { key } => {
            let client = context.client(None).await?;
            let mut config = client.settings().await?;
            if config.remove(&key).is_some() {
                client.replace_settings(&config).await?;
            } else {
                // So that a key that there cannot be is said to be one.
                client.set(&[(key, String::new())].into()).await?;
            }
        }
        Command::Show { remote: from } => {
            let config = remote(context, from.as_deref()).await?.settings().await?;
            let shown = BTreeMap::from([("config", config)]);
            match output.format() {
                Format::Json => output.json(&shown),
                Format::Text => output.yaml(&shown),
            }
        }
    }
    Ok(ExitCode::Done)
}

/// `KEY=VALUE…`, or `KEY VALUE` as LXD had it first.
pub(super) fn read_pairs(pairs: &[String]) -> Result<BTreeMap<String, String>, CliError> {
    if let [key, value] = pairs
        && !key.contains('=')
    {
        return Ok([(key.clone(), value.clone())].into());
    }
    let pair = |text: &String| {
        let (key, value) = text.split_once('=').filter(|(key, _)| !key.is_empty())?;
        Some((key.to_owned(), value.to_owned()))
    };
    pairs
        .iter()
        .map(|text| pair(text).ok_or_else(|| CliError::usage("a setting is written KEY=VALUE")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_given_in_pairs_or_as_key_and_value() {
        let read = |pairs: &[&str]| read_pairs(&pairs.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>());
        assert_eq!(read(&["user.a", "x=y"]).unwrap()["user.a"], "x=y");
        assert_eq!(read(&["user.a=1", "user.b="]).unwrap().len(), 2);
        assert!(read(&["user.a"]).is_err() && read(&["=x"]).is_err());
    }
}
