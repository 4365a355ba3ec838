//! `comity list`: instances, in LXD's table.

use serde_json::Value;

use super::super::operand::at;
use super::super::{CliError, Context, ExitCode, Format, Table};
use crate::client::instance::Instance;

/// LXD's letters and what stands in their columns.
const COLUMNS: [(char, &str); 14] = [
    ('n', "NAME"),
    ('s', "STATE"),
    ('4', "IPV4"),
    ('6', "IPV6"),
    ('t', "TYPE"),
    ('S', "SNAPSHOTS"),
    ('a', "ARCHITECTURE"),
    ('b', "STORAGE POOL"),
    ('c', "CREATED AT"),
    ('d', "DESCRIPTION"),
    ('e', "PROJECT"),
    ('l', "LAST USED AT"),
    ('L', "LOCATION"),
    ('P', "PROFILES"),
];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The remote to ask, with its colon; then names, their beginnings, or KEY=VALUE of the configuration.
    #[arg(value_name = "[REMOTE:] [FILTER]")]
    filters: Vec<String>,
    /// Which columns there are, by LXD's letters.
    #[arg(long, short, default_value = "ns46tS", value_name = "LETTERS")]
    columns: String,
    /// Taken and not needed: everything is asked for at once.
    #[arg(long, hide = true)]
    fast: bool,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let mut filters = args.filters.iter().map(String::as_str).peekable();
    let first = filters.next_if(|first| first.contains(':') && !first.contains('='));
    let (client, named) = at(context, first).await?;
    let filters: Vec<&str> = named.as_deref().into_iter().chain(filters).collect();
    let letters: Vec<char> = args.columns.chars().filter(|letter| *letter != ',').collect();
    let heads: Vec<&str> = letters.iter().map(|letter| head(*letter)).collect::<Result<_, _>>()?;
    let mut instances = client.instances().await?;
    instances.retain(|instance| filters.iter().all(|filter| fits(instance, filter)));
    instances.sort_by(|a, b| a.name.cmp(&b.name));
    match context.output.format() {
        Format::Json => context.output.json(&instances),
        Format::Text => {
            if let ([filter], true) = (&filters[..], instances.is_empty()) {
                context.meant_remote(filter, "list");
            }
            let mut table = Table::with(heads);
            for instance in &instances {
                table.push(letters.iter().map(|letter| cell(instance, *letter)));
            }
            context.output.table(&table);
        }
    }
    Ok(ExitCode::Done)
}

fn head(letter: char) -> Result<&'static str, CliError> {
    COLUMNS.iter().find(|(known, _)| *known == letter).map(|(_, head)| *head).ok_or_else(|| {
        let known: String = COLUMNS.map(|(letter, _)| letter).iter().collect();
        CliError::usage(format!("Unknown column shorthand character {letter:?} in --columns"))
            .hint(format!("There are {known}."))
    })
}

fn fits(instance: &Instance, filter: &str) -> bool {
    match filter.split_once('=') {
        Some(("status" | "state", value)) => instance.status.eq_ignore_ascii_case(value),
        Some(("type", value)) => kind(instance).eq_ignore_ascii_case(value),
        Some((key, value)) => instance.expanded_config.get(key).is_some_and(|found| found == value),
        None => instance.name.starts_with(filter),
    }
}

/// What kind of instance it is. Servers of long ago have containers alone, and do not say so.
fn kind(instance: &Instance) -> &str {
    if instance.kind.is_empty() { "container" } else { &instance.kind }
}

fn cell(instance: &Instance, letter: char) -> String {
    let at = |time: Option<jiff::Timestamp>| {
        time.filter(|time| time.as_second() > 0)
            .map(|time| time.strftime("%Y/%m/%d %H:%M UTC").to_string())
            .unwrap_or_default()
    };
    match letter {
        'n' => instance.name.clone(),
        's' => instance.status.to_uppercase(),
        '4' => addresses(instance, "inet"),
        '6' => addresses(instance, "inet6"),
        't' => {
            let kind = kind(instance).to_uppercase();
            if instance.shape.ephemeral { format!("{kind} (EPHEMERAL)") } else { kind }
        }
        'S' => instance.snapshots.len().to_string(),
        'a' => instance.shape.architecture.clone(),
        'b' => {
            let root = instance.expanded_devices.values().find(|device| {
                device.get("type").is_some_and(|kind| kind == "disk")
                    && device.get("path").is_some_and(|path| path == "/")
            });
            root.and_then(|root| root.get("pool")).cloned().unwrap_or_default()
        }
        'c' => at(instance.created_at),
        'd' => instance.shape.description.clone(),
        'e' => instance.project.clone(),
        'l' => at(instance.last_used_at),
        'L' => instance.location.clone(),
        _ => instance.shape.profiles.join("\n"),
    }
}

/// Addresses that others can reach, each with its interface, as LXD shows them.
fn addresses(instance: &Instance, family: &str) -> String {
    let networks = instance.state.get("network").and_then(Value::as_object);
    let mut lines = Vec::new();
    for (interface, network) in networks.into_iter().flatten() {
        for address in network["addresses"].as_array().into_iter().flatten() {
            let scope = address["scope"].as_str();
            if address["family"] == family && !matches!(scope, Some("local" | "link")) {
                lines.push(format!("{} ({interface})", address["address"].as_str().unwrap_or_default()));
            }
        }
    }
    lines.sort();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_is_as_lxds() {
        let instance: Instance = serde_json::from_value(json!({
            "name": "c1", "status": "Running", "status_code": 103, "type": "container", "snapshots": null,
            "expanded_config": {"user.role": "web"},
            "state": {"network": {
                "lo": {"addresses": [{"family": "inet", "address": "127.0.0.1", "scope": "local"}]},
                "eth0": {"addresses": [{"family": "inet", "address": "10.245.81.95", "scope": "global"}]},
            }},
        }))
        .unwrap();
        let row: Vec<String> = "ns46tS".chars().map(|letter| cell(&instance, letter)).collect();
        assert_eq!(row, ["c1", "RUNNING", "10.245.81.95 (eth0)", "", "CONTAINER", "0"]);
        assert!(
            fits(&instance, "c") && fits(&instance, "user.role=web") && fits(&instance, "status=running")
        );
        assert!(fits(&instance, "type=container") && !fits(&instance, "type=virtual-machine"));
        assert!(!fits(&instance, "d") && !fits(&instance, "user.role=db"));
        assert!(head('z').is_err());
    }
}
