//! Those who speak for themselves: a service's certificate, given by an agent or made by whoever has its root's key, and a
//! connection that is made with one.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use time::OffsetDateTime;

use crate::certificate::write_secret;
use crate::http::Tls;
use crate::wait::LIMIT;
use crate::{Agent, Consul};

/// A certificate with its key, both PEM.
#[derive(Debug, Clone)]
pub struct Leaf {
    pub certificate: String,
    pub key: String,
}

impl Leaf {
    /// What an agent gives to a service.
    #[track_caller]
    pub fn given(agent: &Agent, service: &str) -> Self {
        let path = format!("/v1/agent/connect/ca/leaf/{service}");
        let leaf = Consul::socket(agent).get(&path).expect(200).json();
        Self { certificate: text(&leaf, "CertPEM"), key: text(&leaf, "PrivateKeyPEM") }
    }

    /// Both in one file, as HAProxy reads them, which openssl takes for either.
    pub fn write(&self, folder: &Path, stem: &str) -> PathBuf {
        let path = folder.join(format!("{stem}.pem"));
        write_secret(&path, &format!("{}{}", self.certificate, self.key));
        path
    }
}

/// The mesh CA of a cluster, with the key that signs.
pub struct MeshRoot {
    /// Every root, PEM.
    pub roots: String,
    pub domain: String,
    cluster: String,
    issuer: Issuer<'static, KeyPair>,
}

impl MeshRoot {
    /// The one that signs, as whoever may read the agent's data folder has it.
    #[track_caller]
    pub fn of(agent: &Agent) -> Self {
        let shown = Consul::socket(agent).get("/v1/connect/ca/roots").expect(200).json();
        let active =
            shown["Roots"].as_array().and_then(|roots| roots.iter().position(|root| root["Active"] == true));
        Self::all(agent).swap_remove(active.expect("a root signs"))
    }

    /// All that there are, oldest first.
    #[track_caller]
    pub fn all(agent: &Agent) -> Vec<Self> {
        let consul = Consul::socket(agent);
        let shown = consul.get("/v1/connect/ca/roots").expect(200).json();
        let roots = consul.get("/v1/connect/ca/roots?pem=true").expect(200).text();
        let root = |root: &Value| {
            let der =
                CertificateDer::from_pem_slice(text(root, "RootCert").as_bytes()).expect("a certificate");
            let fingerprint = agent::trust::certificate::fingerprint(&der);
            let path = agent.data_dir().join("mesh-ca").join(format!("{fingerprint}.key"));
            let key = std::fs::read_to_string(path).expect("the root's key");
            let key = KeyPair::from_pem(&key).expect("a key");
            let issuer = Issuer::from_ca_cert_der(&der, key).expect("a root signs");
            let (domain, cluster) = (text(&shown, "TrustDomain"), agent.name().to_owned());
            Self { roots: roots.clone(), domain, cluster, issuer }
        };
        shown["Roots"].as_array().into_iter().flatten().map(root).collect()
    }

    /// The name in a service's certificate.
    pub fn uri(&self, service: &str) -> String {
        format!("spiffe://{}/ns/default/dc/{}/svc/{service}", self.domain, self.cluster)
    }

    /// The name by which a service of the cluster is asked for.
    pub fn host(&self, service: &str) -> String {
        format!("{service}.default.{}.internal.{}", self.cluster, self.domain)
    }

    /// A leaf of this root, however odd it is.
    pub fn sign(&self, params: &CertificateParams) -> Leaf {
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate can be made");
        Leaf { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A good leaf that is valid for `lasts` from now on, in whole seconds.
    pub fn leaf(&self, service: &str, lasts: time::Duration) -> Leaf {
        let mut params = params(&[self.uri(service)]);
        params.not_after = OffsetDateTime::now_utc() + lasts;
        self.sign(&params)
    }
}

/// What a good leaf of these URIs says, to be spoilt.
pub fn params(uris: &[String]) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) =
        (now - time::Duration::minutes(1), now + time::Duration::hours(1));
    let uri = |uri: &String| SanType::URI(uri.as_str().try_into().expect("a URI is ASCII"));
    params.subject_alt_names = uris.iter().map(uri).collect();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.is_ca = IsCa::ExplicitNoCa;
    params
}

/// A connection to an agent's port with `leaf`, where the agent has to show what `roots` vouch for as `host`.
pub fn dial(agent: &Agent, host: &str, roots: &str, leaf: Option<&Leaf>) -> io::Result<Tls> {
    let mut trusted = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        trusted.add(root.expect("a certificate")).expect("a root");
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .with_root_certificates(trusted);
    let config = match leaf {
        Some(leaf) => {
            let chain = CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).expect("a certificate");
            let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).expect("a key");
            builder.with_client_auth_cert(vec![chain], key).expect("a pair")
        }
        None => builder.with_no_client_auth(),
    };
    let name = ServerName::try_from(host.to_owned()).expect("a host's name");
    let client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let socket = TcpStream::connect(agent.address())?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(LIMIT))?;
    Ok(StreamOwned::new(client, socket))
}

/// Sends a few bytes to a server that sends them back.
pub fn echoes(tls: &mut Tls) -> io::Result<()> {
    tls.write_all(b"ping")?;
    let mut answer = [0; 4];
    tls.read_exact(&mut answer)?;
    if &answer == b"ping" { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// How long it takes until the connection is cut; and it must be cut, and not ended in order, before `limit`.
#[track_caller]
pub fn cut_after(tls: &mut Tls, limit: Duration) -> Duration {
    let began = Instant::now();
    tls.sock.set_read_timeout(Some(limit)).expect("a timeout");
    match tls.read(&mut [0; 16]) {
        Ok(read) => panic!("{read} bytes where a reset was due"),
        Err(error) => assert!(
            !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
            "still open after {limit:?}"
        ),
    }
    began.elapsed()
}

#[track_caller]
fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}")).to_owned()
}
