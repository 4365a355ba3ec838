//! A certificate that a caller showed, read once: what each request asks of it (whose it is, whether it is within its
//! time) must not cost reading it anew.

use std::sync::OnceLock;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use super::Fingerprint;
use super::certificate::{Validity, fingerprint};
use super::pki::{NoWay, Way};

/// A certificate whose key its shower has proven to hold, or is about to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub der: CertificateDer<'static>,
    pub fingerprint: Fingerprint,
    /// What was sent along with it: it may lead to an authority, and proves nothing.
    pub between: Vec<CertificateDer<'static>>,
    /// The way to an authority, once it was looked for.
    pub(super) way: OnceLock<Result<Way, NoWay>>,
    /// The first and last second of its time; `None` if it cannot be read.
    time: Option<(i64, i64)>,
}

impl Shown {
    pub fn new(der: CertificateDer<'static>) -> Self {
        Self::with(der, Vec::new())
    }

    /// A certificate, and what was sent along with it.
    pub fn with(der: CertificateDer<'static>, between: Vec<CertificateDer<'static>>) -> Self {
        let time = x509_parser::parse_x509_certificate(&der).ok().map(|(_, certificate)| {
            let validity = certificate.validity();
            (validity.not_before.timestamp(), validity.not_after.timestamp())
        });
        Self { fingerprint: fingerprint(&der), between, way: OnceLock::new(), time, der }
    }

    /// Its common name, where an authority answers for it.
    pub fn common_name(&self) -> String {
        match self.way.get() {
            Some(Ok(way)) if !way.name.is_empty() => way.name.clone(),
            _ => self.fingerprint.to_string().chars().take(12).collect(),
        }
    }

    /// As `certificate::check_validity` judges it.
    pub fn check(&self, now: Timestamp) -> Result<(), Validity> {
        match self.time {
            None => Err(Validity::Unreadable),
            Some((first, _)) if now.as_second() < first => Err(Validity::NotYet),
            Some((_, last)) if now.as_second() > last => Err(Validity::Expired),
            Some(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::certificate::{KeyPair, check_validity};

    #[test]
    fn it_is_judged_as_if_it_were_read_anew() {
        let pair = KeyPair::generate("client", &[]).unwrap();
        let shown = Shown::new(pair.certificate.clone());
        assert_eq!(shown.fingerprint, pair.fingerprint);
        let now = Timestamp::now();
        for hours in [-1, 0, 24 * 3650 - 1, 24 * 3650 + 1] {
            let at = now + jiff::SignedDuration::from_hours(hours);
            assert_eq!(shown.check(at), check_validity(&pair.certificate, at), "{hours}");
        }
        assert_eq!(Shown::new(CertificateDer::from(vec![1, 2, 3])).check(now), Err(Validity::Unreadable));
    }
}
