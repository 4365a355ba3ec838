//! Whether the certificate that a server shows is the right one: an authority vouches, or somebody says so.

use jiff::Timestamp;

use super::super::super::{CliError, Context};
use crate::client::FirstContact;
use crate::client::vouch::{Authorities, Doubt};
use crate::trust::Fingerprint;

/// Settles it, or fails. `address` is what was asked for, HOST:PORT.
pub fn certificate(
    context: &Context,
    authorities: &Authorities,
    shown: &FirstContact,
    address: &str,
) -> Result<(), CliError> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match authorities.judge(shown, host, Timestamp::now()) {
        Ok(()) => return Ok(()),
        // Most certificates of clusters are signed by nobody else, and no authority was named.
        Err(Doubt::Unknown(_)) if !authorities.are_named() => {}
        Err(doubt) => context.output.note(format!("Nobody vouches for the certificate: {doubt}.")),
    }
    accept(context, shown.fingerprint)
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
