//! `comity service`: what is here, what is offered to peers, what they offer.

use clap::Subcommand;
use schema::name::{LinkName, ServiceName};

use super::{CliError, Context, ExitCode, Format, Table};

mod definition;
mod export;
mod register;

use crate::wire::service::{PortState, ServiceRow, TargetRow, TargetState};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the services of this cluster, with their health and upstreams.
    List,
    /// Register services with the agent: by files of definitions, or one by flags.
    Register(register::RegisterArgs),
    /// Take services that are registered off the agent again.
    Deregister(register::DeregisterArgs),
    /// List the services that are offered to peers.
    Exported,
    /// List the services that are offered to peers, as Consul's command does.
    ExportedServices(export::ListArgs),
    /// Offer a service to peers.
    Export(export::Args),
    /// List the services that peers offer.
    #[command(alias = "imported-services")]
    Imported,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    match args.command {
        Command::Register(args) => return register::register(args, context).await,
        Command::Deregister(args) => return register::deregister(args, context).await,
        Command::Export(args) => return export::run(args, context).await,
        Command::ExportedServices(args) => return export::list(args, context).await,
        Command::List | Command::Exported | Command::Imported => {}
    }
    let client = context.client(None).await?;
    let output = &context.output;
    match args.command {
        Command::Register(_) | Command::Deregister(_) | Command::Export(_) | Command::ExportedServices(_) => {
        }
        Command::List => {
            let rows = client.services().await?;
            match output.format() {
                Format::Json => output.json(&rows),
                Format::Text if rows.is_empty() => output.nothing("No services found"),
                Format::Text => {
                    let mut table = Table::new(["SERVICE", "ID", "INSTANCE", "STATUS", "UPSTREAMS"]);
                    for row in rows {
                        let instance = row.instance.clone().unwrap_or_else(|| "-".to_owned());
                        table.row([
                            row.service.to_string(),
                            row.id.to_string(),
                            instance,
                            row.status.as_str().to_owned(),
                            upstreams(&row),
                        ]);
                    }
                    output.table(&table);
                }
            }
        }
        Command::Exported => {
            let rows = client.exported_services().await?;
            match output.format() {
                Format::Json => output.json(&rows),
                Format::Text if rows.is_empty() => output.nothing("No exported services found"),
                Format::Text => {
                    let mut table = Table::new(["SERVICE", "CONSUMER PEERS"]);
                    for row in rows {
                        let peers: Vec<&str> = row.peers.iter().map(LinkName::as_str).collect();
                        table.row([row.service.to_string(), peers.join(", ")]);
                    }
                    output.table(&table);
                }
            }
        }
        Command::Imported => {
            let rows = client.imported_services().await?;
            match output.format() {
                Format::Json => output.json(&rows),
                Format::Text if rows.is_empty() => output.nothing("No imported services found"),
                Format::Text => {
                    let mut table = Table::new(["SERVICE", "PEER", "STATUS"]);
                    for row in rows {
                        table.row([
                            row.service.to_string(),
                            row.peer.to_string(),
                            row.status.as_str().to_owned(),
                        ]);
                    }
                    output.table(&table);
                }
            }
        }
    }
    Ok(ExitCode::Done)
}

/// One upstream a line: where it leads, which place is used now if there are several, and what is the matter where a
/// port or socket takes no connections.
fn upstreams(row: &ServiceRow) -> String {
    fn place(destination: &ServiceName, peer: Option<&LinkName>) -> String {
        peer.map_or_else(|| destination.to_string(), |peer| format!("{destination}@{peer}"))
    }
    let target = |target: &TargetRow| {
        let place = place(&target.destination, target.peer.as_ref());
        match target.state {
            TargetState::Ready => place,
            state => format!("{place} ({})", state.as_str()),
        }
    };
    let lines: Vec<String> = row
        .upstreams
        .iter()
        .map(|upstream| {
            let places = match &upstream.targets[..] {
                [] => place(&upstream.destination, upstream.peer.as_ref()),
                targets => targets.iter().map(target).collect::<Vec<_>>().join(", else "),
            };
            let trouble = match &upstream.port {
                PortState::Listening => String::new(),
                PortState::Waiting { reason } | PortState::Refused { reason } => format!(" ({reason})"),
            };
            format!("{} → {places}{trouble}", upstream.local)
        })
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::service::{Health, UpstreamRow};

    #[test]
    fn an_upstream_shows_where_it_leads_and_what_is_used_now() {
        let upstream = |local: &str, port, targets| UpstreamRow {
            service: "shop".parse().unwrap(),
            destination: "db".parse().unwrap(),
            peer: Some("east".parse().unwrap()),
            local: local.to_owned(),
            port,
            targets,
        };
        let target = |peer: Option<&str>, state| TargetRow {
            destination: "db".parse().unwrap(),
            peer: peer.map(|peer| peer.parse().unwrap()),
            state,
        };
        let targets = vec![
            target(Some("east"), TargetState::Down),
            target(Some("north"), TargetState::InUse),
            target(None, TargetState::Ready),
        ];
        let waiting = PortState::Waiting { reason: "address in use".to_owned() };
        let row = ServiceRow {
            service: "shop".parse().unwrap(),
            id: "shop-1".parse().unwrap(),
            instance: None,
            status: Health::Passing,
            upstreams: vec![
                upstream("127.0.0.1:9191", waiting, Vec::new()),
                upstream("/run/shop/db.sock", PortState::Listening, targets),
            ],
        };
        assert_eq!(
            upstreams(&row),
            "127.0.0.1:9191 → db@east (address in use)\n\
             /run/shop/db.sock → db@east (no connection to the peer), else db@north (in use), else db"
        );
    }
}
