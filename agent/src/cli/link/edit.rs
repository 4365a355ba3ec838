//! `comity link edit|get|set|unset`: the description and the free keys of a link.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::{At, done, explained};
use crate::cli::{CliError, Context, ExitCode, Format, yaml};
use crate::client::tagged::Tagged;
use crate::wire::cluster_link::{LinkPut, LxdLink};

/// What stands above what is edited.
const HELP: &str = "### This is a YAML representation of the cluster link.\n\
                    ### Any line starting with a '# will be ignored.\n\
                    ###\n\
                    ### Only the description and keys that begin with `user.` can be changed.\n";

#[derive(Debug, clap::Args)]
pub struct Get {
    name: String,
    key: String,
    /// The key is a property of the link (its description), not one of its configuration.
    #[arg(long, short)]
    property: bool,
}

#[derive(Debug, clap::Args)]
pub struct Set {
    name: String,
    /// KEY=VALUE, several if need be; or one KEY and its VALUE.
    #[arg(required = true, value_name = "KEY=VALUE")]
    pairs: Vec<String>,
    /// The keys are properties of the link (its description), not of its configuration.
    #[arg(long, short)]
    property: bool,
}

/// What is edited: the rest of a link is shown and cannot be changed.
#[derive(Debug, Serialize, Deserialize)]
struct Editable {
    #[serde(default)]
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    config: BTreeMap<String, String>,
    #[serde(default)]
    used_by: Vec<String>,
}

pub async fn edit(context: &Context, at: &At) -> Result<ExitCode, CliError> {
    let Tagged { content, tag } = at.client.lxd_link(&at.link).await.map_err(explained)?;
    if !std::io::stdin().is_terminal() {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| CliError::failed(format!("standard input could not be read: {error}")))?;
        // LXD takes what is piped in as it is, whatever the link is by now; so do we, for this one moment.
        return save(context, at, &yaml::read(&text)?, &tag).await;
    }
    let mut text = format!("{HELP}\n{}", yaml::text(&content));
    loop {
        text = in_editor(&text)?;
        let ended = match yaml::read::<Editable>(&text) {
            Ok(edited) => save(context, at, &edited, &tag).await,
            Err(error) => Err(error),
        };
        let Err(error) = ended else { return ended };
        context.output.note(format!("Config parsing error: {}", error.message));
        let again = context.output.ask("Press enter to open the editor again or type 'n' to give up: ")?;
        if again.starts_with(['n', 'N']) {
            return Err(error);
        }
    }
}

async fn save(context: &Context, at: &At, edited: &Editable, tag: &str) -> Result<ExitCode, CliError> {
    let put = LinkPut { description: Some(edited.description.clone()), config: Some(edited.config.clone()) };
    at.client.put_link(&at.link, &put, tag).await.map_err(explained)?;
    Ok(done(context, &at.link, &format!("Cluster link {} updated", at.link)))
}

/// What `$EDITOR` makes of `text`.
fn in_editor(text: &str) -> Result<String, CliError> {
    let failed = |why: &dyn std::fmt::Display| {
        CliError::failed(format!("the editor could not be used: {why}"))
            .code("editor")
            .hint("Set EDITOR, or pipe the YAML in: `comity link edit NAME < FILE`.")
    };
    let mut file = tempfile::Builder::new()
        .prefix("comity-link-")
        .suffix(".yaml")
        .tempfile()
        .map_err(|error| failed(&error))?;
    file.write_all(text.as_bytes()).and_then(|()| file.flush()).map_err(|error| failed(&error))?;
    let editor = ["VISUAL", "EDITOR"].into_iter().find_map(|name| std::env::var(name).ok());
    let editor = editor.filter(|editor| !editor.trim().is_empty()).unwrap_or_else(|| "vi".to_owned());
    let mut words = editor.split_whitespace();
    let status = Command::new(words.next().unwrap_or("vi"))
        .args(words)
        .arg(file.path())
        .status()
        .map_err(|error| failed(&format_args!("{editor}: {error}")))?;
    if !status.success() {
        return Err(failed(&format_args!("{editor} ended with {status}")));
    }
    // Many editors write a new file in the place of the old one.
    std::fs::read_to_string(file.path()).map_err(|error| failed(&error))
}

pub async fn get(context: &Context, args: Get) -> Result<ExitCode, CliError> {
    let at = At::find(context, &args.name).await?;
    let link = at.client.lxd_link(&at.link).await.map_err(explained)?.content;
    let value = if args.property {
        property(&link, &args.key)?
    } else {
        link.config.get(&args.key).cloned().unwrap_or_default()
    };
    match context.output.format() {
        Format::Json => context.output.json(&value),
        Format::Text => context.output.line(value),
    }
    Ok(ExitCode::Done)
}

fn property(link: &LxdLink, key: &str) -> Result<String, CliError> {
    let fields = serde_json::to_value(link).unwrap_or_default();
    match fields.get(key) {
        Some(serde_json::Value::String(text)) => Ok(text.clone()),
        Some(other) => Ok(other.to_string()),
        None => Err(CliError::failed(format!(
            "The property {key:?} does not exist on the cluster link {:?}: it has name, description, type, config and used_by",
            link.name
        ))),
    }
}

pub async fn set(context: &Context, args: Set) -> Result<ExitCode, CliError> {
    let at = At::find(context, &args.name).await?;
    let pairs = pairs(&args.pairs)?;
    change(&at, |put| {
        for (key, value) in &pairs {
            if args.property {
                describe(put, key, value.clone())?;
            } else {
                put.config.get_or_insert_default().insert(key.clone(), value.clone());
            }
        }
        Ok(())
    })
    .await
}

pub async fn unset(context: &Context, args: Get) -> Result<ExitCode, CliError> {
    let at = At::find(context, &args.name).await?;
    change(&at, |put| {
        if args.property {
            return describe(put, &args.key, String::new());
        }
        put.config.get_or_insert_default().remove(&args.key);
        Ok(())
    })
    .await
}

fn describe(put: &mut LinkPut, key: &str, value: String) -> Result<(), CliError> {
    if key != "description" {
        return Err(CliError::failed(format!("The property {key:?} of a cluster link cannot be changed")));
    }
    put.description = Some(value);
    Ok(())
}

async fn change(
    at: &At,
    change: impl Fn(&mut LinkPut) -> Result<(), CliError>,
) -> Result<ExitCode, CliError> {
    let Tagged { content, tag } = at.client.lxd_link(&at.link).await.map_err(explained)?;
    let mut put = LinkPut { description: Some(content.description), config: Some(content.config) };
    change(&mut put)?;
    at.client.put_link(&at.link, &put, &tag).await.map_err(explained)?;
    Ok(ExitCode::Done)
}

/// `KEY=VALUE …`, or the older `KEY VALUE`.
fn pairs(given: &[String]) -> Result<Vec<(String, String)>, CliError> {
    if let [key, value] = given
        && !key.contains('=')
    {
        return Ok(vec![(key.clone(), value.clone())]);
    }
    given
        .iter()
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(CliError::usage(format!("Bad key=value pair: {pair}"))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_come_in_both_forms() {
        let read = |given: &[&str]| pairs(&given.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(read(&["user.a=b=c", "user.d="]).unwrap(), [pair("user.a", "b=c"), pair("user.d", "")]);
        assert_eq!(read(&["user.a", "b"]).unwrap(), [pair("user.a", "b")]);
        assert!(read(&["user.a"]).is_err() && read(&["=b"]).is_err());
    }
}
