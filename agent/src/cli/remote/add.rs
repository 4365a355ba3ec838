//! `comity remote add`: makes a cluster known here, and this client known there.
//!
//! The certificate is settled before anything secret is sent: a token carries its fingerprint, and without a token
//! the person at the terminal is asked. Nothing is written before the cluster trusts us, so a failure leaves no
//! half of a remote behind.

use std::time::Duration;

use schema::name::RemoteName;

use super::super::context::name;
use super::super::remotes::{DEFAULT_PORT, Remote};
use super::super::{CliError, Context, ExitCode};
use crate::client::{Client, ClientError, first_contact};
use crate::trust::Fingerprint;
use crate::trust::certificate::{fingerprint, from_pem, to_pem};
use crate::tunnel::tls::Door;
use crate::wire::token::{TYPE_CLUSTER_LINK, TokenError, TrustToken};

/// For one call: addresses are raced within it.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to call it here.
    name: String,
    /// A trust token, or where it is reached: HOST or HOST:PORT.
    token_or_address: String,
    /// The trust token, where an address is given.
    #[arg(long, visible_alias = "password")]
    token: Option<String>,
    /// Take the certificate that the address shows, without being asked.
    #[arg(long)]
    accept_certificate: bool,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let called: RemoteName = name("NAME", &args.name)?;
    context.folder.load()?.vacant(&called, &context.local_url()).map_err(|error| {
        CliError::failed(error).code("remotes").hint("Give another name, or remove that remote first.")
    })?;
    let trust = match TrustToken::decode(&args.token_or_address) {
        Ok(_) if args.token.is_some() => Err(CliError::usage("two trust tokens were given")),
        Ok(_) if args.accept_certificate => Err(CliError::usage(
            "The --accept-certificate flag is not supported when adding a remote using a trust token",
        )),
        Ok(token) => by_token(context, &called, &args.token_or_address, token, None).await,
        Err(error) if !is_address(&args.token_or_address) => Err(undecodable(error)),
        Err(_) => by_address(context, &called, args).await,
    }?;
    if !context.output.quiet() {
        context.output.line(match trust {
            Trust::Fresh => format!("Client certificate now trusted by server: {called}"),
            Trust::Before => format!("Client certificate was trusted already by server: {called}"),
        });
    }
    Ok(ExitCode::Done)
}

/// How this client came to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    Fresh,
    /// Without the token that was given, if one was.
    Before,
}

/// With a token, which says what certificate to expect. `at` goes before the addresses that it names.
async fn by_token(
    context: &Context,
    called: &RemoteName,
    text: &str,
    token: TrustToken,
    at: Option<String>,
) -> Result<Trust, CliError> {
    for_a_client(&token)?;
    let pin: Fingerprint = token.fingerprint.parse().map_err(|_| undecodable(TokenError::NoFingerprint))?;
    let addresses = at.map_or(token.addresses, |address| vec![address]);
    let mut client = client(context, called, &addresses, pin)?.following(|_| {});
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
    keep(context, called, addresses, pin, &client).await?;
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
async fn by_address(context: &Context, called: &RemoteName, args: Args) -> Result<Trust, CliError> {
    let address = address(&args.token_or_address)?;
    if let Some(text) = args.token {
        let token = TrustToken::decode(&text).map_err(undecodable)?;
        if args.accept_certificate {
            return Err(CliError::usage(
                "The --accept-certificate flag is not supported when adding a remote using a trust token",
            ));
        }
        return by_token(context, called, &text, token, Some(address)).await;
    }
    let pin = first_contact(&address, Door::Clients).await?.fingerprint;
    if !args.accept_certificate {
        accept(context, pin)?;
    }
    let client = client(context, called, std::slice::from_ref(&address), pin)?.by_clients_door();
    let trust = if trusts_us(&client).await? {
        Trust::Before
    } else {
        let text = context.output.secret(&format!("Trust token for {called}: "))?;
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
        redeem(&client, &text).await?
    };
    keep(context, called, vec![address], pin, &client).await?;
    Ok(trust)
}

/// Asks whether the certificate is the right one: `y`, `n`, or its fingerprint typed in.
fn accept(context: &Context, pin: Fingerprint) -> Result<(), CliError> {
    let refused = || CliError::failed("Server certificate NACKed by user").code("certificate-refused");
    context.output.note(format!("Certificate fingerprint: {pin}"));
    let mut question = "ok (y/n/[fingerprint])? ";
    loop {
        match context.output.ask(question)?.to_lowercase().as_str() {
            "y" | "yes" => return Ok(()),
            "" | "n" | "no" => return Err(refused().hint("Compare it with the fingerprint that `comity status` shows there, or use a trust token, which carries it.")),
            typed if typed.parse() == Ok(pin) => return Ok(()),
            typed if typed.len() == 64 => {
                return Err(CliError::failed("The provided fingerprint does not match the server certificate fingerprint")
                    .code("certificate-refused"));
            }
            _ => question = "Please type 'y', 'n' or the fingerprint: ",
        }
    }
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

async fn trusts_us(client: &Client) -> Result<bool, ClientError> {
    Ok(client.server().await?.auth == "trusted")
}

/// Writes the remote down, once the cluster trusts us. What is pinned is the certificate of the cluster, which stays
/// when the one for clients is renewed; a server that makes no difference is pinned as it is.
async fn keep(
    context: &Context,
    called: &RemoteName,
    addresses: Vec<String>,
    pin: Fingerprint,
    client: &Client,
) -> Result<(), CliError> {
    let server = client.server().await?;
    if server.auth != "trusted" {
        return Err(CliError::failed("Server does not trust us after authentication").code("not-trusted"));
    }
    let certificate = if let Some(certificate) = client.cluster_certificate().await? {
        certificate
    } else {
        let told = server.environment.as_ref().and_then(|environment| from_pem(&environment.certificate));
        told.filter(|certificate| fingerprint(certificate) == pin).ok_or_else(|| {
            CliError::failed("the server tells of another certificate than the one it shows")
                .code("wrong-certificate")
        })?
    };
    context.folder.add(called, Remote { addresses }, &to_pem(&certificate), &context.local_url())?;
    Ok(())
}

fn undecodable(error: TokenError) -> CliError {
    CliError::failed(format!("Failed decoding trust token: {error}"))
        .code("bad-token")
        .hint("Copy the whole line that `comity trust add` printed, or make a new token.")
}

/// Whether a text that is no token may be an address: a token has no dot and no colon, and is longer than a name.
fn is_address(text: &str) -> bool {
    text.contains(['.', ':']) || text.len() <= schema::name::MAX_NAME
}

/// `HOST:PORT` from what people type: with or without a port, with or without `https://`.
pub(super) fn address(text: &str) -> Result<String, CliError> {
    let wrong = || {
        CliError::usage("that is neither a trust token nor an address")
            .hint("An address is HOST or HOST:PORT; a token is what `comity trust add` prints.")
    };
    let text = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
    if let Ok(ip) = text.parse::<std::net::IpAddr>() {
        return Ok(std::net::SocketAddr::from((ip, DEFAULT_PORT)).to_string());
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().map_err(|_| wrong())?),
        None => (text, DEFAULT_PORT),
    };
    let of_a_host = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
    if host.is_empty() || port == 0 || !host.chars().all(of_a_host) {
        return Err(wrong());
    }
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_people_type_them() {
        for (typed, meant) in [
            ("10.0.0.1", "10.0.0.1:8443"),
            ("10.0.0.1:9443", "10.0.0.1:9443"),
            ("https://east.example:8443/", "east.example:8443"),
            ("east", "east:8443"),
            ("::1", "[::1]:8443"),
            ("[::1]:9443", "[::1]:9443"),
        ] {
            assert_eq!(address(typed).unwrap(), meant);
        }
        for wrong in ["", "http://east", "east:0", "east:port", "a b"] {
            assert_eq!(address(wrong).unwrap_err().exit, ExitCode::Usage, "{wrong}");
        }
    }

    #[test]
    fn half_a_token_is_not_taken_for_an_address() {
        let half = "eyJjbGllbnRfbmFtZSI6ImxhcHRvcCIsImZpbmdlcnByaW50IjoiMDAxMTIyMzM0NDU1NjY3Nzg4OTkiLCJhZ";
        assert!(!is_address(half) && is_address("east.example") && is_address("east"));
    }
}
