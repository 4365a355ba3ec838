//! `comity trust`: the clients that a cluster trusts, and the one-time tokens by which others become so.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Subcommand;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::context::name;
use super::{CliError, Context, ExitCode, Format, Table};
use crate::client::ClientError;
use crate::daemon::options::duration;
use crate::trust::certificate::from_pem;
use crate::wire::lxd::certificate::Certificate;

/// How much of a fingerprint lists show.
const SHORT: usize = 12;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a one-time token by which a client becomes trusted.
    Add {
        /// What the client will be called here.
        #[arg(long)]
        name: Option<String>,
        /// How long the token is good for, such as 1h or 2d.
        #[arg(long, value_name = "TIME", value_parser = duration)]
        expires: Option<Duration>,
        /// Limit the client to what this group may do; may be given several times.
        #[arg(long, short = 'g', value_name = "GROUP")]
        auth_group: Vec<String>,
    },
    /// List the clients that are trusted.
    #[command(alias = "ls")]
    List,
    /// Stop trusting a client, by its fingerprint or the beginning of it.
    #[command(alias = "rm")]
    Remove { fingerprint: String },
    /// List the tokens that can still be redeemed.
    ListTokens,
    /// Take back the tokens for a client, by its name.
    RevokeToken { name: String },
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    match args.command {
        Command::Add { name, expires, auth_group } => add(context, name, expires, &auth_group).await,
        Command::List => list(context).await,
        Command::Remove { fingerprint } => remove(context, &fingerprint).await,
        Command::ListTokens => list_tokens(context).await,
        Command::RevokeToken { name } => revoke_token(context, &name).await,
    }
}

async fn add(
    context: &Context,
    given: Option<String>,
    expires: Option<Duration>,
    groups: &[String],
) -> Result<ExitCode, CliError> {
    let output = &context.output;
    let called = match given {
        Some(given) => given,
        None if std::io::stdin().is_terminal() => output.ask("Please provide client name: ")?,
        None => return Err(CliError::usage("the client needs a name").hint("Give it with --name.")),
    };
    if called.len() > schema::name::MAX_NAME {
        return Err(CliError::failed(format!(
            "--name: this is {} characters long; a name has at most {}",
            called.len(),
            schema::name::MAX_NAME
        )));
    }
    let groups = groups
        .iter()
        .map(|group| name::<schema::name::GroupName>("--auth-group", group).map(String::from))
        .collect::<Result<Vec<_>, _>>()?;
    let minted = context.client(None).await?.mint_token(&called, &groups, expires).await?;
    // The one place where a token's text is printed: it was asked for.
    let text = minted.token.encode();
    match output.format() {
        Format::Json => output.json(
            &json!({"client_name": called, "token": text.expose(), "expires_at": minted.token.expires_at}),
        ),
        Format::Text => {
            if !output.quiet() {
                output.line(format!("Client {called} trust token:"));
            }
            output.line(text.expose());
        }
    }
    Ok(ExitCode::Done)
}

/// A trusted client as `trust list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Listed {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    common_name: String,
    fingerprint: String,
    issue_date: Option<Timestamp>,
    expiry_date: Option<Timestamp>,
}

async fn list(context: &Context) -> Result<ExitCode, CliError> {
    let listed: Vec<Listed> =
        context.client(None).await?.trusted().await?.into_iter().map(Listed::from).collect();
    match context.output.format() {
        Format::Json => context.output.json(&listed),
        Format::Text => context.output.table(&table(&listed)),
    }
    Ok(ExitCode::Done)
}

impl From<Certificate> for Listed {
    fn from(client: Certificate) -> Self {
        let der = from_pem(&client.certificate);
        let parsed = der.as_ref().and_then(|der| x509_parser::parse_x509_certificate(der).ok());
        let certificate = parsed.as_ref().map(|(_, certificate)| certificate);
        let common_name = certificate
            .and_then(|certificate| certificate.subject().iter_common_name().next()?.as_str().ok())
            .unwrap_or_default()
            .to_owned();
        let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
        Self {
            common_name,
            issue_date: certificate.and_then(|c| at(c.validity().not_before)),
            expiry_date: certificate.and_then(|c| at(c.validity().not_after)),
            kind: client.kind,
            name: client.name,
            fingerprint: client.fingerprint,
        }
    }
}

fn table(listed: &[Listed]) -> Table {
    let mut table = Table::new(["TYPE", "NAME", "COMMON NAME", "FINGERPRINT", "ISSUE DATE", "EXPIRY DATE"]);
    for client in listed {
        table.row([
            client.kind.clone(),
            client.name.clone(),
            client.common_name.clone(),
            client.fingerprint.chars().take(SHORT).collect(),
            date(client.issue_date),
            date(client.expiry_date),
        ]);
    }
    table
}

fn date(at: Option<Timestamp>) -> String {
    at.map(|at| at.strftime("%b %-d, %Y at %-I:%M%P (UTC)").to_string()).unwrap_or_default()
}

async fn remove(context: &Context, fingerprint: &str) -> Result<ExitCode, CliError> {
    context.client(None).await?.distrust(fingerprint).await.map_err(|error| match error {
        ClientError::Refused { status, .. } if status == http::StatusCode::NOT_FOUND => {
            CliError::failed("No trusted client has this fingerprint")
                .code("not-found")
                .hint("`comity trust list` shows the clients that are trusted.")
        }
        error => error.into(),
    })?;
    Ok(ExitCode::Done)
}

async fn list_tokens(context: &Context) -> Result<ExitCode, CliError> {
    let tokens = context.client(None).await?.pending_tokens().await?;
    match context.output.format() {
        Format::Json => context.output.json(&tokens),
        Format::Text => {
            let mut table = Table::new(["NAME", "TOKEN", "EXPIRES AT"]);
            for token in tokens {
                table.row([
                    token.name,
                    token.id,
                    token.expires_at.strftime("%Y/%m/%d %H:%M UTC").to_string(),
                ]);
            }
            context.output.table(&table);
        }
    }
    Ok(ExitCode::Done)
}

async fn revoke_token(context: &Context, called: &str) -> Result<ExitCode, CliError> {
    context.client(None).await?.revoke_token(called).await.map_err(|error| match error {
        ClientError::Refused { status, .. } if status == http::StatusCode::NOT_FOUND => {
            CliError::failed("No trust token for a client of this name")
                .code("not-found")
                .hint("`comity trust list-tokens` shows those that can still be redeemed.")
        }
        error => error.into(),
    })?;
    if !context.output.quiet() {
        context.output.line("Trust token deleted");
    }
    Ok(ExitCode::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::certificate::KeyPair;

    #[test]
    fn a_client_is_listed_with_what_its_certificate_says() {
        let pair = KeyPair::generate("ada", &["ada".to_owned()]).unwrap();
        let listed = Listed::from(Certificate {
            name: "laptop".to_owned(),
            kind: "client".to_owned(),
            restricted: false,
            projects: Vec::new(),
            certificate: pair.pem.clone(),
            fingerprint: pair.fingerprint.to_string(),
        });
        assert_eq!(listed.common_name, "ada");
        assert!(listed.issue_date < listed.expiry_date);
        let drawn = table(&[listed]).to_string();
        assert!(
            drawn.contains(&pair.fingerprint.to_string()[..SHORT]) && drawn.contains("laptop"),
            "{drawn}"
        );
        assert_eq!(date(Timestamp::from_second(1_764_000_000).ok()), "Nov 24, 2025 at 4:00pm (UTC)");
    }
}
