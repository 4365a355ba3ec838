//! The revocation lists in force: one an authority, replaced by a newer one and by nothing else.

use std::sync::Arc;

use jiff::Timestamp;
use rustls_pki_types::pem::{PemObject as _, SectionKind};

use super::authority::{Authority, pem_fault};
use super::crl::{CrlError, List, Serial};

/// Most lists in a file.
const MAX_LISTS: usize = 64;

/// What is in force. Made anew for each change, so that whoever looks something up never waits for one.
#[derive(Debug, Clone, Default)]
pub struct Lists {
    /// By authority.
    of: Vec<Option<Arc<List>>>,
    /// Authorities that another one has revoked.
    dead: Vec<bool>,
    /// Why nothing that the authorities signed is trusted: there are lists, and none that could be read.
    pub closed: Option<String>,
}

/// What came of a file.
#[derive(Debug)]
pub struct Taken {
    pub lists: Lists,
    /// Lists that were taken: of which authority.
    pub fresh: Vec<usize>,
    /// Those that were not, and why.
    pub refused: Vec<String>,
}

impl Lists {
    pub fn none(authorities: &[Authority]) -> Self {
        Self { of: vec![None; authorities.len()], dead: vec![false; authorities.len()], closed: None }
    }

    /// Whether `authority` has revoked the certificate of this number, or has itself been revoked.
    pub fn has(&self, authority: usize, serial: &Serial) -> bool {
        self.dead.get(authority).copied().unwrap_or(false)
            || self.of(authority).is_some_and(|list| list.serials.contains(serial))
    }

    pub fn of(&self, authority: usize) -> Option<&Arc<List>> {
        self.of.get(authority)?.as_ref()
    }

    /// These lists with what `pem` holds. Each list is taken or refused by itself: whatever is newer and rightly signed
    /// revokes from now on, and of an authority whose list is no good the last good one stays.
    pub fn with(&self, pem: &[u8], authorities: &[Authority], now: Timestamp) -> Taken {
        let mut lists = self.clone();
        let (mut fresh, mut refused, mut found) = (Vec::new(), Vec::new(), 0);
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            let der = match section {
                Ok((SectionKind::Crl, der)) => der,
                Ok(_) => continue,
                Err(error) => {
                    refused.push(pem_fault(&error));
                    found += 1;
                    break;
                }
            };
            found += 1;
            if found > MAX_LISTS {
                refused.push(format!("it holds more than {MAX_LISTS} lists"));
                break;
            }
            match lists.take(&der, authorities, now) {
                Ok(authority) => fresh.push(authority),
                Err(error) if found == 1 => refused.push(error.to_string()),
                Err(error) => refused.push(format!("list {found} in it: {error}")),
            }
        }
        if found == 0 {
            refused.push("it holds no section X509 CRL in PEM".to_owned());
        }
        lists.dead = lists.revoked_authorities(authorities);
        if refused.is_empty() {
            lists.closed = None;
        }
        Taken { lists, fresh, refused }
    }

    fn take(&mut self, der: &[u8], authorities: &[Authority], now: Timestamp) -> Result<usize, CrlError> {
        let (at, list) = List::read(der, authorities)?;
        let place = self.of.get_mut(at).ok_or(CrlError::OtherIssuer)?;
        list.check(place.as_deref(), now)?;
        *place = Some(Arc::new(list));
        Ok(at)
    }

    fn revoked_authorities(&self, authorities: &[Authority]) -> Vec<bool> {
        let dead = |authority: &Authority| {
            let above = authority.above?;
            Some(self.of(above)?.serials.contains(&authority.serial))
        };
        authorities.iter().map(|authority| dead(authority).unwrap_or(false)).collect()
    }

    /// Authorities whose list is stale at `now`: a newer one was due.
    pub fn stale(&self, now: Timestamp) -> impl Iterator<Item = (usize, Timestamp)> {
        self.of.iter().enumerate().filter_map(move |(at, list)| {
            let due = list.as_ref()?.next_update?;
            (due < now).then_some((at, due))
        })
    }
}
