//! `comity trust`: the clients that a cluster trusts, and the one-time tokens by which others become so.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use serde_json::json;

use super::auth::{named, remote};
use super::context::name;
use super::{CliError, Context, ExitCode, Format, Table, edit};
use crate::client::{Client, ClientError, expires_in};
use crate::daemon::options::duration;
use crate::trust::certificate::{from_pem, to_pem};
use crate::wire::lxd::certificate::{Certificate, CertificatePatch, CertificatesPost};
use crate::wire::lxd::identity::TlsIdentityPost;

/// What the operands name.
const CLIENT: &str = "client";
/// How much of a fingerprint lists show.
const SHORT: usize = 12;
/// Largest certificate file that is read.
const MAX_FILE: u64 = 64 * 1024;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a one-time token by which a client becomes trusted, or trust a certificate.
    Add {
        /// A certificate in PEM to trust; without one, a token is made.
        #[arg(value_name = "[REMOTE:] [FILE]", num_args = 0..=2)]
        words: Vec<String>,
        /// Limit the client to these projects.
        #[arg(long, value_delimiter = ',', value_name = "PROJECT", conflicts_with = "auth_group")]
        projects: Vec<String>,
        /// Limit the client to its projects, even if there are none.
        #[arg(long, conflicts_with = "auth_group")]
        restricted: bool,
        /// What the certificate is for.
        #[arg(long = "type", value_name = "TYPE", default_value = "client", value_parser = ["client", "metrics"])]
        kind: String,
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
    List {
        #[arg(id = "asked_remote", value_name = "REMOTE:")]
        remote: Option<String>,
    },
    /// Show an entry, by its fingerprint or the beginning of it.
    Show {
        #[arg(value_name = "[REMOTE:]FINGERPRINT")]
        fingerprint: String,
    },
    /// Change an entry as YAML: from standard input, or in an editor.
    Edit {
        #[arg(value_name = "[REMOTE:]FINGERPRINT")]
        fingerprint: String,
    },
    /// Stop trusting a client, by its fingerprint or the beginning of it.
    #[command(alias = "rm")]
    Remove {
        #[arg(value_name = "[REMOTE:]FINGERPRINT")]
        fingerprint: String,
    },
    /// List the tokens that can still be redeemed.
    ListTokens {
        #[arg(id = "asked_remote", value_name = "REMOTE:")]
        remote: Option<String>,
    },
    /// Take back the tokens for a client, by its name.
    RevokeToken {
        #[arg(value_name = "[REMOTE:]NAME")]
        name: String,
    },
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    match args.command {
        Command::Add { words, projects, restricted, kind, name, expires, auth_group } => {
            let restricted = restricted || !projects.is_empty();
            let body = CertificatesPost {
                kind,
                projects,
                restricted,
                expires_in: expires_in(expires),
                ..CertificatesPost::default()
            };
            let (client, certificate) = asked(context, words).await?;
            match certificate {
                Some(path) => add_file(&client, &path, name, body, auth_group).await,
                None => add(context, &client, name, body, &auth_group).await,
            }
        }
        Command::Show { fingerprint } => {
            let (client, fingerprint) = named(context, &fingerprint, CLIENT).await?;
            let shown = client.certificate(&fingerprint).await.map_err(missing)?;
            match context.output.format() {
                Format::Json => context.output.json(&shown),
                Format::Text => context.output.yaml(&shown),
            }
            Ok(ExitCode::Done)
        }
        Command::Edit { fingerprint } => {
            let (client, fingerprint) = named(context, &fingerprint, CLIENT).await?;
            let current = client.certificate(&fingerprint).await.map_err(missing)?;
            let written: CertificatePatch = edit::changed(context, &current, &[], EXPLAINED)?;
            client.edit_certificate(&current.fingerprint, &written).await?;
            Ok(ExitCode::Done)
        }
        Command::List { remote: from } => list(context, &remote(context, from.as_deref()).await?).await,
        Command::Remove { fingerprint } => remove(context, &fingerprint).await,
        Command::ListTokens { remote: from } => {
            list_tokens(context, &remote(context, from.as_deref()).await?).await
        }
        Command::RevokeToken { name } => revoke_token(context, &name).await,
    }
}

/// What `[REMOTE:] [FILE]` means: the agent, and the file if there is one.
async fn asked(context: &Context, words: Vec<String>) -> Result<(Client, Option<PathBuf>), CliError> {
    let mut words = words.into_iter();
    let (from, file) = match (words.next(), words.next()) {
        (Some(from), file) if from.ends_with(':') => (Some(from), file),
        (file, None) => (None, file),
        (Some(_), Some(_)) => {
            return Err(CliError::usage("two certificates were given: one at a time").hint(
                "The first of two words is a remote, with its colon: `comity trust add REMOTE: FILE`.",
            ));
        }
        (None, Some(_)) => (None, None),
    };
    Ok((remote(context, from.as_deref()).await?, file.map(PathBuf::from)))
}

async fn add(
    context: &Context,
    client: &Client,
    given: Option<String>,
    body: CertificatesPost,
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
    let minted = if groups.is_empty() {
        client.mint_certificate(&CertificatesPost { name: called.clone(), token: true, ..body }).await?
    } else {
        let (name, expires_in) = (called.clone(), body.expires_in);
        let body = TlsIdentityPost { name, token: true, groups, expires_in, ..TlsIdentityPost::default() };
        client.mint_identity(&body).await?
    };
    // The one place where a token's text is printed: it was asked for.
    let text = minted.token.encode();
    match output.format() {
        Format::Json => output.json(
            &json!({"client_name": called, "token": text.expose(), "expires_at": minted.token.expires_at}),
        ),
        Format::Text => {
            if !output.quiet() {
                output.line(format!("Client {called} certificate add token:"));
            }
            output.line(text.expose());
        }
    }
    Ok(ExitCode::Done)
}

/// Trusts the certificate in a file, under the file's name unless another is given.
async fn add_file(
    client: &Client,
    path: &Path,
    given: Option<String>,
    body: CertificatesPost,
    groups: Vec<String>,
) -> Result<ExitCode, CliError> {
    let der = certificate_file(path, MAX_FILE)?;
    let file = || path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = given.unwrap_or_else(file);
    if groups.is_empty() {
        use base64::Engine as _;
        let certificate = base64::engine::general_purpose::STANDARD.encode(&der);
        client.add_certificate(&CertificatesPost { name, certificate, ..body }).await?;
    } else {
        let certificate = to_pem(&der);
        client.add_identity(&TlsIdentityPost { name, groups, certificate, ..Default::default() }).await?;
    }
    Ok(ExitCode::Done)
}

/// The certificate in a PEM file.
pub(super) fn certificate_file(path: &Path, most: u64) -> Result<CertificateDer<'static>, CliError> {
    use std::io::Read as _;
    let failed = |why: String| CliError::failed(format!("{}: {why}", path.display())).code("bad-certificate");
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    file.take(most).read_to_string(&mut text).map_err(|error| failed(error.to_string()))?;
    from_pem(&text).ok_or_else(|| failed("this is no certificate in PEM".to_owned()))
}

fn missing(error: ClientError) -> CliError {
    match error {
        ClientError::Refused { status, .. } if status == http::StatusCode::NOT_FOUND => {
            CliError::failed("No trusted client has this fingerprint")
                .code("not-found")
                .hint("`comity trust list` shows the clients that are trusted.")
        }
        error => error.into(),
    }
}

const EXPLAINED: &str = "\
### This is a YAML representation of the certificate.
### Any line starting with a '# will be ignored.
###
### name: laptop
### restricted: true
### projects:
### - default";

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

async fn list(context: &Context, client: &Client) -> Result<ExitCode, CliError> {
    let listed: Vec<Listed> = client.trusted().await?.into_iter().map(Listed::from).collect();
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
    let (client, fingerprint) = named(context, fingerprint, CLIENT).await?;
    client.distrust(&fingerprint).await.map_err(missing)?;
    Ok(ExitCode::Done)
}

async fn list_tokens(context: &Context, client: &Client) -> Result<ExitCode, CliError> {
    let tokens = client.pending_tokens().await?;
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
    let (client, called) = named(context, called, CLIENT).await?;
    client.revoke_token(&called).await.map_err(|error| match error {
        ClientError::Refused { status, .. } if status == http::StatusCode::NOT_FOUND => {
            CliError::failed(format!("No certificate add token for member {called}"))
                .code("not-found")
                .hint("`comity trust list-tokens` shows those that can still be redeemed.")
        }
        error => error.into(),
    })?;
    if !context.output.quiet() {
        context.output.line(format!("Certificate add token for {called} deleted"));
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
