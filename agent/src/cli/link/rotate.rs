//! `comity link rotate`: renews the cluster certificate, with every peer told first.

use std::time::Duration;

use schema::name::LinkName;
use schema::render::visible;
use tokio::time::Instant;

use super::aligned;
use crate::cli::{CliError, Context, ExitCode, Format};
use crate::client::{Client, ClientError};
use crate::daemon::options::duration;
use crate::wire::rotation::{RotateRequest, Rotation, RotationReport, RotationState};

/// How often the agent is asked how far it is.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long a peer that is away may take the new certificate on its return (7d unless it is said otherwise).
    #[arg(long, value_name = "TIME", value_parser = duration)]
    deadline: Option<Duration>,
    /// Do not wait for peers that are away: they take the new certificate when they return, until the deadline.
    #[arg(long)]
    force: bool,
    /// The old key may be in other hands: it does not vouch for the new one, and every link needs a new token.
    #[arg(long, conflicts_with = "deadline")]
    compromised: bool,
    /// Do not ask before links are given up by --compromised.
    #[arg(long, short)]
    yes: bool,
    /// Show how the last rotation stands, and change nothing.
    #[arg(long, conflicts_with_all = ["deadline", "force", "compromised", "yes"])]
    status: bool,
    /// How long to wait for peers that do not answer. The rotation goes on by itself afterwards.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    wait: Duration,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let output = &context.output;
    if args.status {
        let report = context.client(None).await?.rotation().await?;
        match output.format() {
            Format::Json => output.json(&report),
            Format::Text => output.text(shown(&report)),
        }
        return Ok(ExitCode::Done);
    }
    if args.compromised && !args.yes {
        let question = "Every link is given up and needs a new token, and every client has to add this cluster anew. Go on?";
        if !output.confirm(question, "--yes")? {
            return Err(CliError::failed("nothing was changed").code("declined"));
        }
    }
    let request = RotateRequest {
        deadline_seconds: args.deadline.map(|time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX)),
        force: args.force,
        compromised: args.compromised,
    };
    let client = context.client(None).await?;
    let before = client.rotate(&request).await?;
    let report = wait(context, client, before, args.wait).await?;
    let Some(rotation) = &report.rotation else { return Ok(ExitCode::Done) };
    match output.format() {
        Format::Json => output.json(&report),
        Format::Text if output.quiet() => output.line(&report.fingerprint),
        Format::Text => output.text(ended(rotation)),
    }
    if rotation.state != RotationState::Done {
        let missing = names(&rotation.missing);
        return Err(CliError::failed(format!("the certificate is not changed yet: {missing} must hear of it first"))
            .code("rotation-waits")
            .hint("It goes on by itself once they are back; `comity link rotate --status` shows it. `comity link rotate --force` goes on without them: they take the certificate when they return, until the deadline."));
    }
    for line in warnings(rotation) {
        output.note(line);
    }
    Ok(ExitCode::Done)
}

/// Until it is done, or `patience` has passed.
async fn wait(
    context: &Context,
    mut client: Client,
    mut report: RotationReport,
    patience: Duration,
) -> Result<RotationReport, CliError> {
    let deadline = Instant::now() + patience;
    while report.rotation.as_ref().is_some_and(|rotation| rotation.state != RotationState::Done)
        && Instant::now() < deadline
    {
        tokio::time::sleep(PAUSE).await;
        report = if let Ok(report) = client.rotation().await {
            report
        } else {
            // Over the network the agent may have changed under the client that it was asked with.
            client = context.client(None).await?;
            match client.rotation().await {
                Ok(report) => report,
                // The very certificate that the agent told of while it showed the old one. A key that was given up
                // vouches for nobody, so this is the last that can be heard.
                Err(ClientError::Mismatch { got, .. }) if is_next(&report, &got.to_string()) => {
                    return Ok(done(report));
                }
                Err(error) => return Err(error.into()),
            }
        };
    }
    Ok(report)
}

fn is_next(report: &RotationReport, fingerprint: &str) -> bool {
    report.rotation.as_ref().is_some_and(|rotation| rotation.compromised && rotation.to == fingerprint)
}

/// As it stands once the next certificate is shown.
fn done(mut report: RotationReport) -> RotationReport {
    if let Some(rotation) = &mut report.rotation {
        rotation.state = RotationState::Done;
        report.fingerprint.clone_from(&rotation.to);
    }
    report
}

/// What a person has to know who has other things that pin the certificate.
fn warnings(rotation: &Rotation) -> Vec<String> {
    let mut lines = Vec::new();
    if rotation.compromised {
        lines.push("Every link is PENDING: exchange a new token for each (`comity apply` of both sides, or `comity link delete` and `comity link create`).".to_owned());
        if !rotation.missing.is_empty() {
            lines.push(format!(
                "NOT TOLD: {}. They still trust the old key: delete the link there by hand, now.",
                names(&rotation.missing)
            ));
        }
        lines.push("Everybody who has this cluster as a remote must remove it and add it anew, `comity` and `lxc` alike.".to_owned());
    } else {
        if !rotation.missing.is_empty() {
            lines.push(format!(
                "Away: {}. They take the new certificate when they return, until {:.0}; after that their links must be made anew.",
                names(&rotation.missing),
                rotation.deadline
            ));
        }
        lines.push("LXD's own clients pin the certificate and cannot follow it: `lxc remote remove` and `lxc remote add` it there. `comity` follows by itself until the deadline.".to_owned());
        lines.push("Link tokens that were given out before name the old certificate: make new ones. Client tokens go on: `comity` follows to the new one.".to_owned());
    }
    lines
}

fn ended(rotation: &Rotation) -> String {
    match rotation.state {
        RotationState::Done => format!("Cluster certificate renewed: {}\n", rotation.to),
        RotationState::Switching => format!("Cluster certificate {} is being put in place\n", rotation.to),
        RotationState::Announced => format!(
            "Cluster certificate {} is announced; known to: {}; still to hear: {}\n",
            rotation.to,
            names(&rotation.heard),
            names(&rotation.missing)
        ),
    }
}

fn shown(report: &RotationReport) -> String {
    let mut lines = vec![("Certificate", report.fingerprint.clone())];
    match &report.rotation {
        None => lines.push(("Rotation", "never".to_owned())),
        Some(rotation) => {
            let state = match (rotation.state, rotation.compromised) {
                (RotationState::Announced, false) => {
                    "announced: waits until every peer knows the next certificate"
                }
                (RotationState::Announced, true) => "peers are being told that the key is given up",
                (RotationState::Switching, _) => "the next certificate is being put in place",
                (RotationState::Done, false) => "done",
                (RotationState::Done, true) => "done: the old key was given up, and every link with it",
            };
            lines.push(("Rotation", state.to_owned()));
            lines.push(("Number", rotation.number.to_string()));
            lines.push(("From", rotation.from.clone()));
            lines.push(("To", rotation.to.clone()));
            if !rotation.compromised {
                lines.push(("Deadline", format!("{:.0}", rotation.deadline)));
            }
            lines.push(("Asked by", format!("{} at {:.0}", visible(&rotation.asked_by), rotation.asked_at)));
            lines.push(("Known to", names(&rotation.heard)));
            lines.push(("Still to hear", names(&rotation.missing)));
        }
    }
    aligned(lines)
}

fn names(links: &[LinkName]) -> String {
    match links {
        [] => "none".to_owned(),
        links => links.iter().map(LinkName::as_str).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn rotation(state: RotationState, missing: &[&str]) -> Rotation {
        Rotation {
            state,
            number: 1,
            from: "aa".to_owned(),
            to: "bb".to_owned(),
            deadline: Timestamp::UNIX_EPOCH,
            asked_by: "local uid 0".to_owned(),
            asked_at: Timestamp::UNIX_EPOCH,
            force: false,
            compromised: false,
            heard: vec!["north".parse().unwrap()],
            missing: missing.iter().map(|name| name.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn who_is_missing_is_named_with_what_becomes_of_them() {
        let waiting = rotation(RotationState::Announced, &["west", "south"]);
        assert_eq!(
            ended(&waiting),
            "Cluster certificate bb is announced; known to: north; still to hear: west, south\n"
        );
        let forced = rotation(RotationState::Done, &["west"]);
        assert!(warnings(&forced)[0].starts_with("Away: west. They take the new certificate"));
        assert!(warnings(&rotation(RotationState::Done, &[]))[0].starts_with("LXD's own clients"));
        let given_up = Rotation { compromised: true, ..forced };
        assert!(warnings(&given_up).iter().any(|line| line.starts_with("NOT TOLD: west.")));
        let told = RotationReport {
            fingerprint: "aa".to_owned(),
            rotation: Some(Rotation { state: RotationState::Switching, ..given_up }),
        };
        assert!(is_next(&told, "bb") && !is_next(&told, "cc"));
        assert_eq!(done(told).fingerprint, "bb");
        let report = RotationReport { fingerprint: "aa".to_owned(), rotation: Some(waiting) };
        assert!(shown(&report).contains("Still to hear: west, south\n"), "{}", shown(&report));
    }
}
