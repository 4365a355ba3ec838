//! The certificate that an address shows, before there is any trust in it.

use rustls_pki_types::CertificateDer;

use super::super::CliError;
use crate::trust::Fingerprint;
use crate::tunnel::connect::{AttemptError, connect, race};
use crate::tunnel::tls::{ALPN_API, client_config_pinned, client_config_unpinned};

/// What is expected of the certificate.
#[derive(Debug, Clone, Copy)]
pub enum Expected {
    /// It is going to be looked at by someone.
    Any,
    Pinned(Fingerprint),
}

/// Shakes hands with the first of `addresses` that answers, and takes the certificate. Nothing is sent.
pub async fn shown_at(addresses: &[String], expected: Expected) -> Result<CertificateDer<'static>, CliError> {
    let config = match expected {
        Expected::Any => client_config_unpinned(&ALPN_API),
        Expected::Pinned(pin) => client_config_pinned(pin, None, &ALPN_API),
    }
    .map_err(CliError::failed)?;
    let shown = race(addresses, |address: String| {
        let config = config.clone();
        async move {
            let stream = connect(&address, config).await?;
            let certificates = stream.get_ref().1.peer_certificates();
            let leaf = certificates.and_then(<[_]>::first);
            leaf.map(|leaf| leaf.clone().into_owned())
                .ok_or_else(|| AttemptError::Tls("the server showed no certificate".to_owned()))
        }
    });
    shown.await.map_err(|error| {
        CliError::failed(format!("no certificate could be had: {error}"))
            .code("not-reachable")
            .hint("Is the agent running there, and does the address lead to it from here?")
    })
}
