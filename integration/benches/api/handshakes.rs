//! Full handshakes, each on a connection of its own, with one small request so that the server has judged the
//! client's certificate.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use agent::trust::certificate::KeyPair;
use agent::tunnel::tls;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

const THREADS: usize = 8;
const TIME: Duration = Duration::from_secs(3);
const REQUEST: &[u8] = b"GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

/// What was done.
pub struct Done {
    pub count: f64,
    pub seconds: f64,
    pub agreed: Vec<String>,
}

/// Connects again and again, from several threads.
pub fn run(address: &str, client: &Arc<KeyPair>) -> Done {
    let config = config(client);
    let agreed = once(address, &config);
    let count = AtomicU64::new(0);
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while began.elapsed() < TIME {
                    once(address, &config);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    #[allow(clippy::cast_precision_loss)] // far below what an f64 counts exactly
    let count = count.into_inner() as f64;
    Done { count, seconds: began.elapsed().as_secs_f64(), agreed }
}

fn once(address: &str, config: &Arc<ClientConfig>) -> Vec<String> {
    let tcp = TcpStream::connect(address).expect("the server listens");
    tcp.set_nodelay(true).expect("a socket");
    let connection = ClientConnection::new(config.clone(), tls::server_name()).expect("a client");
    let mut stream = StreamOwned::new(connection, tcp);
    stream.write_all(REQUEST).expect("the server takes a request");
    let mut head = [0; 15];
    stream.read_exact(&mut head).expect("the server answers");
    assert!(head.starts_with(b"HTTP/1.1 404"), "{}", String::from_utf8_lossy(&head));
    let connection = &stream.conn;
    vec![
        format!("{:?}", connection.protocol_version().expect("agreed")),
        format!("{:?}", connection.negotiated_cipher_suite().expect("agreed").suite()),
        format!("{:?}", connection.negotiated_key_exchange_group().expect("agreed").name()),
    ]
}

/// As stock clients of today offer: X25519 alone, AES-128 first.
fn config(client: &KeyPair) -> Arc<ClientConfig> {
    let provider = Arc::new(CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        ..aws_lc_rs::default_provider()
    });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 is there")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(
            client.certified().expect("a usable key"),
        )));
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Arc::new(config)
}

/// Both servers are ours, and what is measured is their side.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

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
        verify_tls13_signature(
            message,
            cert,
            dss,
            &aws_lc_rs::default_provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
