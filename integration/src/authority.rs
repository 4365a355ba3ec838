//! An authority of a test's own: it signs clients and revocation lists, as an administrator's would.

use std::path::Path;
use std::sync::Arc;

use agent::trust::certificate::KeyPair;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use crate::Agent;

/// Who signs.
pub struct Authority {
    issuer: CertifiedIssuer<'static, rcgen::KeyPair>,
    unit: Option<String>,
}

impl Authority {
    /// One called `name`, for a year.
    pub fn new(name: &str) -> Self {
        Self::timed(name, Duration::days(-1), Duration::days(365))
    }

    /// One that is valid from now plus `begins` until now plus `ends`.
    pub fn timed(name: &str, begins: Duration, ends: Duration) -> Self {
        Self::make(name, None, begins, ends)
    }

    /// A cluster's own, as `comity ca initialize` makes one: its organizational unit is the cluster.
    pub fn of_cluster(name: &str, cluster: &str) -> Self {
        Self::make(name, Some(cluster), Duration::days(-1), Duration::days(365))
    }

    fn make(name: &str, unit: Option<&str>, begins: Duration, ends: Duration) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(name, unit);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now + begins, now + ends);
        let key = rcgen::KeyPair::generate().expect("a key can be made");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate can be made");
        Self { issuer, unit: unit.map(str::to_owned) }
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A client's pair with this common name and number.
    pub fn client(&self, name: &str, number: u64) -> Arc<KeyPair> {
        self.client_in(tempfile::tempdir().expect("a temporary folder").path(), name, number)
    }

    /// The same, as `DIR/client.crt` and `DIR/client.key`.
    pub fn client_in(&self, dir: &Path, name: &str, number: u64) -> Arc<KeyPair> {
        self.timed_client(dir, name, number, Duration::minutes(-10), Duration::days(30))
    }

    /// The same, valid from now plus `begins` until now plus `ends`.
    pub fn timed_client(
        &self,
        dir: &Path,
        name: &str,
        number: u64,
        begins: Duration,
        ends: Duration,
    ) -> Arc<KeyPair> {
        let key = rcgen::KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(name, self.unit.as_deref());
        params.serial_number = Some(SerialNumber::from(number));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now + begins, now + ends);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate can be made");
        let (crt, pem) = (dir.join("client.crt"), dir.join("client.key"));
        std::fs::write(&crt, certificate.pem()).expect("a file");
        crate::certificate::write_secret(&pem, &key.serialize_pem());
        Arc::new(KeyPair::load(&crt, &pem).expect("what was written can be read"))
    }

    /// A list of what is revoked, PEM; a higher `count` is a newer one.
    pub fn list(&self, count: u64, revoked: impl IntoIterator<Item = u64>) -> String {
        self.timed_list(count, revoked, Duration::hours(-1), Duration::days(1))
    }

    /// The same, made now plus `made`, the next one due now plus `due`.
    pub fn timed_list(
        &self,
        count: u64,
        revoked: impl IntoIterator<Item = u64>,
        made: Duration,
        due: Duration,
    ) -> String {
        let now = OffsetDateTime::now_utc();
        let entry = |number: u64| RevokedCertParams {
            serial_number: SerialNumber::from(number),
            revocation_time: now + made,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now + made,
            next_update: now + due,
            crl_number: SerialNumber::from(count),
            issuing_distribution_point: None,
            revoked_certs: revoked.into_iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).and_then(|list| list.pem()).expect("a list can be made")
    }
}

/// Puts a file into an agent's data folder, in one piece, as `mv` does. The folder need not be there yet.
pub fn put(agent: &Agent, name: &str, text: &str) {
    let folder = agent.data_dir();
    std::fs::create_dir_all(&folder).expect("a folder");
    let new = folder.join(format!("{name}.putting"));
    std::fs::write(&new, text).expect("a file");
    std::fs::rename(&new, folder.join(name)).expect("it can be renamed");
}

fn subject(name: &str, unit: Option<&str>) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    if let Some(unit) = unit {
        subject.push(DnType::OrganizationalUnitName, unit);
    }
    subject.push(DnType::CommonName, name);
    subject
}
