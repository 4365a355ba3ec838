//! `comity status`: whether the agent is ready, how its links and its watched folder are doing, and what passes.

mod traffic;

use std::fmt::Write as _;
use std::time::Duration;

use http::{Method, StatusCode};
use schema::plan::LinkState;
use schema::render::visible;
use tokio::time::Instant;

use super::{CliError, Context, ExitCode, Format};
use crate::client::{Client, ClientError, NO_BODY};
use crate::daemon::options::duration;
use crate::wire::acme::{AcmeState, AcmeStatus, Origin, ServerCertificate, Standing};
use crate::wire::control::{WatchState, WatchStatus};
use crate::wire::service::PortState;
use crate::wire::status::{AuthorityStatus, LoginStatus, Status};

/// The first pause between two attempts; each later one is half as long again, up to `LONGEST_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Wait until the agent is ready, but no longer than this.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    wait: Option<Duration>,
    #[command(flatten)]
    traffic: traffic::TrafficArgs,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let status = match args.wait {
        None if args.traffic.traffic => return traffic::run(&args.traffic, context).await,
        None => ask(&context.client(None).await?).await?,
        Some(patience) => wait(context, patience).await?,
    };
    if args.traffic.traffic {
        return traffic::run(&args.traffic, context).await;
    }
    match context.output.format() {
        Format::Json => context.output.json(&status),
        Format::Text => context.output.text(visible(&text(&status))),
    }
    Ok(ExitCode::Done)
}

async fn ask(client: &Client) -> Result<Status, ClientError> {
    client.request(Method::GET, "/control/v1/status", NO_BODY).await
}

/// Asks again and again until there is an answer. What waiting cannot mend ends it at once.
async fn wait(context: &Context, patience: Duration) -> Result<Status, CliError> {
    let deadline = Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(FIRST_PAUSE);
        let failed = match context.client(None).await {
            Ok(client) => match ask(&client.with_timeout(left)).await {
                Ok(status) => return Ok(status),
                Err(error) if may_pass(&error) => CliError::from(error),
                Err(error) => return Err(error.into()),
            },
            // The agent's first start makes the socket.
            Err(error) if error.code == "no-agent" => error,
            Err(error) => return Err(error),
        };
        if Instant::now() + pause >= deadline {
            let message = format!("not ready within {patience:?}: {}", failed.message);
            return Err(CliError { message, ..failed }.code("not-ready"));
        }
        tokio::time::sleep(pause).await;
        pause = (pause + pause / 2).min(LONGEST_PAUSE);
    }
}

fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } | ClientError::Timeout { .. } | ClientError::Broken { .. } => true,
        ClientError::Refused { status, .. } => *status == StatusCode::SERVICE_UNAVAILABLE,
        ClientError::Mismatch { .. }
        | ClientError::OldTls { .. }
        | ClientError::Unexpected { .. }
        | ClientError::Login { .. } => false,
    }
}

fn text(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{key:<13}{value}");
    };
    line("Name:", status.name.as_str());
    line("Version:", &status.version);
    line("Fingerprint:", &status.fingerprint);
    if let Some(shown) = &status.server_fingerprint {
        line("To clients:", shown);
    }
    if let Some(certificate) = &status.server_certificate {
        line("", &about(certificate));
    }
    match &status.addresses[..] {
        [] => line("Addresses:", "none: reached by its socket only"),
        addresses => line("Addresses:", &addresses.join(", ")),
    }
    let mut key = "Links:";
    if status.links.is_empty() {
        line(key, "none");
    }
    for link in &status.links {
        let reason = match &link.reason {
            Some(reason) if link.state != LinkState::Active => format!(": {reason}"),
            _ => String::new(),
        };
        line(key, &format!("{} {}{reason}", link.name, link.state.as_str()));
        key = "";
    }
    let mut key = "Upstreams:";
    for upstream in &status.mesh.upstreams {
        let (PortState::Waiting { reason } | PortState::Refused { reason }) = &upstream.port else {
            continue;
        };
        line(key, &format!("{} of {} does not listen: {reason}", upstream.local, upstream.service));
        key = "";
    }
    if let Some(acme) = &status.acme {
        line("ACME:", &renewed(acme));
        if let Some(error) = acme.last_error.as_ref().filter(|_| acme.state != AcmeState::Off) {
            line("", &format!("at {:.0}: {}", error.at, error.message));
        }
    }
    if let Some(login) = &status.login {
        line("Identity provider: ", &judged(login));
    }
    if let Some(pki) = &status.pki {
        if pki.idle_list {
            line("Authorities:", "none: ca.crl is not used, since there is no server.ca and no --cluster-ca");
        }
        let mut key = "Authorities:";
        for authority in &pki.authorities {
            line(key, &answers_for(authority, pki.trusts_unknowns));
            key = "";
        }
        if let Some(reason) = &pki.closed {
            line("", &format!("ca.crl cannot be used, so nothing that they signed is trusted: {reason}"));
        } else if let Some(refused) = &pki.refused {
            line("", &format!("ca.crl was refused at {}: {}", refused.at, refused.reason));
        }
    }
    if let Some(watch) = &status.watch {
        line("Watching:", &watched(watch));
        for fault in &watch.faults {
            let place = fault.at.as_ref().map(|at| format!("{at}: ")).unwrap_or_default();
            line("", &format!("{place}{}", fault.message.trim_end().replace('\n', "\n             ")));
        }
    }
    text
}

fn about(certificate: &ServerCertificate) -> String {
    let names =
        if certificate.names.is_empty() { "no name".to_owned() } else { certificate.names.join(", ") };
    let origin = match certificate.origin {
        Origin::Acme => "from the ACME server",
        Origin::Folder => "put into the data folder",
        Origin::Given => "given at the start",
    };
    let text = format!("for {names}, until {:.0}, {origin}", certificate.valid_until);
    match certificate.standing {
        Standing::Valid => text,
        Standing::Expired => format!("EXPIRED: {text}"),
        Standing::NotYetValid => {
            format!("NOT VALID before {:.0}: {text}; is this machine's clock right?", certificate.valid_from)
        }
    }
}

/// By whom logins are judged, or why by nobody.
fn judged(login: &LoginStatus) -> String {
    let issuer = login.issuer.as_deref().unwrap_or("none");
    if !login.missing.is_empty() {
        return format!("{issuer}: not used, since {} is not set", login.missing.join(" and "));
    }
    let answers = if login.usable { "answers" } else { "DOES NOT ANSWER; it is asked again by itself" };
    format!("{issuer}: {answers}")
}

fn renewed(acme: &AcmeStatus) -> String {
    let note = acme.note.as_deref().unwrap_or_default();
    let next = acme.next_attempt.map(|at| format!("{at:.0}")).unwrap_or_default();
    match acme.state {
        AcmeState::Off => format!("off: {note}"),
        AcmeState::Incomplete | AcmeState::Blocked => format!("not asked: {note}"),
        AcmeState::Waiting => format!("asked for the next certificate at {next}"),
        AcmeState::Asking => format!("asked now: {note}"),
        AcmeState::Failing => {
            let failures = acme.failures;
            let times = if failures == 1 { "once".to_owned() } else { format!("{failures} times") };
            format!("failed {times}, asked again at {next}; what is shown stays")
        }
    }
}

/// What an authority is for, and what is known of what it revoked.
fn answers_for(authority: &AuthorityStatus, trusts_unknowns: bool) -> String {
    let clients = match (authority.signs_clients, trusts_unknowns) {
        (true, true) => Some("clients, who may do everything if nobody here knows them".to_owned()),
        (true, false) => Some("clients".to_owned()),
        (false, _) => None,
    };
    let roles = authority.cluster.map(|cluster| format!("users and nodes of cluster {cluster}"));
    let signs = clients.into_iter().chain(roles).collect::<Vec<_>>().join(", ");
    let lists = match (authority.revoked, authority.next_update) {
        (None, _) => "no revocation list".to_owned(),
        (Some(count), None) => format!("{count} revoked"),
        (Some(count), Some(due)) if authority.stale => {
            format!("{count} revoked; the list is STALE, a newer one was due at {due}")
        }
        (Some(count), Some(due)) => format!("{count} revoked, next list by {due}"),
    };
    format!("{} (until {}) for {signs}: {lists}", authority.name, authority.expires_at)
}

fn watched(watch: &WatchStatus) -> String {
    let state = match watch.state {
        WatchState::Starting => "not looked at yet",
        WatchState::Applied => "applied",
        WatchState::Faulty => "faulty; the last good state is kept",
        WatchState::Failing => "could not be applied; it is tried again",
        WatchState::Missing => "the folder is gone; nothing is pruned",
    };
    let last = watch.last_applied.as_ref();
    let when =
        last.map(|last| format!(" (revision {} at {:.0})", last.revision, last.at)).unwrap_or_default();
    format!("{}: {state}{when}", watch.folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::WatchFault;
    use crate::wire::status::LinkSummary;

    #[test]
    fn people_see_when_a_certificate_is_renewed_or_why_it_is_not() {
        let at = |text: &str| Some(text.parse().unwrap());
        let status = |state, note: Option<&str>| AcmeStatus {
            state,
            note: note.map(str::to_owned),
            domain: None,
            directory: None,
            challenge: None,
            next_attempt: at("2026-11-22T10:00:00.5Z"),
            failures: 3,
            last_error: None,
        };
        for (state, note, shown) in [
            (AcmeState::Waiting, None, "asked for the next certificate at 2026-11-22T10:00:00Z"),
            (AcmeState::Asking, Some("proving the name"), "asked now: proving the name"),
            (AcmeState::Incomplete, Some("acme.email is not set"), "not asked: acme.email is not set"),
            (
                AcmeState::Failing,
                None,
                "failed 3 times, asked again at 2026-11-22T10:00:00Z; what is shown stays",
            ),
        ] {
            assert_eq!(renewed(&status(state, note)), shown);
        }
    }

    #[test]
    fn people_see_that_a_certificate_is_out_of_its_time_and_who_judges_logins() {
        let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
        let (from, until) = (at("2026-01-01T00:00:00Z"), at("2026-02-01T00:00:00Z"));
        let shown = |now: &str| {
            about(&ServerCertificate {
                fingerprint: "ab".repeat(32),
                names: vec!["east.example".to_owned()],
                issuer: "CN=ca".to_owned(),
                valid_from: from,
                valid_until: until,
                origin: Origin::Given,
                standing: Standing::of(from, until, at(now)),
            })
        };
        let usual = "for east.example, until 2026-02-01T00:00:00Z, given at the start";
        assert_eq!(shown("2026-01-15T00:00:00Z"), usual);
        assert_eq!(shown("2026-02-15T00:00:00Z"), format!("EXPIRED: {usual}"));
        assert!(shown("2025-12-15T00:00:00Z").starts_with("NOT VALID before 2026-01-01T00:00:00Z: "));

        let login = |usable, missing: &[&str]| {
            judged(&LoginStatus {
                issuer: Some("https://idp".to_owned()),
                usable,
                missing: missing.iter().map(|key| (*key).to_owned()).collect(),
            })
        };
        assert_eq!(login(true, &[]), "https://idp: answers");
        assert!(login(false, &[]).starts_with("https://idp: DOES NOT ANSWER"));
        assert_eq!(
            login(false, &["oidc.client.id"]),
            "https://idp: not used, since oidc.client.id is not set"
        );
    }

    #[test]
    fn people_see_links_with_their_reasons_and_faults_with_their_places() {
        let link = |name: &str, state, reason: Option<&str>| LinkSummary {
            name: name.parse().unwrap(),
            state,
            reason: reason.map(str::to_owned),
        };
        let status = Status {
            name: "east".parse().unwrap(),
            version: "0.1.0".to_owned(),
            fingerprint: "ab".repeat(32),
            server_fingerprint: None,
            server_certificate: None,
            acme: None,
            addresses: vec!["10.0.0.1:8443".to_owned(), "[2001:db8::1]:8443".to_owned()],
            epoch: "e".to_owned(),
            revision: 9,
            links: vec![
                link("west", LinkState::Active, None),
                link("north", LinkState::Failing, Some("no answer from 10.0.0.9:8443")),
            ],
            mesh: crate::wire::service::MeshStatus::default(),
            watch: Some(WatchStatus {
                folder: "/etc/comity/east".to_owned(),
                state: WatchState::Faulty,
                faults: vec![WatchFault {
                    at: Some("shop.hcl:3:5".to_owned()),
                    message: "unknown key \"prot\"".to_owned(),
                }],
                last_applied: None,
            }),
            pki: None,
            login: None,
        };
        assert_eq!(
            text(&status),
            format!(
                "Name:        east\n\
                 Version:     0.1.0\n\
                 Fingerprint: {}\n\
                 Addresses:   10.0.0.1:8443, [2001:db8::1]:8443\n\
                 Links:       west ACTIVE\n\
                 {blank}north FAILING: no answer from 10.0.0.9:8443\n\
                 Watching:    /etc/comity/east: faulty; the last good state is kept\n\
                 {blank}shop.hcl:3:5: unknown key \"prot\"\n",
                "ab".repeat(32),
                blank = " ".repeat(13),
            )
        );
    }
}
