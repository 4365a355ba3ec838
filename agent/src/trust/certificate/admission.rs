//! Which certificates may be trusted at all: readable, within their time, with a key that is not too weak.

use jiff::Timestamp;
use x509_parser::public_key::PublicKey;

use super::{Validity, check_validity};

/// LXD's limit.
const LEAST_RSA_BITS: usize = 2048;

/// Why a certificate is not taken, in LXD's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Inadmissible {
    #[error(transparent)]
    Validity(#[from] Validity),
    #[error("RSA key is too weak (minimum of {LEAST_RSA_BITS}bit)")]
    WeakRsa,
}

/// Whether a certificate may be trusted, at `now`.
pub fn check_admissible(der: &[u8], now: Timestamp) -> Result<(), Inadmissible> {
    check_validity(der, now)?;
    let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(|_| Validity::Unreadable)?;
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) if key.key_size() < LEAST_RSA_BITS => Err(Inadmissible::WeakRsa),
        Ok(_) => Ok(()),
        Err(_) => Err(Validity::Unreadable.into()),
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::super::KeyPair;
    use super::*;

    #[test]
    fn only_what_is_in_its_time() {
        let pair = KeyPair::generate("laptop", &[]).unwrap();
        let now = Timestamp::now();
        assert_eq!(check_admissible(&pair.certificate, now), Ok(()));
        let before = now - SignedDuration::from_hours(1);
        assert_eq!(check_admissible(&pair.certificate, before), Err(Validity::NotYet.into()));
        let after = now + SignedDuration::from_hours(24 * 3660);
        assert_eq!(check_admissible(&pair.certificate, after), Err(Validity::Expired.into()));
        assert_eq!(check_admissible(b"nonsense", now), Err(Validity::Unreadable.into()));
    }
}
