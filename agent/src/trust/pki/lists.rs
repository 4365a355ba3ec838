//! The revocation lists in force: one an authority, replaced by a newer one and by nothing else.

use std::collections::BTreeSet;
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
    /// Why nothing that the authorities signed is trusted: there are lists, and not all could be read.
    pub closed: Option<String>,
    owed: Owed,
}

/// What was refused and is not made up for. Taking a refused list out of the file does not: what it revoked is not known.
#[derive(Debug, Clone, Default)]
struct Owed {
    /// Authorities that have no list since theirs was refused.
    of: BTreeSet<usize>,
    /// How many authorities have to have a list, where it is not known whose was refused.
    lists: usize,
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
        Self { of: vec![None; authorities.len()], dead: vec![false; authorities.len()], ..Self::default() }
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
        let (mut of, mut nobodys) = (BTreeSet::new(), 0);
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            let der = match section {
                Ok((SectionKind::Crl, der)) => der,
                Ok(_) => continue,
                Err(error) => {
                    refused.push(pem_fault(&error));
                    nobodys += 1;
                    found += 1;
                    break;
                }
            };
            found += 1;
            if found > MAX_LISTS {
                refused.push(format!("it holds more than {MAX_LISTS} lists"));
                nobodys += 1;
                break;
            }
            match lists.take(&der, authorities, now) {
                Ok(authority) => fresh.push(authority),
                Err((whose, error)) => {
                    match whose {
                        Some(authority) => _ = of.insert(authority),
                        None => nobodys += 1,
                    }
                    let place = if found == 1 { String::new() } else { format!("list {found} in it: ") };
                    refused.push(format!("{place}{error}"));
                }
            }
        }
        if found == 0 {
            refused.push("it holds no section X509 CRL in PEM".to_owned());
        }
        lists.dead = lists.revoked_authorities(authorities);
        if !refused.is_empty() {
            lists.owe(of, nobodys);
        } else if let Some(reason) = lists.owing(authorities).filter(|_| lists.closed.is_some()) {
            refused.push(reason);
        } else {
            (lists.closed, lists.owed) = (None, Owed::default());
        }
        Taken { lists, fresh, refused }
    }

    /// Takes a list, or says why not, and whose it is where that is known.
    fn take(
        &mut self,
        der: &[u8],
        authorities: &[Authority],
        now: Timestamp,
    ) -> Result<usize, (Option<usize>, CrlError)> {
        let (at, list) = List::read(der, authorities).map_err(|error| (None, error))?;
        let place = self.of.get_mut(at).ok_or((None, CrlError::OtherIssuer))?;
        list.check(place.as_deref(), now).map_err(|error| (Some(at), error))?;
        *place = Some(Arc::new(list));
        Ok(at)
    }

    /// Remembers that lists of the authorities `of` were refused, and `nobodys` lists more.
    fn owe(&mut self, of: BTreeSet<usize>, nobodys: usize) {
        self.owed.of.extend(of);
        let without = self.owed.of.iter().filter(|at| self.of(**at).is_none()).count();
        self.owed.lists = self.owed.lists.max(self.known() + without + nobodys);
    }

    /// What is still wanting of the lists that were refused.
    fn owing(&self, authorities: &[Authority]) -> Option<String> {
        let rest = "; an authority's list that is left out says nothing of what it revoked. If it is to have none, start the agent again";
        if let Some(authority) = self.owed.of.iter().find(|at| self.of(**at).is_none()) {
            let name = authorities.get(*authority).map_or("", |authority| &authority.name);
            return Some(format!(
                "the list of {name} was refused before, and there is no good one yet{rest}"
            ));
        }
        // More than one of each there cannot be.
        let (wanted, known) = (self.owed.lists.min(authorities.len()), self.known());
        (known < wanted)
            .then(|| format!("there were lists of {wanted} authorities, and {known} are good{rest}"))
    }

    /// How many authorities have a list.
    fn known(&self) -> usize {
        self.of.iter().flatten().count()
    }

    /// Each that one above it has revoked, by any of its certificates, and each below such a one.
    fn revoked_authorities(&self, authorities: &[Authority]) -> Vec<bool> {
        let mut dead = vec![false; authorities.len()];
        // As often as there are steps: none is revived, so this comes to an end even where they sign each other.
        loop {
            let is_dead = |authority: &Authority| {
                authority.certificates.iter().any(|own| {
                    let Some(above) = own.above else { return false };
                    let revoked = |list: &Arc<List>| list.serials.contains(&own.serial);
                    dead.get(above).copied().unwrap_or(false) || self.of(above).is_some_and(revoked)
                })
            };
            let now: Vec<bool> = authorities.iter().map(is_dead).collect();
            if now == dead {
                return now;
            }
            dead = now;
        }
    }

    /// Authorities whose list is stale at `now`: a newer one was due.
    pub fn stale(&self, now: Timestamp) -> impl Iterator<Item = (usize, Timestamp)> {
        self.of.iter().enumerate().filter_map(move |(at, list)| {
            let due = list.as_ref()?.next_update?;
            (due < now).then_some((at, due))
        })
    }
}
