//! Links as tables, as YAML, and the state of both halves.

use schema::kind::cluster_link::LinkType;
use schema::plan::LinkState;
use schema::render::visible;
use serde_json::json;

use super::{At, explained};
use crate::cli::{CliError, Context, ExitCode, Format, Table};
use crate::wire::cluster_link::{Dials, LinkReport, LxdLinkMember, LxdLinkState};

pub async fn list(context: &Context) -> Result<ExitCode, CliError> {
    let links = context.client(None).await?.links().await?;
    match context.output.format() {
        Format::Json => context.output.json(&links),
        Format::Text => context.output.table(&table(&links)),
    }
    Ok(ExitCode::Done)
}

fn table(links: &[LinkReport]) -> Table {
    let mut table =
        Table::new(["NAME", "ADDRESSES", "DESCRIPTION", "IDENTITY STATUS", "TYPE", "STATE", "REASON"]);
    for link in links {
        // What LXD shows: whether the trust is made. The state is whether it works.
        let made = if link.peer_fingerprint.is_some() { "ACTIVE" } else { "PENDING" };
        table.row([
            link.name.to_string(),
            link.addresses.join("\n"),
            link.description.clone(),
            made.to_owned(),
            kind(link.kind).to_owned(),
            link.state.as_str().to_owned(),
            link.reason.clone().or_else(|| alarm(link)).unwrap_or_default(),
        ]);
    }
    table
}

/// What is wrong with a link that works all the same.
fn alarm(link: &LinkReport) -> Option<String> {
    link.note.clone().filter(|note| note.starts_with("ALARM"))
}

fn kind(kind: LinkType) -> &'static str {
    match kind {
        LinkType::Bidirectional => "BIDIRECTIONAL",
        LinkType::Unidirectional => "UNIDIRECTIONAL",
        LinkType::Public => "PUBLIC",
    }
}

pub async fn show(context: &Context, at: &At) -> Result<ExitCode, CliError> {
    match context.output.format() {
        Format::Json => context.output.json(&at.client.link(&at.link).await?),
        Format::Text => context.output.yaml(&at.client.lxd_link(&at.link).await.map_err(explained)?.content),
    }
    Ok(ExitCode::Done)
}

pub async fn state(context: &Context, at: &At) -> Result<ExitCode, CliError> {
    let report = at.client.link(&at.link).await?;
    // A link that is not made yet has no addresses to ask.
    let members = match at.client.link_members(&at.link).await {
        Ok(LxdLinkState { cluster_link_members, .. }) => cluster_link_members,
        Err(_) => Vec::new(),
    };
    match context.output.format() {
        Format::Json => context.output.json(&json!({
            "name": report.name,
            "state": report.state,
            "reason": report.reason,
            "note": report.note,
            "dials": report.dials,
            "dial_back": report.dial_back,
            "peer": report.peer,
            "cluster_link_members": members,
        })),
        Format::Text => {
            context.output.text(both(&report));
            if !members.is_empty() {
                context.output.text("Cluster link members:\n");
                context.output.table(&member_table(&members));
            }
        }
    }
    Ok(ExitCode::Done)
}

fn member_table(members: &[LxdLinkMember]) -> Table {
    let mut table = Table::new(["ADDRESS", "NAME", "STATE"]);
    for member in members {
        table.row([member.address.clone(), member.server_name.clone(), member.status.to_ascii_uppercase()]);
    }
    table
}

fn both(report: &LinkReport) -> String {
    let because = |reason: &Option<String>| match reason {
        Some(reason) => format!(" ({reason})"),
        None => String::new(),
    };
    let mut lines = vec![
        ("Name", report.name.to_string()),
        ("Description", report.description.clone()),
        ("Type", kind(report.kind).to_owned()),
        ("This half", format!("{}{}", report.state.as_str(), because(&report.reason))),
    ];
    match &report.peer {
        Some(peer) => {
            // Only over a link that carries data is the peer's word of now.
            let when = if report.state == LinkState::Active { "" } else { " when last heard" };
            lines.push(("Peer's half", format!("{}{when}{}", peer.state.as_str(), because(&peer.reason))));
            lines.push(("Peer's name for it", peer.link.to_string()));
            lines.push(("Exported to us", format!("{} services", peer.exported)));
            lines.push(("Imported from us", format!("{} services", peer.imported)));
        }
        // Only a peer whose streams are received speaks of its half.
        None if report.kind == LinkType::Public => {}
        None if report.kind == LinkType::Unidirectional && report.dials == Some(Dials::Peer) => {}
        None => lines.push(("Peer's half", "unknown: it has not spoken since this agent started".to_owned())),
    }
    let dials = report.dials.filter(|_| report.kind != LinkType::Public).map(|dials| match dials {
        Dials::Here => "this cluster",
        Dials::Peer => "the peer",
    });
    lines.push(("Dialled by", dials.unwrap_or_default().to_owned()));
    lines.push(("Peer certificate", report.peer_fingerprint.clone().unwrap_or_default()));
    let groups: Vec<&str> = report.auth_groups.iter().map(schema::name::GroupName::as_str).collect();
    lines.push(("Auth groups", groups.join(", ")));
    let time = |time: Option<jiff::Timestamp>| time.map(|time| format!("{time:.0}")).unwrap_or_default();
    lines.push(("First active", time(report.first_active)));
    lines.push(("Token expires", time(report.token_expires_at)));
    lines.push(("Last received", time(report.stream.last_receive)));
    lines.push(("Last sent", time(report.stream.last_send)));
    let lag = report.stream.unacknowledged;
    lines.push(("Unacknowledged", if lag == 0 { String::new() } else { format!("{lag} bytes") }));
    lines.push(("Note", report.note.clone().unwrap_or_default()));
    aligned(lines)
}

/// One line each, without those that say nothing.
pub fn aligned(lines: Vec<(&str, String)>) -> String {
    let told: Vec<_> = lines.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let width = told.iter().map(|(label, _)| label.len() + 1).max().unwrap_or_default();
    let line =
        |(label, value): (&str, String)| format!("{:width$} {}\n", format!("{label}:"), visible(&value));
    told.into_iter().map(line).collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::wire::cluster_link::StreamTimes;
    use crate::wire::sync::PeerView;

    fn report() -> LinkReport {
        LinkReport {
            name: "west".parse().unwrap(),
            description: String::new(),
            kind: LinkType::Bidirectional,
            auth_groups: vec!["clusters".parse().unwrap()],
            state: LinkState::Failing,
            reason: Some("the peer closed the connection".to_owned()),
            peer_fingerprint: None,
            addresses: vec!["127.0.0.1:8443".to_owned()],
            dials: Some(Dials::Here),
            first_active: None,
            token_id: None,
            token_expires_at: None,
            peer: None,
            config: BTreeMap::new(),
            unconfirmed: None,
            dial_back: None,
            note: None,
            stream: StreamTimes::default(),
        }
    }

    #[test]
    fn both_halves_are_told_and_what_is_unknown_is_said_to_be() {
        let mut report = report();
        assert_eq!(
            both(&report),
            "Name:        west\n\
             Type:        BIDIRECTIONAL\n\
             This half:   FAILING (the peer closed the connection)\n\
             Peer's half: unknown: it has not spoken since this agent started\n\
             Dialled by:  this cluster\n\
             Auth groups: clusters\n"
        );
        report.peer = Some(PeerView {
            link: "east".parse().unwrap(),
            state: LinkState::Active,
            reason: None,
            exported: 2,
            imported: 0,
        });
        assert!(
            both(&report).contains("Peer's half:        ACTIVE when last heard\nPeer's name for it: east\n")
        );
        (report.state, report.reason) = (LinkState::Active, None);
        assert!(both(&report).contains("Peer's half:        ACTIVE\n"));
    }
}
