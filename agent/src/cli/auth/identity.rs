//! `comity auth identity`: who is known, and what groups they are in. Arguments, texts and columns are LXD's.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use http::StatusCode;
use serde::Deserialize;

use super::{columns, named, remote};
use crate::cli::{CliError, Context, ExitCode, Format, Table, edit};
use crate::client::{Client, ClientError};
use crate::wire::cluster_link::LinkPost;
use crate::wire::lxd::identity::{BearerIdentityPost, Identity, IdentityPatch, TlsIdentityPost, types};
use crate::wire::token::TrustToken;

/// Largest certificate file that is read.
const MAX_FILE: u64 = 64 * 1024;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create an identity: tls/NAME with a certificate or a token, bearer/NAME, or cluster-link/NAME.
    Create {
        #[arg(value_name = "[REMOTE:]TYPE/NAME")]
        identity: String,
        /// A certificate in PEM; without one, a one-time token is made.
        certificate: Option<PathBuf>,
        /// A group that it is put into; may be given several times.
        #[arg(long = "group", short, value_name = "GROUP")]
        groups: Vec<String>,
    },
    /// List identities.
    #[command(visible_alias = "ls")]
    List {
        /// The remote to ask, with its colon.
        #[arg(id = "asked_remote", value_name = "REMOTE:")]
        remote: Option<String>,
        /// Which columns: a method, t type, n name, i identifier, g groups.
        #[arg(long, short, default_value = "atnig")]
        columns: String,
    },
    /// Show one.
    Show {
        #[arg(value_name = "[REMOTE:]TYPE/NAME")]
        identity: String,
    },
    /// Show who you are there, and what you may do.
    Info {
        /// The remote to ask, with its colon.
        #[arg(id = "asked_remote", value_name = "REMOTE:")]
        remote: Option<String>,
    },
    /// Change one as YAML: from standard input, or in an editor.
    Edit {
        #[arg(value_name = "[REMOTE:]TYPE/NAME")]
        identity: String,
    },
    /// Delete one.
    #[command(visible_alias = "rm")]
    Delete {
        #[arg(value_name = "[REMOTE:]TYPE/NAME")]
        identity: String,
    },
    /// Manage the groups that one is in.
    Group(GroupArgs),
    /// Manage the token of a bearer.
    Token(TokenArgs),
}

#[derive(Debug, clap::Args)]
struct GroupArgs {
    #[command(subcommand)]
    command: GroupCommand,
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// Put it into a group.
    Add {
        #[arg(value_name = "[REMOTE:]TYPE/NAME")]
        identity: String,
        group: String,
    },
    /// Take it out of a group.
    #[command(visible_alias = "rm")]
    Remove {
        #[arg(value_name = "[REMOTE:]TYPE/NAME")]
        identity: String,
        group: String,
    },
}

#[derive(Debug, clap::Args)]
struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make its token; the one before it is worth nothing from then on.
    Issue {
        #[arg(value_name = "[REMOTE:]bearer/NAME")]
        identity: String,
        /// How long it is good for, such as "1d 2H".
        #[arg(long, default_value = "")]
        expiry: String,
    },
    /// Take its token back.
    Revoke {
        #[arg(value_name = "[REMOTE:]bearer/NAME")]
        identity: String,
    },
}

/// What people write for a kind of identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tls,
    Oidc,
    Bearer,
    ClusterLink,
}

impl Kind {
    fn method(self) -> &'static str {
        match self {
            Kind::Tls | Kind::ClusterLink => "tls",
            Kind::Oidc => "oidc",
            Kind::Bearer => "bearer",
        }
    }
}

/// An identity as an operand names it, and the agent that has it.
struct Named {
    client: Client,
    kind: Kind,
    name: String,
}

async fn identity(context: &Context, operand: &str) -> Result<Named, CliError> {
    let (client, rest) = named(context, operand, "identity").await?;
    let malformed = || {
        let shown = schema::diagnostic::secret::without_tokens(operand);
        CliError::usage(format!("Malformed argument, expected `[<remote>:]<type>/<name>`, got {shown}"))
    };
    let (kind, name) = rest.split_once('/').ok_or_else(malformed)?;
    if name.is_empty() {
        return Err(malformed());
    }
    let kind = match kind {
        "tls" => Kind::Tls,
        "oidc" => Kind::Oidc,
        "bearer" => Kind::Bearer,
        "cluster-link" => Kind::ClusterLink,
        "devlxd" => return Err(CliError::failed("There is no DevLXD here").hint("Use bearer/NAME.")),
        other => {
            return Err(CliError::usage(format!("Unrecognized identity type shorthand {other:?}"))
                .hint("There are tls, bearer, oidc and cluster-link."));
        }
    };
    Ok(Named { client, kind, name: name.to_owned() })
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let output = &context.output;
    match args.command {
        Command::Create { identity: operand, certificate, groups } => {
            let named = identity(context, &operand).await?;
            create(context, named, certificate.as_deref(), groups).await?;
        }
        Command::List { remote: from, columns: wanted } => {
            let wanted = columns(&wanted, &['a', 't', 'n', 'i', 'g'])?;
            let identities = remote(context, from.as_deref()).await?.identities().await?;
            if output.format() == Format::Json {
                output.json(&identities);
            } else {
                output.table(&table(identities, &wanted));
            }
        }
        Command::Show { identity: operand } => {
            let Named { client, kind, name } = identity(context, &operand).await?;
            let shown = get(&client, kind, &name).await?;
            match output.format() {
                Format::Json => output.json(&shown),
                Format::Text => output.yaml(&shown),
            }
        }
        Command::Info { remote: from } => {
            let current = remote(context, from.as_deref()).await?.current_identity().await?;
            match output.format() {
                Format::Json => output.json(&current),
                Format::Text => output.yaml(&current),
            }
        }
        Command::Edit { identity: operand } => {
            let Named { client, kind, name } = identity(context, &operand).await?;
            let current = get(&client, kind, &name).await?;
            let written: Written =
                edit::changed(context, &current, &["expires_at", "access_entitlements"], EXPLAINED)?;
            let patch = IdentityPatch {
                groups: Some(written.groups),
                tls_certificate: written.tls_certificate.filter(|pem| !pem.is_empty()),
                ..IdentityPatch::default()
            };
            client.edit_identity(kind.method(), &name, &patch).await?;
        }
        Command::Delete { identity: operand } => {
            let Named { client, kind, name } = identity(context, &operand).await?;
            let deleted = client.delete_identity(kind.method(), &name).await;
            deleted.map_err(|error| missing(error, &name))?;
            output.done(format!("Identity {operand} deleted"), &name);
        }
        Command::Group(args) => group(context, args.command).await?,
        Command::Token(args) => token(context, args.command).await?,
    }
    Ok(ExitCode::Done)
}

async fn create(
    context: &Context,
    named: Named,
    certificate: Option<&Path>,
    groups: Vec<String>,
) -> Result<(), CliError> {
    let (output, Named { client, kind, name }) = (&context.output, named);
    if certificate.is_some() && kind != Kind::Tls {
        return Err(CliError::usage("Only TLS identities are created with a certificate"));
    }
    match kind {
        Kind::Oidc => Err(CliError::failed("OIDC identities cannot be created manually")),
        Kind::Bearer => {
            let kind = types::BEARER.to_owned();
            client.add_bearer(&BearerIdentityPost { kind, name: name.clone(), groups }).await?;
            output.done(format!("{} identity {name:?} created", types::BEARER), &name);
            Ok(())
        }
        Kind::ClusterLink => {
            let auth_groups = groups;
            let body = LinkPost {
                name: name.clone(),
                kind: "unidirectional".to_owned(),
                auth_groups,
                ..LinkPost::default()
            };
            let token: TrustToken = client.lxd(http::Method::POST, "/1.0/cluster/links", Some(&body)).await?;
            let id = client.identity("tls", &name).await.map(|made| made.id).unwrap_or_default();
            pending(context, &format!("Cluster link {name:?} ({id}) pending identity token:"), &token);
            Ok(())
        }
        Kind::Tls => {
            let Some(path) = certificate else {
                let body = TlsIdentityPost { name: name.clone(), token: true, groups, ..Default::default() };
                let minted = client.mint_identity(&body).await?;
                let id = minted.id;
                let head = format!("TLS identity {name:?} ({id}) pending identity token:");
                pending(context, &head, &minted.token);
                return Ok(());
            };
            let pem = crate::cli::trust::certificate_file(path, MAX_FILE)?;
            let certificate = crate::trust::certificate::to_pem(&pem);
            let body = TlsIdentityPost { name: name.clone(), certificate, groups, ..Default::default() };
            let fingerprint = crate::trust::certificate::fingerprint(&pem);
            if let Err(error) = client.add_identity(&body).await {
                let known = client.identities().await.unwrap_or_default();
                return Err(taken(error, &name, &fingerprint.to_string(), &body.groups, &known));
            }
            let text = format!("TLS identity {name:?} created with fingerprint \"{fingerprint}\"");
            output.done(text, &fingerprint.to_string());
            Ok(())
        }
    }
}

/// Prints a token: the one place, beside `trust add`, where it was asked for.
fn pending(context: &Context, head: &str, token: &TrustToken) {
    let (output, text) = (&context.output, token.encode());
    if output.format() == Format::Json {
        let (name, expires_at) = (&token.client_name, token.expires_at);
        output.json(
            &serde_json::json!({"client_name": name, "token": text.expose(), "expires_at": expires_at}),
        );
        return;
    }
    if !output.quiet() {
        output.line(head);
    }
    output.line(text.expose());
}

async fn group(context: &Context, command: GroupCommand) -> Result<(), CliError> {
    let (operand, group, is_add) = match command {
        GroupCommand::Add { identity, group } => (identity, group, true),
        GroupCommand::Remove { identity, group } => (identity, group, false),
    };
    let Named { client, kind, name } = identity(context, &operand).await?;
    let mut groups = get(&client, kind, &name).await?.groups;
    match (is_add, groups.contains(&group)) {
        (true, true) => {
            let message = format!("Identity {name:?} is already a member of group {group:?}");
            return Err(CliError::failed(message));
        }
        (false, false) => {
            return Err(CliError::failed(format!("Identity {name:?} is not a member of group {group:?}")));
        }
        (true, false) => groups.push(group),
        (false, true) => groups.retain(|member| *member != group),
    }
    let patch = IdentityPatch { groups: Some(groups), ..IdentityPatch::default() };
    Ok(client.edit_identity(kind.method(), &name, &patch).await?)
}

async fn token(context: &Context, command: TokenCommand) -> Result<(), CliError> {
    let output = &context.output;
    let operand = match &command {
        TokenCommand::Issue { identity, .. } | TokenCommand::Revoke { identity } => identity,
    };
    let Named { client, kind, name } = identity(context, operand).await?;
    if kind != Kind::Bearer {
        return Err(CliError::usage("Only bearer identities have a token of their own")
            .hint("`comity auth identity create tls/NAME` makes a one-time token for a client."));
    }
    match command {
        TokenCommand::Issue { expiry, .. } => {
            let issued = client.issue_bearer_token(&name, &expiry).await;
            let issued = issued.map_err(|error| missing(error, &name))?;
            if output.format() == Format::Json {
                output.json(&serde_json::json!({"token": issued.expose()}));
                return Ok(());
            }
            if !output.quiet() {
                output.line(format!("Issued token for identity {name:?}"));
            }
            output.line(issued.expose());
        }
        TokenCommand::Revoke { .. } => {
            client.revoke_bearer_token(&name).await.map_err(|error| missing(error, &name))?;
            output.done(format!("Revoked token for identity {name:?}"), &name);
        }
    }
    Ok(())
}

/// Why there is no new identity, and what to do with the one that is there: a user of the cluster's own authority is
/// known from the first call on.
fn taken(
    error: ClientError,
    name: &str,
    fingerprint: &str,
    groups: &[String],
    known: &[Identity],
) -> CliError {
    let is_taken = error.status() == Some(StatusCode::CONFLICT);
    let failed = CliError::from(error);
    if !is_taken {
        return failed;
    }
    if let Some(same) = known.iter().find(|identity| identity.id == fingerprint) {
        let group = groups.first().map_or("GROUP", String::as_str);
        return failed.hint(format!(
            "It is known by this very certificate: `comity auth identity group add tls/{} {group}`.",
            same.name
        ));
    }
    if known.iter().any(|identity| identity.authentication_method == "tls" && identity.name == name) {
        return failed.hint(format!(
            "Another certificate has this name: `comity auth identity edit tls/{name}` gives it this one, `comity auth identity delete tls/{name}` frees the name."
        ));
    }
    failed
}

async fn get(client: &Client, kind: Kind, name: &str) -> Result<Identity, CliError> {
    client.identity(kind.method(), name).await.map_err(|error| missing(error, name))
}

fn missing(error: ClientError, name: &str) -> CliError {
    match &error {
        ClientError::Refused { status, message, .. }
            if *status == StatusCode::NOT_FOUND && message == "Not Found" =>
        {
            CliError::failed(format!("Identity {name:?} not found"))
                .code("not-found")
                .hint("`comity auth identity list` shows the identities that you may see.")
        }
        _ => error.into(),
    }
}

fn table(identities: Vec<Identity>, wanted: &[char]) -> Table {
    let head: Vec<&str> = wanted
        .iter()
        .map(|letter| match letter {
            'a' => "AUTHENTICATION METHOD",
            't' => "TYPE",
            'n' => "NAME",
            'i' => "IDENTIFIER",
            _ => "GROUPS",
        })
        .collect();
    let mut table = Table::with(head);
    for identity in identities {
        let cell = |letter: &char| match letter {
            'a' => identity.authentication_method.clone(),
            't' => identity.kind.clone(),
            'n' => identity.name.clone(),
            'i' => identity.id.clone(),
            _ => identity.groups.join(", "),
        };
        table.push(wanted.iter().map(cell));
    }
    table
}

/// What may be said of an identity; the rest is shown and cannot be changed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Written {
    groups: Vec<String>,
    tls_certificate: Option<String>,
}

const EXPLAINED: &str = "\
### This is a YAML representation of the identity.
### Any line starting with a '# will be ignored.
###
### groups:
### - operators";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_or_a_certificate_that_is_taken_says_what_to_do_with_who_has_it() {
        let identity = |id: &str| Identity {
            authentication_method: "tls".to_owned(),
            kind: types::CLIENT.to_owned(),
            id: id.to_owned(),
            name: "alice".to_owned(),
            groups: Vec::new(),
            tls_certificate: String::new(),
            expires_at: None,
        };
        let hint = |status, fingerprint: &str| {
            let error = ClientError::Refused {
                agent: "east".to_owned(),
                status,
                code: "conflict".to_owned(),
                message: "taken".to_owned(),
                hint: None,
            };
            taken(error, "alice", fingerprint, &["operators".to_owned()], &[identity("aa")]).hint
        };
        let same = hint(StatusCode::CONFLICT, "aa").unwrap();
        assert!(same.contains("`comity auth identity group add tls/alice operators`"), "{same}");
        let other = hint(StatusCode::CONFLICT, "bb").unwrap();
        assert!(other.contains("edit tls/alice") && other.contains("delete tls/alice"), "{other}");
        assert_eq!(hint(StatusCode::FORBIDDEN, "aa"), None);
    }
}
