//! `comity service export`: offers a service to peers, with the flags and lines of Consul's command.

use crate::cli::{CliError, Context, ExitCode, Format};
use crate::client::consul::told;
use crate::wire::consul::config::{ExportedService, ExportedServices, ServiceConsumer};

const KIND: &str = "exported-services";
const NAME: &str = "default";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The service to offer.
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,
    /// The peers to offer it to.
    #[arg(long, value_name = "PEER,PEER…", default_value = "", hide_default_value = true)]
    consumer_peers: String,
    /// Taken where it says `default`, which is this cluster and needs no offer.
    #[arg(long, value_name = "PARTITION", default_value = "", hide_default_value = true)]
    consumer_partitions: String,
}

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Only those that this expression is true of, such as `Service == web` or `west in Consumers.Peers`.
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let Args { name, consumer_peers, consumer_partitions } = args;
    if name.is_empty() {
        return Err(CliError::failed("Missing the required -name flag"));
    }
    let partitions = consumer_partitions.split(',').map(str::trim);
    if let Some(other) = partitions.clone().find(|partition| !matches!(*partition, "" | "default")) {
        return Err(CliError::failed(format!("Invalid partition {other:?}"))
            .hint("There is one partition here, \"default\", which is this cluster. Other clusters are peers: -consumer-peers."));
    }
    if consumer_peers.is_empty() && partitions.into_iter().any(|partition| partition == "default") {
        return Err(CliError::failed("The partition \"default\" is this cluster, which needs no offer")
            .hint("Name the peers to offer the service to: -consumer-peers."));
    }
    if consumer_peers.is_empty() {
        return Err(CliError::failed("Missing the required -consumer-peers or -consumer-partitions flag"));
    }
    let peers: Vec<&str> = consumer_peers.split(',').map(str::trim).collect();
    if peers.contains(&"") {
        return Err(CliError::failed("Invalid peer \"\""));
    }
    let client = context.client(None).await?;
    let read = client.config_entry(KIND, NAME).await;
    let mut entry: ExportedServices = match read {
        Ok(entry) => serde_json::from_value(entry).map_err(|error| {
            CliError::failed(format!("Error reading config entry {KIND}/{NAME}: {error}"))
        })?,
        Err(error) if error.status() == Some(http::StatusCode::NOT_FOUND) => {
            ExportedServices { kind: KIND.to_owned(), name: NAME.to_owned(), ..ExportedServices::default() }
        }
        Err(error) => {
            return Err(CliError::failed(format!(
                "Error reading config entry {KIND}/{NAME}: {}",
                told(&error)
            )));
        }
    };
    offer(&mut entry, &name, &peers);
    let cas = std::mem::take(&mut entry.stamp).modify_index;
    let updated = client.write_config_entry(&entry, Some(cas)).await.map_err(|error| {
        CliError::failed(format!("Error writing config entry {KIND}/{NAME}: {}", told(&error)))
    })?;
    if !updated {
        return Err(CliError::failed("Config entry was changed during update. Please try again"));
    }
    let sentence = format!("Successfully exported service {name:?} to cluster peers {consumer_peers:?}");
    context.output.done(sentence, &name);
    Ok(ExitCode::Done)
}

/// Adds to the entry that `peers` are offered the service.
fn offer(entry: &mut ExportedServices, service: &str, peers: &[&str]) {
    let known = entry.services.iter().position(|row| row.name == service).unwrap_or_else(|| {
        entry.services.push(ExportedService { name: service.to_owned(), consumers: Vec::new() });
        entry.services.len() - 1
    });
    let row = &mut entry.services[known];
    for peer in peers {
        if !row.consumers.iter().any(|consumer| consumer.peer == *peer) {
            row.consumers.push(ServiceConsumer { peer: (*peer).to_owned(), ..ServiceConsumer::default() });
        }
    }
}

/// `exported-services`: the table that Consul's command shows.
pub async fn list(args: ListArgs, context: &Context) -> Result<ExitCode, CliError> {
    let rows = context.client(None).await?.resolved_exports(args.filter.as_deref()).await;
    let rows =
        rows.map_err(|error| CliError::failed(format!("Error reading exported services: {}", told(&error))))?;
    match context.output.format() {
        Format::Json => context.output.json(&rows),
        Format::Text if rows.is_empty() => context.output.nothing("No exported services found"),
        Format::Text => {
            let head = ["Service", "Consumer Peers"].map(str::to_owned);
            let rows = rows.into_iter().map(|row| [row.service, row.consumers.peers.join(", ")]);
            context.output.text(crate::cli::output::aligned(std::iter::once(head).chain(rows)));
        }
    }
    Ok(ExitCode::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_offered_to_each_peer_once() {
        let mut entry = ExportedServices::default();
        for peers in [&["a", "b"][..], &["b", "c"]] {
            offer(&mut entry, "web", peers);
        }
        offer(&mut entry, "db", &["a"]);
        let shown = serde_json::to_value(&entry.services).unwrap();
        let consumers = serde_json::json!([{"Peer": "a"}, {"Peer": "b"}, {"Peer": "c"}]);
        assert_eq!((shown[0]["Consumers"].clone(), shown.as_array().unwrap().len()), (consumers, 2));
    }
}
