//! `comity auth oidc-session`: the logins of those whom the identity provider vouches for.

use clap::Subcommand;

use super::{named, remote};
use crate::cli::{CliError, Context, ExitCode, Format, Table};
use crate::client::ClientError;
use crate::wire::lxd::auth::OidcSession;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the sessions that you may see: your own, and those of identities that you may view.
    #[command(visible_alias = "ls")]
    List {
        /// The remote to ask, with its colon.
        #[arg(id = "asked_remote", value_name = "REMOTE:")]
        remote: Option<String>,
    },
    /// Show one.
    Show {
        #[arg(value_name = "[REMOTE:]UUID")]
        session: String,
    },
    /// End one: what it has open is closed, and its user has to log in again.
    #[command(visible_alias = "rm")]
    Delete {
        #[arg(value_name = "[REMOTE:]UUID")]
        session: String,
    },
}

const WHAT: &str = "OIDC session";

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let output = &context.output;
    match args.command {
        Command::List { remote: from } => {
            let sessions = remote(context, from.as_deref()).await?.oidc_sessions().await?;
            match output.format() {
                Format::Json => output.json(&sessions),
                Format::Text => output.table(&table(&sessions)),
            }
        }
        Command::Show { session } => {
            let (client, uuid) = named(context, &session, WHAT).await?;
            let session = client.oidc_session(&uuid).await.map_err(|error| missing(error, &uuid))?;
            match output.format() {
                Format::Json => output.json(&session),
                Format::Text => output.yaml(&session),
            }
        }
        Command::Delete { session } => {
            let (client, uuid) = named(context, &session, WHAT).await?;
            client.delete_oidc_session(&uuid).await.map_err(|error| missing(error, &uuid))?;
            output.done(format!("Deleted OIDC session {uuid:?}"), &uuid);
        }
    }
    Ok(ExitCode::Done)
}

fn missing(error: ClientError, uuid: &str) -> CliError {
    if error.status() != Some(http::StatusCode::NOT_FOUND) || !super::is_plain(&error) {
        return error.into();
    }
    CliError::failed(format!("OIDC session {uuid:?} not found"))
        .code("not-found")
        .hint("`comity auth oidc-session list` shows the sessions that you may see.")
}

fn table(sessions: &[OidcSession]) -> Table {
    let mut table =
        Table::new(["EMAIL", "USERNAME", "UUID", "IP ADDRESS", "USER AGENT", "CREATION DATE", "EXPIRY DATE"]);
    for session in sessions {
        let date = |time: jiff::Timestamp| time.strftime("%Y/%m/%d %H:%M UTC").to_string();
        table.row([
            session.email.clone(),
            session.username.clone(),
            session.uuid.to_string(),
            session.ip_address.clone(),
            session.user_agent.clone(),
            date(session.created_at),
            date(session.expires_at),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_lxds_columns() {
        let session = OidcSession {
            email: "alice@example.com".to_owned(),
            username: "alice".to_owned(),
            uuid: uuid::Uuid::nil(),
            ip_address: "10.0.0.7".to_owned(),
            user_agent: "comity\u{1b}[2J".to_owned(),
            created_at: jiff::Timestamp::constant(1_800_000_000, 0),
            expires_at: jiff::Timestamp::constant(1_800_604_800, 0),
        };
        let drawn = table(&[session]).to_string();
        let lines: Vec<&str> = drawn.lines().collect();
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        assert_eq!(
            cells(lines[1])[1..8],
            ["EMAIL", "USERNAME", "UUID", "IP ADDRESS", "USER AGENT", "CREATION DATE", "EXPIRY DATE"]
        );
        assert_eq!(cells(lines[3])[6..8], ["2027/01/15 08:00 UTC", "2027/01/22 08:00 UTC"]);
        assert!(!drawn.contains('\u{1b}'));
    }
}
