//! Peerings for people, laid out as Consul's command does; and where a token is read from.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use jiff::Timestamp;
use schema::plan::LinkState;

use crate::cli::CliError;
use crate::wire::consul::peering::Peering;
use crate::wire::token::MAX_TOKEN;

/// One row each, sorted as given, under a head.
pub fn table(peerings: &[Peering]) -> String {
    let head = ["Name", "State", "Imported Svcs", "Exported Svcs", "Meta"].map(str::to_owned);
    let row = |peering: &Peering| {
        let meta: Vec<String> = peering.meta.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let stream = &peering.stream_status;
        [
            peering.name.clone(),
            state(peering.state),
            count(stream.imported_services.as_ref()).to_string(),
            count(stream.exported_services.as_ref()).to_string(),
            meta.join(","),
        ]
    };
    let rows: Vec<[String; 5]> = std::iter::once(head).chain(peerings.iter().map(row)).collect();
    let mut widths = [0; 5];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Everything of one.
pub fn whole(peering: &Peering) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write_whole(&mut text, peering);
    text
}

fn write_whole(text: &mut String, peering: &Peering) -> std::fmt::Result {
    writeln!(text, "Name:         {}", peering.name)?;
    writeln!(text, "ID:           {}", peering.id)?;
    if let Some(at) = peering.deleted_at {
        writeln!(text, "DeletedAt:    {at:.0}")?;
    }
    writeln!(text, "State:        {}", state(peering.state))?;
    if !peering.meta.is_empty() {
        text.push_str("Meta:\n");
        for (key, value) in &peering.meta {
            writeln!(text, "    {key}={value}")?;
        }
    }
    writeln!(text, "\nPeer ID:               {}", peering.peer_id)?;
    writeln!(text, "Peer Server Name:      {}", peering.peer_server_name)?;
    writeln!(text, "Peer CA Pems:          {}", peering.peer_ca_pems.len())?;
    // The addresses run into what follows them, as there.
    if peering.peer_server_addresses.is_empty() {
        text.push('\n');
    } else {
        text.push_str("Peer Server Addresses:\n");
        for address in &peering.peer_server_addresses {
            writeln!(text, "    {address}")?;
        }
    }
    let stream = &peering.stream_status;
    writeln!(text, "Imported Services: {}", count(stream.imported_services.as_ref()))?;
    writeln!(text, "Exported Services: {}", count(stream.exported_services.as_ref()))?;
    writeln!(text, "\nLast Heartbeat:    {}", time(stream.last_heartbeat))?;
    writeln!(text, "Last Send:         {}", time(stream.last_send))?;
    writeln!(text, "Last Receive:      {}", time(stream.last_receive))?;
    writeln!(text, "\nCreate Index: {}", peering.create_index)?;
    writeln!(text, "Modify Index: {}", peering.modify_index)
}

fn state(state: LinkState) -> String {
    match state {
        LinkState::Pending => "PENDING",
        LinkState::Establishing => "ESTABLISHING",
        LinkState::Active => "ACTIVE",
        LinkState::Failing => "FAILING",
        LinkState::Deleting => "DELETING",
        LinkState::Terminated => "TERMINATED",
    }
    .to_owned()
}

fn count(names: Option<&Vec<String>>) -> usize {
    names.map_or(0, Vec::len)
}

fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "never".to_owned(), |at| format!("{at:.0}"))
}

/// The token in a file.
pub fn token_of(path: &Path) -> Result<String, CliError> {
    let failed =
        |error| CliError::failed(format!("The token could not be read from {}: {error}", path.display()));
    let file = File::open(path).map_err(failed)?;
    limited(file).map_err(failed)
}

/// The token on standard input.
pub fn token_of_input() -> Result<String, CliError> {
    let failed =
        |error| CliError::failed(format!("The token could not be read from standard input: {error}"));
    limited(std::io::stdin()).map_err(failed)
}

/// One byte more than there may be, so that what is too long is seen to be.
fn limited(from: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    let most = u64::try_from(2 * MAX_TOKEN).unwrap_or(u64::MAX);
    from.take(most).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::consul::peering::{Remote, StreamStatus};

    fn peering() -> Peering {
        Peering {
            id: "462c45e8-018e-f19d-85eb-1fc1bcc2ef12".to_owned(),
            name: "west".to_owned(),
            deleted_at: None,
            meta: [("env".to_owned(), "prod".to_owned())].into(),
            state: LinkState::Active,
            peer_id: "e83a315c".to_owned(),
            peer_ca_pems: vec!["pem".to_owned()],
            peer_server_name: "server.dc2".to_owned(),
            peer_server_addresses: vec!["10.0.0.1:8443".to_owned()],
            stream_status: StreamStatus {
                imported_services: Some(vec!["db".to_owned()]),
                last_heartbeat: Some("2025-01-01T00:00:00Z".parse().unwrap()),
                ..StreamStatus::default()
            },
            create_index: 89,
            modify_index: 93,
            remote: Remote::default(),
        }
    }

    #[test]
    fn one_is_laid_out_as_consuls_command_does() {
        let shown = "Name:         west\nID:           462c45e8-018e-f19d-85eb-1fc1bcc2ef12\nState:        ACTIVE\n\
                     Meta:\n    env=prod\n\nPeer ID:               e83a315c\nPeer Server Name:      server.dc2\n\
                     Peer CA Pems:          1\nPeer Server Addresses:\n    10.0.0.1:8443\nImported Services: 1\n\
                     Exported Services: 0\n\nLast Heartbeat:    2025-01-01T00:00:00Z\nLast Send:         never\n\
                     Last Receive:      never\n\nCreate Index: 89\nModify Index: 93\n";
        assert_eq!(whole(&peering()), shown);
    }

    #[test]
    fn the_table_is_aligned() {
        assert_eq!(
            table(&[peering()]),
            "Name  State   Imported Svcs  Exported Svcs  Meta\nwest  ACTIVE  1              0              env=prod\n"
        );
    }
}
