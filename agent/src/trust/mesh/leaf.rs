//! A service's certificate.

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SubjectPublicKeyInfo,
};
use schema::name::ServiceName;
use time::Duration;

use super::MeshError;
use super::root::{Root, colons, stamp};
use crate::trust::Fingerprint;
use crate::trust::authority::serial::Serial;
use crate::trust::certificate;
use crate::wire::token::Secret;

/// How long a leaf is valid.
pub const LEAF_LIFE: SignedDuration = SignedDuration::from_hours(72);
/// How far its beginning lies in the past, for machines whose clocks are behind.
const BACKDATED: Duration = Duration::minutes(1);

/// A certificate that names a service.
#[derive(Debug, Clone)]
pub struct Leaf {
    pub service: ServiceName,
    pub uri: String,
    /// As colons part it.
    pub serial: String,
    pub certificate_pem: String,
    /// PEM, where the key was made here.
    pub key: Option<Secret>,
    pub valid_after: Timestamp,
    pub valid_before: Timestamp,
    /// The root that signed it.
    pub root: Fingerprint,
    /// Rises with each that is given out.
    pub index: u64,
}

/// Who has the key of a leaf.
#[derive(Clone, Copy)]
pub(super) enum Holder<'a> {
    /// It is made along with the certificate.
    NewKey,
    /// Whoever sent the request, and has proven it.
    Requester(&'a SubjectPublicKeyInfo),
}

impl Leaf {
    /// From when on whoever asks gets another.
    pub fn renewed_at(&self) -> Timestamp {
        self.valid_after + LEAF_LIFE / 2
    }
}

impl Root {
    /// A leaf for `uri`, from now on. `host` is by what it is asked for, where it is to be shown by a server.
    pub(super) fn issue(
        &self,
        uri: String,
        service: &ServiceName,
        host: Option<&str>,
        holder: Holder<'_>,
        now: Timestamp,
    ) -> Result<Leaf, MeshError> {
        let serial = Serial::random();
        let shown = colons(serial.as_bytes());
        let begins = stamp(now)? - BACKDATED;
        let ends = stamp(now + LEAF_LIFE)?.min(stamp(self.not_after)?);
        let mut params = CertificateParams::default();
        params.serial_number = Some(serial.into());
        params.not_before = begins;
        params.not_after = ends;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, service.as_str());
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into()?)];
        if let Some(host) = host {
            params.subject_alt_names.push(SanType::DnsName(host.try_into()?));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.key_identifier_method = KeyIdMethod::Sha256;
        params.use_authority_key_identifier_extension = true;
        let signer = self.signer()?;
        let (certificate, key) = match holder {
            Holder::NewKey => {
                let key = rcgen::KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
                (params.signed_by(&key, signer)?, Some(Secret::new(key.serialize_pem())))
            }
            Holder::Requester(key) => (params.signed_by(key, signer)?, None),
        };
        let at = |time: time::OffsetDateTime| {
            Timestamp::from_second(time.unix_timestamp()).map_err(|_| MeshError::Clock)
        };
        Ok(Leaf {
            service: service.clone(),
            uri,
            serial: shown,
            certificate_pem: certificate::to_pem(certificate.der()),
            key,
            valid_after: at(begins)?,
            valid_before: at(ends)?,
            root: self.fingerprint,
            index: 0,
        })
    }
}
