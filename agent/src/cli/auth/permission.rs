//! `comity auth permission list`: what can be granted on what exists, and which groups grant it.

use std::collections::BTreeMap;

use clap::Subcommand;

use super::remote;
use crate::cli::{CliError, Context, ExitCode, Format, Table};
use crate::wire::lxd::auth::PermissionInfo;
use crate::wire::lxd::entity_url::segment;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the entities that there are with their entitlements; those that a group grants come first.
    #[command(visible_alias = "ls")]
    List {
        #[arg(value_name = "[REMOTE:] KEY=VALUE", help = "[REMOTE:] [project=NAME] [entity_type=TYPE]")]
        words: Vec<String>,
        /// How many entitlements of an entity are shown; 0 for all.
        #[arg(long, default_value_t = 3, value_name = "N")]
        max_entitlements: usize,
    },
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let Command::List { words, max_entitlements } = args.command;
    let (mut from, mut query) = (None, String::new());
    for word in &words {
        match word.split_once('=') {
            Some(("project", name)) => query.extend(["&project=", &segment(name)]),
            Some(("entity_type", name)) => query.extend(["&entity-type=", &segment(name)]),
            Some((key, _)) => {
                return Err(CliError::usage(format!(
                    "Unknown filter {key:?}: there are project and entity_type"
                )));
            }
            None if from.is_none() && word.ends_with(':') => from = Some(word.as_str()),
            None => {
                return Err(CliError::usage(format!(
                    "Filters must be of the form <key>=<value>, not {word:?}"
                )));
            }
        }
    }
    let permissions = remote(context, from).await?.permissions(&query).await?;
    match context.output.format() {
        Format::Json => context.output.json(&permissions),
        Format::Text => context.output.table(&table(permissions, max_entitlements)),
    }
    Ok(ExitCode::Done)
}

/// One row an entity.
fn table(permissions: Vec<PermissionInfo>, most: usize) -> Table {
    let mut entities = BTreeMap::<(String, String), Vec<(String, Vec<String>)>>::new();
    for PermissionInfo { entity_type, url, entitlement, groups } in permissions {
        entities.entry((entity_type, url)).or_default().push((entitlement, groups));
    }
    let mut table = Table::new(["ENTITY TYPE", "URL", "ENTITLEMENTS ==> (GROUPS)"]);
    for ((entity_type, url), mut entitlements) in entities {
        // Those that are granted first, then by name.
        entitlements.sort_by(|(a, of_a), (b, of_b)| (of_a.is_empty(), a).cmp(&(of_b.is_empty(), b)));
        let more = most != 0 && entitlements.len() > most;
        if more {
            entitlements.truncate(most);
        }
        let mut shown: Vec<String> = entitlements
            .into_iter()
            .map(|(entitlement, groups)| match groups.as_slice() {
                [] => entitlement,
                groups => format!("{entitlement}:({})", groups.join(",")),
            })
            .collect();
        shown.extend(more.then(|| "...".to_owned()));
        table.row([entity_type, url, shown.join(",")]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_granted_comes_first() {
        let permission = |url: &str, entitlement: &str, groups: &[&str]| PermissionInfo {
            entity_type: "server".to_owned(),
            url: url.to_owned(),
            entitlement: entitlement.to_owned(),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
        };
        let all = vec![
            permission("/1.0", "can_edit", &[]),
            permission("/1.0", "viewer", &["ops", "web"]),
            permission("/1.0", "admin", &["admins"]),
            permission("/1.0", "can_create_groups", &[]),
        ];
        let shown = |most| table(all.clone(), most).to_string();
        assert!(
            shown(0).contains("| admin:(admins),viewer:(ops,web),can_create_groups,can_edit |"),
            "{}",
            shown(0)
        );
        assert!(
            shown(3).contains("| admin:(admins),viewer:(ops,web),can_create_groups,... |"),
            "{}",
            shown(3)
        );
    }
}
