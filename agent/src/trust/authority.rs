//! The cluster's CA, as Flocker has it: `cluster.crt` and `cluster.key`, which stay with the administrator, issue
//! certificates to the agent (`control-service`), to machines (`node-UUID`) and to those who call the API (`user-NAME`).
//!
//! This is the side that issues; what is made of such a certificate is decided elsewhere. Certificates are X.509 v3
//! with a SAN and an extended key usage, valid from ten minutes ago for twenty years. A server is known by the DNS
//! names or the address in its SAN. Nodes and users are clients, whose names nobody dials, so theirs is a URI
//! (`comity:CLUSTER/node/UUID`, `comity:CLUSTER/user/NAME`): it says the same as the subject, in a form that can never
//! be taken for a host's name, and for any name of a user. None may be both server and client, so that a stolen
//! control key calls nobody, and a node's poses as no agent.

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, PublicKeyData, RsaKeySize,
    SanType, SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::x509::{X509Name, X509Version};

use crate::wire::token::Secret;

pub mod file;
pub mod folder;
pub mod revocation;
pub mod serial;
pub mod shown;
pub mod subject;

use serial::Serial;
use subject::{AuthorityName, Host, Role, Subject, SubjectError};

/// How long everything is valid: Flocker's twenty years of 365 days.
const VALID_FOR: Duration = Duration::days(20 * 365);
/// How far the beginning lies in the past, for machines whose clocks are behind.
const BACKDATED: Duration = Duration::minutes(10);

/// The kind of a key that is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    #[default]
    EcdsaP384,
    /// 4096 bits, signing with SHA-256: what Flocker made.
    Rsa,
}

impl Algorithm {
    fn generate(self) -> Result<rcgen::KeyPair, AuthorityError> {
        Ok(match self {
            Algorithm::EcdsaP384 => rcgen::KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?,
            Algorithm::Rsa => rcgen::KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096)?,
        })
    }
}

/// A certificate that was made, with its key if that was made too.
#[derive(Debug)]
pub struct Issued {
    pub certificate: CertificateDer<'static>,
    /// PEM.
    pub key: Option<Secret>,
}

impl Issued {
    /// The certificate in PEM.
    pub fn pem(&self) -> String {
        super::certificate::to_pem(&self.certificate)
    }
}

/// A CA that can issue: its certificate and its key.
pub struct Authority {
    certificate: CertificateDer<'static>,
    name: String,
    cluster: Uuid,
    valid: Valid,
    issuer: Issuer<'static, rcgen::KeyPair>,
}

/// From when until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Valid {
    pub from: Timestamp,
    pub until: Timestamp,
}

/// Why a CA cannot be used, or does not issue.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("it is not a certificate that can be read")]
    Unreadable,
    #[error("it is not a CA's certificate (it has no basicConstraints CA:TRUE)")]
    NoAuthority,
    #[error("its key may not sign certificates and revocation lists (keyUsage)")]
    Usage,
    #[error(
        "it is of X.509 version 1, as flocker-ca made them, which OpenSSL and rustls do not take any more"
    )]
    Version,
    #[error("it does not name a cluster: {0}")]
    Subject(#[from] SubjectError),
    #[error("it does not belong to the key beside it")]
    Mismatch,
    #[error("it expired at {0}, so what it issues would not be taken")]
    Expired(Timestamp),
    #[error("it is valid from {from}, and it is {now} now by this machine's clock")]
    NotYet { from: Timestamp, now: Timestamp },
    #[error("the key is of a kind that this program cannot sign with")]
    Key,
    #[error("it was not issued by this CA")]
    Foreign,
    #[error("it is the CA's own, and a CA does not revoke itself")]
    Own,
    #[error("a time that a certificate cannot hold: is this machine's clock right?")]
    Clock,
    #[error("the certificate could not be made: {0}")]
    Generate(#[from] rcgen::Error),
}

impl Authority {
    /// A new CA, for a cluster that is new with it.
    pub fn create(
        name: &AuthorityName,
        algorithm: Algorithm,
        now: Timestamp,
    ) -> Result<(Self, Issued), AuthorityError> {
        let key = algorithm.generate()?;
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, name.as_str());
        subject.push(DnType::OrganizationalUnitName, Uuid::new_v4().to_string());
        let certificate = own_params(subject, KeyIdMethod::Sha256, now)?.self_signed(&key)?;
        let secret = Secret::new(key.serialize_pem());
        let authority = Self::with_key(certificate.der().clone(), key)?;
        let issued = Issued { certificate: authority.certificate.clone(), key: Some(secret) };
        Ok((authority, issued))
    }

    /// The CA of this certificate and this key.
    pub fn open(
        certificate: CertificateDer<'static>,
        key: &PrivateKeyDer<'_>,
    ) -> Result<Self, AuthorityError> {
        Self::with_key(certificate, rcgen::KeyPair::try_from(key).map_err(|_| AuthorityError::Key)?)
    }

    fn with_key(certificate: CertificateDer<'static>, key: rcgen::KeyPair) -> Result<Self, AuthorityError> {
        let read = parsed(&certificate)?;
        let basic = read.basic_constraints().map_err(|_| AuthorityError::Unreadable)?;
        if !basic.is_some_and(|basic| basic.value.ca) {
            return Err(AuthorityError::NoAuthority);
        }
        let (name, cluster) = subject::parts(read.subject())?;
        let name = name.to_owned();
        if read.public_key().raw != key.subject_public_key_info() {
            return Err(AuthorityError::Mismatch);
        }
        let valid = validity(&read)?;
        // What the issuer is made of keeps one attribute of a kind: a subject with more would be written otherwise.
        if same_name(read.subject())?.iter().count() != read.subject().iter_attributes().count() {
            return Err(AuthorityError::Unreadable);
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { certificate, name, cluster, valid, issuer })
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn cluster(&self) -> Uuid {
        self.cluster
    }

    pub fn valid(&self) -> Valid {
        self.valid
    }

    /// That what it issues now will be taken.
    pub fn check_usable(&self, now: Timestamp) -> Result<(), AuthorityError> {
        let read = parsed(&self.certificate)?;
        if read.version() != X509Version::V3 {
            return Err(AuthorityError::Version);
        }
        let usage = read.key_usage().map_err(|_| AuthorityError::Unreadable)?;
        if !usage.is_none_or(|usage| usage.value.key_cert_sign() && usage.value.crl_sign()) {
            return Err(AuthorityError::Usage);
        }
        if now < self.valid.from {
            return Err(AuthorityError::NotYet { from: self.valid.from, now });
        }
        if now > self.valid.until {
            return Err(AuthorityError::Expired(self.valid.until));
        }
        Ok(())
    }

    /// A control certificate, for clients that dial `host`.
    pub fn issue_control(
        &self,
        host: &Host,
        algorithm: Algorithm,
        now: Timestamp,
    ) -> Result<Issued, AuthorityError> {
        let host = match host {
            Host::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
            Host::Ip(address) => SanType::IpAddress(*address),
        };
        let names = vec![SanType::DnsName(subject::CONTROL.try_into()?), host];
        self.issue_new(&Role::Control, names, algorithm, now)
    }

    /// A client's certificate: of a node, or of a user.
    pub fn issue_client(
        &self,
        role: &Role,
        algorithm: Algorithm,
        now: Timestamp,
    ) -> Result<Issued, AuthorityError> {
        self.issue_new(role, self.client_names(role)?, algorithm, now)
    }

    fn issue_new(
        &self,
        role: &Role,
        names: Vec<SanType>,
        algorithm: Algorithm,
        now: Timestamp,
    ) -> Result<Issued, AuthorityError> {
        let key = algorithm.generate()?;
        let certificate = self.issue(role, names, &key, now)?;
        Ok(Issued { certificate, key: Some(Secret::new(key.serialize_pem())) })
    }

    fn issue(
        &self,
        role: &Role,
        names: Vec<SanType>,
        key: &impl PublicKeyData,
        now: Timestamp,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        self.check_usable(now)?;
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, role.common_name());
        subject.push(DnType::OrganizationalUnitName, self.cluster.to_string());
        let mut params = params(subject, now)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match role {
            Role::Control => ExtendedKeyUsagePurpose::ServerAuth,
            Role::Node(_) | Role::User(_) => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        Ok(params.signed_by(key, &self.issuer)?.into())
    }

    /// What nodes and users have for a SAN.
    fn client_names(&self, role: &Role) -> Result<Vec<SanType>, AuthorityError> {
        let cluster = self.cluster;
        let uri = match role {
            Role::Control => return Ok(Vec::new()),
            Role::Node(node) => format!("comity:{cluster}/node/{node}"),
            Role::User(user) => format!("comity:{cluster}/user/{}", percent_encoded(user.as_str())),
        };
        Ok(vec![SanType::URI(uri.as_str().try_into()?)])
    }

    /// A certificate that this CA issued, once more: the same subject, names and key (unless a new one is asked for), a
    /// new serial number and time. The key itself is not needed for that.
    pub fn renew(
        &self,
        old: &[u8],
        new_key: Option<Algorithm>,
        now: Timestamp,
    ) -> Result<Issued, AuthorityError> {
        let read = parsed(old)?;
        self.check_issued(&read)?;
        let role = Subject::of(read.subject())?.role;
        let names = match role {
            Role::Control => control_names(&read)?,
            Role::Node(_) | Role::User(_) => self.client_names(&role)?,
        };
        if let Some(algorithm) = new_key {
            return self.issue_new(&role, names, algorithm, now);
        }
        let key = SubjectPublicKeyInfo::from_der(read.public_key().raw)?;
        Ok(Issued { certificate: self.issue(&role, names, &key, now)?, key: None })
    }

    /// This CA's own certificate, once more: the same subject, key and key identifier, so that all it issued is still
    /// taken where the new one is put.
    pub fn renew_own(&self, now: Timestamp) -> Result<Issued, AuthorityError> {
        let read = parsed(&self.certificate)?;
        let identifier = read.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0.to_vec()),
            _ => None,
        });
        let method = identifier.map_or(KeyIdMethod::Sha256, KeyIdMethod::PreSpecified);
        let params = own_params(same_name(read.subject())?, method, now)?;
        let certificate: CertificateDer<'static> = params.self_signed(self.issuer.key())?.into();
        if parsed(&certificate)?.subject().as_raw() != read.subject().as_raw() {
            return Err(SubjectError::NoUuid.into());
        }
        Ok(Issued { certificate, key: None })
    }

    /// That this CA issued a certificate, and that it is not its own.
    pub fn check_issued(&self, certificate: &X509Certificate<'_>) -> Result<(), AuthorityError> {
        let own = parsed(&self.certificate)?;
        if certificate.public_key().raw == own.public_key().raw {
            return Err(AuthorityError::Own);
        }
        if is_issued_by(certificate, &own) { Ok(()) } else { Err(AuthorityError::Foreign) }
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, rcgen::KeyPair> {
        &self.issuer
    }
}

/// The key is never shown.
impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({:?}, {})", self.name, self.cluster)
    }
}

/// Whether the key of `authority` signed a certificate, in its name.
pub fn is_issued_by(certificate: &X509Certificate<'_>, authority: &X509Certificate<'_>) -> bool {
    certificate.issuer().as_raw() == authority.subject().as_raw()
        && certificate.verify_signature(Some(authority.public_key())).is_ok()
}

/// A certificate's parts.
pub fn parsed(der: &[u8]) -> Result<X509Certificate<'_>, AuthorityError> {
    match x509_parser::parse_x509_certificate(der) {
        Ok((&[], certificate)) => Ok(certificate),
        _ => Err(AuthorityError::Unreadable),
    }
}

/// From when until when a certificate is valid.
pub fn validity(certificate: &X509Certificate<'_>) -> Result<Valid, AuthorityError> {
    let at = |time: x509_parser::time::ASN1Time| {
        Timestamp::from_second(time.timestamp()).map_err(|_| AuthorityError::Unreadable)
    };
    let validity = certificate.validity();
    Ok(Valid { from: at(validity.not_before)?, until: at(validity.not_after)? })
}

/// A time as certificates have it.
fn stamp(now: Timestamp) -> Result<OffsetDateTime, AuthorityError> {
    OffsetDateTime::from_unix_timestamp(now.as_second()).map_err(|_| AuthorityError::Clock)
}

/// What all certificates here have in common.
fn params(subject: DistinguishedName, now: Timestamp) -> Result<CertificateParams, AuthorityError> {
    let from = stamp(now)? - BACKDATED;
    let mut params = CertificateParams::default();
    params.serial_number = Some(Serial::random().into());
    params.not_before = from;
    params.not_after = from.checked_add(VALID_FOR).ok_or(AuthorityError::Clock)?;
    params.distinguished_name = subject;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn own_params(
    subject: DistinguishedName,
    identifier: KeyIdMethod,
    now: Timestamp,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = params(subject, now)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.key_identifier_method = identifier;
    Ok(params)
}

/// A subject as it will be encoded again to the same bytes: chains are compared by them.
fn same_name(name: &X509Name<'_>) -> Result<DistinguishedName, AuthorityError> {
    use x509_parser::der_parser::asn1_rs::Tag;
    let mut same = DistinguishedName::new();
    for attribute in name.iter_attributes() {
        let text = attribute.as_str().map_err(|_| AuthorityError::Unreadable)?;
        let kind: Vec<u64> = attribute.attr_type().iter().ok_or(AuthorityError::Unreadable)?.collect();
        let value = match attribute.attr_value().header.tag() {
            Tag::PrintableString => DnValue::PrintableString(text.try_into()?),
            Tag::Ia5String => DnValue::Ia5String(text.try_into()?),
            _ => DnValue::Utf8String(text.to_owned()),
        };
        same.push(DnType::from_oid(&kind), value);
    }
    Ok(same)
}

/// The names and addresses of a server, as they are.
fn control_names(certificate: &X509Certificate<'_>) -> Result<Vec<SanType>, AuthorityError> {
    let names = certificate.subject_alternative_name().map_err(|_| AuthorityError::Unreadable)?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let mut kept = Vec::with_capacity(names.len());
    for name in names {
        match name {
            GeneralName::DNSName(name) => kept.push(SanType::DnsName((*name).try_into()?)),
            GeneralName::IPAddress(bytes) => {
                kept.push(SanType::IpAddress(shown::address(bytes).ok_or(AuthorityError::Unreadable)?));
            }
            _ => return Err(AuthorityError::Unreadable),
        }
    }
    Ok(kept)
}

/// A name as part of a URI.
fn percent_encoded(name: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
