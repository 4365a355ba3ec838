//! `comity remote add`: makes a cluster known here, and this client known there.
//!
//! The certificate is settled before anything secret is sent: a token carries its fingerprint, an authority may vouch
//! for it, or the person at the terminal is asked. Nothing is written before the cluster trusts us, so a failure leaves
//! no half of a remote behind.

use std::time::Duration;

use rustls_pki_types::CertificateDer;
use schema::name::{ProjectName, RemoteName};

use super::super::remotes::{AuthType, Protocol, Remote};
use super::super::{CliError, Context, ExitCode};
use super::logged_in;
use crate::client::login::Kept;
use crate::client::{Client, ClientError, FirstContact, first_contact};
use crate::trust::Fingerprint;
use crate::trust::certificate::{fingerprint, from_pem, to_pem};
use crate::tunnel::tls::Door;
use crate::wire::lxd::server::ServerInfo;
use crate::wire::token::{TYPE_CLUSTER_LINK, TokenError, TrustToken};

mod asked;
mod settle;

pub use asked::Args;
pub(super) use asked::address;
use asked::{Asked, Wanted, Where, undecodable};

/// For one call: addresses are raced within it.
const PATIENCE: Duration = Duration::from_secs(15);

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let asked = args.understood()?;
    let called = &asked.called;
    context.folder.load()?.vacant(called, &context.local_url()).map_err(|error| {
        CliError::failed(error).code("remotes").hint("Give another name, or remove that remote first.")
    })?;
    let trust = match &asked.at {
        Where::Token { text, token, address } => {
            by_token(context, &asked, text, token, address.clone()).await
        }
        Where::Address(address) => by_address(context, &asked, address).await,
    }?;
    if !context.output.quiet() {
        context.output.line(match trust {
            Trust::Fresh => format!("Client certificate now trusted by server: {called}"),
            Trust::Before => format!("Client certificate was trusted already by server: {called}"),
            Trust::LoggedIn { user } => format!("Logged in to {called} as {user}"),
            Trust::Public => format!("Public remote added: {called}"),
        });
    }
    Ok(ExitCode::Done)
}

/// How this client came to be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trust {
    Fresh,
    /// Without the token that was given, if one was.
    Before,
    LoggedIn {
        user: String,
    },
    /// Not at all.
    Public,
}

/// What is to be written down once the cluster trusts us.
struct Found<'a> {
    addresses: Vec<String>,
    auth_type: AuthType,
    login: Option<Kept>,
    /// What clients are shown there.
    pin: Fingerprint,
    shown: Option<&'a FirstContact>,
}

/// With a token, which says what certificate to expect. `at` goes before the addresses that it names.
async fn by_token(
    context: &Context,
    asked: &Asked,
    text: &str,
    token: &TrustToken,
    at: Option<String>,
) -> Result<Trust, CliError> {
    for_a_client(token)?;
    let pin: Fingerprint = token.fingerprint.parse().map_err(|_| undecodable(TokenError::NoFingerprint))?;
    let addresses = at.map_or_else(|| token.addresses.clone(), |address| vec![address]);
    let mut client = client(context, &asked.called, &addresses, pin)?.following(|_| {});
    let mut redeemed = redeem(&client, text).await;
    if matches!(redeemed, Err(ClientError::Mismatch { .. })) {
        // Nothing was sent. It names the certificate that clients are shown, where that is not the cluster's.
        let by_clients_door = client.clone().by_clients_door();
        let again = redeem(&by_clients_door, text).await;
        if !matches!(again, Err(ClientError::Mismatch { .. })) {
            (client, redeemed) = (by_clients_door, again);
        }
    }
    let trust = redeemed.map_err(|error| match error {
        ClientError::Mismatch { expected, got, .. } => {
            let server = addresses.first().map_or("", String::as_str);
            CliError::failed(format!(
                "Certificate fingerprint mismatch between certificate token and server \"https://{server}\": expected {expected}, got {got}"
            ))
            .code("wrong-certificate")
            .hint("The token was not sent. It is from another cluster, or something else answers in its place.")
        }
        ClientError::Unreachable { .. } => CliError::from(error)
            .hint("The token names these addresses. Is the agent running, and do they lead to it from here? Another one can be given: `comity remote add NAME ADDRESS --token TOKEN`."),
        ClientError::Refused { hint: None, .. } => CliError::from(error)
            .hint("The token may have been used, revoked or never issued; one works once and for a limited time. `comity trust add` there makes another."),
        error => error.into(),
    })?;
    // A token that was given out before the cluster renewed its certificate names the one before.
    let pin = client.pin().unwrap_or(pin);
    let found = Found { addresses, auth_type: AuthType::Tls, login: None, pin, shown: None };
    keep(context, asked, found, &client).await?;
    Ok(trust)
}

/// One for a link would make this client the other cluster, and leave that without it.
fn for_a_client(token: &TrustToken) -> Result<(), CliError> {
    if token.kind != TYPE_CLUSTER_LINK {
        return Ok(());
    }
    Err(CliError::failed("This trust token is for a cluster link, not for a client").code("other-kind").hint(
        "`comity link create NAME --token TOKEN` on the other cluster redeems it; `comity trust add` makes one for a client.",
    ))
}

/// With an address, whose certificate has to be looked at first.
async fn by_address(context: &Context, asked: &Asked, address: &str) -> Result<Trust, CliError> {
    let authorities = context.folder.authorities()?;
    let shown = first_contact(address, Door::Clients).await?;
    if !asked.accept_certificate {
        settle::certificate(context, &authorities, &shown, address)?;
    }
    let pin = shown.fingerprint;
    let nobody = Client::pinned(asked.called.as_str(), vec![address.to_owned()], pin, None)
        .with_timeout(PATIENCE)
        .by_clients_door();
    let found = |auth_type, login| Found {
        addresses: vec![address.to_owned()],
        auth_type,
        login,
        pin,
        shown: Some(&shown),
    };
    let server = nobody.server().await?;
    if asked.wanted == Wanted::Public || server.public {
        keep(context, asked, found(AuthType::None, None), &nobody).await?;
        return Ok(Trust::Public);
    }
    let offers = |method: &str| server.auth_methods.iter().any(|offered| offered == method);
    let unsupported = |method: &str| {
        CliError::failed(format!("Authentication type '{method}' not supported by server"))
            .code("no-such-auth-type")
            .hint(format!("The server offers: {}.", server.auth_methods.join(", ")))
    };
    if asked.wanted == Wanted::Tls && !offers("tls") && !server.auth_methods.is_empty() {
        return Err(unsupported("tls"));
    }
    // A certificate that is trusted already goes before a login: nobody has to open a browser for it.
    let known = match asked.wanted {
        Wanted::Login => false,
        Wanted::Either if offers("oidc") && !context.folder.has_client() => false,
        _ => {
            let client = client(context, &asked.called, &[address.to_owned()], pin)?.by_clients_door();
            let trusted = client.server().await?.auth == "trusted";
            if trusted {
                keep(context, asked, found(AuthType::Tls, None), &client).await?;
            }
            trusted
        }
    };
    if known {
        return Ok(Trust::Before);
    }
    let logs_in = asked.wanted == Wanted::Login || (asked.wanted == Wanted::Either && offers("oidc"));
    if logs_in {
        if !offers("oidc") {
            return Err(unsupported("oidc").hint("The provider may be away at the moment: `comity server show` there and its log tell. Otherwise its administrator sets oidc.issuer, oidc.client.id and oidc.device.client.id."));
        }
        let login = logged_in(&asked.called, &nobody).await.map_err(not_added)?;
        keep(context, asked, found(AuthType::Oidc, Some(login.shelf.kept())), &login.client).await?;
        super::tell_of_rights(context, &asked.called, &login).await;
        return Ok(Trust::LoggedIn { user: login.user });
    }
    let text = context.output.secret(&format!("Trust token for {}: ", asked.called))?;
    let token = TrustToken::decode(&text).map_err(undecodable)?;
    for_a_client(&token)?;
    if token.fingerprint.parse() != Ok(pin) {
        return Err(CliError::failed(format!(
            "Certificate fingerprint mismatch between certificate token and server \"https://{address}\""
        ))
        .code("wrong-certificate")
        .hint(
            "The token was not sent. It is from another cluster, or something else answers in its place.",
        ));
    }
    let client = client(context, &asked.called, &[address.to_owned()], pin)?.by_clients_door();
    let trust = redeem(&client, &text).await?;
    keep(context, asked, found(AuthType::Tls, None), &client).await?;
    Ok(trust)
}

/// A login that failed, of a remote that is not there: what helps other logins cannot name it.
fn not_added(error: ClientError) -> CliError {
    let hint = match &error {
        ClientError::Login { error, .. } => error.hint(None),
        _ => return error.into(),
    };
    CliError { hint, ..CliError::from(error) }
}

fn client(
    context: &Context,
    called: &RemoteName,
    addresses: &[String],
    pin: Fingerprint,
) -> Result<Client, CliError> {
    if !context.folder.has_client() {
        context.output.note("Generating a client certificate.");
    }
    let identity = context.folder.client()?;
    Ok(Client::pinned(called.as_str(), addresses.to_vec(), pin, Some(identity)).with_timeout(PATIENCE))
}

/// The one call that sends the secret: over a connection whose certificate is the pinned one.
async fn redeem(client: &Client, text: &str) -> Result<Trust, ClientError> {
    match client.redeem_token(text.trim()).await {
        Ok(()) => Ok(Trust::Fresh),
        // Trusted already, by an earlier token: what was asked for is so.
        Err(ClientError::Refused { status, .. }) if status == http::StatusCode::CONFLICT => Ok(Trust::Before),
        Err(error) => Err(error),
    }
}

/// Writes the remote down, once the cluster trusts us. What is pinned is the certificate of the cluster, which stays
/// when the one for clients is renewed; a server that makes no difference is pinned as it is.
async fn keep(context: &Context, asked: &Asked, found: Found<'_>, client: &Client) -> Result<(), CliError> {
    let server = client.server().await?;
    if found.auth_type != AuthType::None && server.auth != "trusted" {
        return Err(CliError::failed("Server does not trust us after authentication").code("not-trusted"));
    }
    let ours = client.cluster_certificate().await?;
    let protocol = if ours.is_some() { Protocol::Comity } else { Protocol::Lxd };
    let certificate = match ours {
        Some(certificate) => certificate,
        None => told(&server, &found)?,
    };
    let project = project(context, client).await?;
    let remote = Remote { addresses: found.addresses, auth_type: found.auth_type, protocol, project };
    let (pem, local) = (to_pem(&certificate), context.local_agent());
    context.folder.add(&asked.called, remote, &pem, found.login.as_ref(), &local)?;
    Ok(())
}

/// The certificate of a server that has only one, as it was shown or as the server tells it.
fn told(server: &ServerInfo, found: &Found<'_>) -> Result<CertificateDer<'static>, CliError> {
    if let Some(shown) = found.shown {
        return Ok(shown.certificate.clone());
    }
    let told = server.environment.as_ref().and_then(|environment| from_pem(&environment.certificate));
    told.filter(|certificate| fingerprint(certificate) == found.pin).ok_or_else(|| {
        CliError::failed("the server tells of another certificate than the one it shows")
            .code("wrong-certificate")
    })
}

/// The project that was asked for, if it can be seen there.
async fn project(context: &Context, client: &Client) -> Result<Option<ProjectName>, CliError> {
    let Some(project) = context.project() else { return Ok(None) };
    match client.project(project.as_str()).await {
        Ok(_) => Ok(Some(project.clone())),
        Err(error) => {
            let failed = CliError::failed(format!("Failed to find project {project}: {error}"));
            Err(failed.code("no-such-project").hint(
                "Nothing was kept, but the server may know this client now. Run the command again without --project, or with one that it lets you see.",
            ))
        }
    }
}
