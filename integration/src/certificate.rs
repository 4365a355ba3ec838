//! Certificates that nobody would make: out of their time, or of another kind than ours.

use std::path::Path;
use std::sync::Arc;

use agent::trust::certificate::KeyPair;
use rcgen::{CertificateParams, DnType};
use time::{Duration, OffsetDateTime};

/// A P-256 pair that is valid from now plus `begins` until now plus `ends`, written as `DIR/STEM.crt` and `.key`.
pub fn timed(dir: &Path, stem: &str, begins: Duration, ends: Duration) -> Arc<KeyPair> {
    let key = rcgen::KeyPair::generate().expect("a key can be made");
    let mut params = CertificateParams::new(vec![stem.to_owned()]).expect("a name");
    params.distinguished_name.push(DnType::CommonName, stem);
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now + begins, now + ends);
    let certificate = params.self_signed(&key).expect("a certificate can be made");
    let (crt, pem) = (dir.join(format!("{stem}.crt")), dir.join(format!("{stem}.key")));
    std::fs::create_dir_all(dir).expect("a folder");
    std::fs::write(&crt, certificate.pem()).expect("a file");
    write_secret(&pem, &key.serialize_pem());
    Arc::new(KeyPair::load(&crt, &pem).expect("what was written can be read"))
}

/// A P-256 pair of ten years.
pub fn p256(dir: &Path, stem: &str) -> Arc<KeyPair> {
    timed(dir, stem, Duration::minutes(-10), Duration::days(3650))
}

/// Writes a file for its owner alone.
pub fn write_secret(path: &Path, text: &str) {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("a file");
}
