//! TLS 1.3 for every connection: what a server shows and asks for, and how a client pins.
//!
//! A certificate is known by its hash and nothing else: no names, no roots. So a verifier either pins (clients) or
//! takes any well-formed certificate (servers, which look the hash up again for each request), and always has the
//! handshake's signature checked: without that, showing a certificate would prove nothing. Nothing is resumed, in
//! either role: a resumed session would pass the verifier by, and outlive a revocation.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    OtherError, PeerIncompatible, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::trust::Fingerprint;
use crate::trust::certificate::{self, KeyPair, fingerprint};

/// The protocols of clients' connections: they are shown what clients are to be shown.
pub const ALPN_API: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// HTTP/1.1 for whoever has pinned the cluster's certificate, and so must be shown that one.
pub const ALPN_CLUSTER: &[u8] = b"comity-http/1";

/// Which of a server's certificates a caller wants to be shown. A server that knows no difference shows its only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The cluster's own, which links and remotes pin.
    Cluster,
    /// The one for clients.
    Clients,
}

impl Door {
    /// The protocols of calls by this door: HTTP/1.1 is enough for them.
    pub const fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            Door::Cluster => &[ALPN_CLUSTER, b"http/1.1"],
            Door::Clients => &[b"http/1.1"],
        }
    }
}

/// Whether a server insists on a client certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificate {
    Unasked,
    Requested,
    Required,
}

/// A server showed another certificate than the pinned one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("certificate does not match: expected {expected}, got {got}")]
pub struct PinMismatch {
    pub expected: Fingerprint,
    pub got: Fingerprint,
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(aws_lc_rs::default_provider())).clone()
}

/// What a listener shows for one set of protocols: `shown` is asked at each handshake.
pub fn server_config(
    shown: Arc<dyn ResolvesServerCert>,
    alpn: &[&[u8]],
    client_certificate: ClientCertificate,
) -> Result<Arc<ServerConfig>, certificate::CertificateError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(AnyClient { client_certificate }))
        .with_cert_resolver(shown);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// What a listener shows to one caller whose certificate `judge` looks at, and takes or not. Without one to show, the
/// handshake is refused. Of the protocols that the caller offers, `alpn` is the answer, if any is to be given.
pub fn server_config_judging(
    shown: Option<Arc<CertifiedKey>>,
    alpn: Option<&[u8]>,
    judge: Judge,
) -> Result<Arc<ServerConfig>, certificate::CertificateError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(judged::JudgedClient(judge)))
        .with_cert_resolver(Arc::new(judged::Only(shown)));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// A client that takes the pinned certificate only, and shows `identity` if it is asked.
pub fn client_config_pinned(
    pin: Fingerprint,
    identity: Option<&KeyPair>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, certificate::CertificateError> {
    client_config(Expected::Pinned(pin), identity, alpn)
}

/// A client that takes any certificate, to learn which one a server shows. Nothing secret is to be sent over it.
pub fn client_config_unpinned(alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, certificate::CertificateError> {
    client_config(Expected::Any, None, alpn)
}

fn client_config(
    expected: Expected,
    identity: Option<&KeyPair>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, certificate::CertificateError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(expected));
    let mut config = match identity {
        Some(pair) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair.certified()?))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The name that clients give rustls where there is none: never sent, never looked at.
pub fn server_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into())
}

/// The name of the server at `address` (`host:port`): sent, so that a proxy which tells servers apart by it (LXD's
/// example for HAProxy does) knows whom to hand the connection to. What is shown is judged by its fingerprint alone.
pub fn name_at(address: &str) -> ServerName<'static> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    match ServerName::try_from(host.to_owned()) {
        Ok(name @ ServerName::DnsName(_)) => name,
        _ => server_name(),
    }
}

/// The mismatch that made a handshake fail, if that is what did.
pub fn pin_mismatch(error: &io::Error) -> Option<PinMismatch> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) => {
            cause.downcast_ref::<PinMismatch>().copied()
        }
        _ => None,
    }
}

/// Whether a handshake failed because the other side speaks no TLS 1.3.
pub fn is_old(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
    matches!(
        cause,
        Some(
            Error::AlertReceived(AlertDescription::ProtocolVersion)
                | Error::PeerIncompatible(
                    PeerIncompatible::Tls12NotOffered
                        | PeerIncompatible::Tls12NotOfferedOrEnabled
                        | PeerIncompatible::Tls13RequiredForQuic
                        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                        | PeerIncompatible::SupportedVersionsExtensionRequired
                )
        )
    )
}

/// What verifiers of either side have in common: the handshake's signature is checked by the certificate's key, and there
/// is no TLS 1.2.
macro_rules! tls13_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::General("TLS 1.2 is not spoken".to_owned()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            provider().signature_verification_algorithms.supported_schemes()
        }
    };
}

mod judged;

pub use judged::Judge;

#[derive(Debug)]
enum Expected {
    Pinned(Fingerprint),
    Any,
}

impl ServerCertVerifier for Expected {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let got = fingerprint(end_entity);
        match self {
            Expected::Pinned(expected) if *expected != got => {
                let mismatch = PinMismatch { expected: *expected, got };
                Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(mismatch)))))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    tls13_signatures!();
}

struct AnyClient {
    client_certificate: ClientCertificate,
}

impl fmt::Debug for AnyClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnyClient({:?})", self.client_certificate)
    }
}

impl ClientCertVerifier for AnyClient {
    fn offer_client_auth(&self) -> bool {
        self.client_certificate != ClientCertificate::Unasked
    }

    fn client_auth_mandatory(&self) -> bool {
        self.client_certificate == ClientCertificate::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match x509_parser::parse_x509_certificate(end_entity) {
            Ok(([], _)) => Ok(ClientCertVerified::assertion()),
            _ => Err(Error::InvalidCertificate(CertificateError::BadEncoding)),
        }
    }

    tls13_signatures!();
}
