//! One revocation list: read once, its signature checked once, its numbers kept where finding one takes no time.

use std::collections::HashSet;
use std::fmt;

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs;
use sha2::{Digest as _, Sha256};
use x509_parser::extensions::X509Extension;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

use super::authority::Authority;
use super::der::{
    BIT_STRING, Element, GENERALIZED_TIME, INTEGER, Malformed, Reader, SEQUENCE, TAGGED_0, UTC_TIME, bits,
};

/// CRLNumber, by RFC 5280.
const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 0x14];
/// Tolerated between our clock and the one that dated a list, as certificates are backdated by ten minutes.
const SKEW: i64 = 600;

/// A certificate's number, as it is kept: as long as RFC 5280 lets one be, or a hash of a longer one. In one piece, so
/// that a list of many is let go in no time.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Serial([u8; 21]);

impl Serial {
    pub fn new(number: &[u8]) -> Self {
        // Leading zeros are of no meaning; DER has one where the first bit would be a sign.
        let number = &number[number.iter().take_while(|byte| **byte == 0).count()..];
        let mut kept = [0; 21];
        if let Some(place) = kept.get_mut(1..=number.len()) {
            place.copy_from_slice(number);
            kept[0] = u8::try_from(number.len()).unwrap_or(u8::MAX);
        } else {
            kept[1..].copy_from_slice(&Sha256::digest(number)[..20]);
            kept[0] = u8::MAX;
        }
        Self(kept)
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[1..].iter().take(usize::from(self.0[0])).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What an authority has revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// Counts the authority's lists, where it does count them; without leading zeros.
    pub number: Option<Vec<u8>>,
    pub this_update: Timestamp,
    /// When a newer one is due.
    pub next_update: Option<Timestamp>,
    pub serials: HashSet<Serial>,
}

/// Why a list was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    #[error("it is no revocation list in DER, or cut short")]
    Malformed,
    #[error("no authority here is its issuer")]
    OtherIssuer,
    #[error("it is not signed by the key of the authority that it names ({0})")]
    Signature(String),
    #[error(
        "it is signed by an algorithm that is not taken (one of SHA-1, say): have it signed by SHA-256 or better"
    )]
    Algorithm,
    #[error("the authority {0} may not sign revocation lists (its key usage leaves cRLSign out)")]
    NoCrlSign(String),
    #[error(
        "it has a critical extension that is not known here ({0}): a list of all certificates is needed, not of a part"
    )]
    Extension(String),
    #[error(
        "it is not valid before {begins}, and it is {now} here: check the clock of this machine, and that of the authority"
    )]
    NotYet { begins: Timestamp, now: Timestamp },
    #[error("it is stale: a newer one was due at {due}, and it is {now} here")]
    Stale { due: Timestamp, now: Timestamp },
    #[error("it is older than the one in force ({it}, in force {in_force})")]
    Older { it: String, in_force: String },
}

impl From<Malformed> for CrlError {
    fn from(Malformed: Malformed) -> Self {
        CrlError::Malformed
    }
}

impl List {
    /// The list in `der`, and which of `authorities` has signed it. It is looked for by key, not by name alone: two may
    /// have the same name.
    pub fn read(der: &[u8], authorities: &[Authority]) -> Result<(usize, Self), CrlError> {
        let mut outer = Reader::new(der);
        let whole = outer.expect(SEQUENCE)?;
        outer.end()?;
        let mut parts = Reader::new(whole.content);
        let signed = parts.expect(SEQUENCE)?;
        let algorithm = parts.expect(SEQUENCE)?;
        let signature = bits(parts.expect(BIT_STRING)?.content)?;
        parts.end()?;

        let mut fields = Reader::new(signed.content);
        fields.optional(&[INTEGER])?;
        if fields.expect(SEQUENCE)? != algorithm {
            return Err(CrlError::Malformed);
        }
        let issuer = fields.expect(SEQUENCE)?;
        let at = signer(authorities, issuer.content, algorithm.content, signed.whole, signature)?;

        let this_update = time(fields.element()?)?;
        let next_update = fields.optional(&[UTC_TIME, GENERALIZED_TIME])?.map(time).transpose()?;
        let serials = match fields.optional(&[SEQUENCE])? {
            Some(revoked) => serials(revoked.content)?,
            None => HashSet::new(),
        };
        let number = match fields.optional(&[TAGGED_0])? {
            Some(tagged) => number(Reader::new(tagged.content).expect(SEQUENCE)?.content)?,
            None => None,
        };
        fields.end()?;
        Ok((at, Self { number, this_update, next_update, serials }))
    }

    /// Whether it may be taken at `now`, in place of `before`.
    pub fn check(&self, before: Option<&List>, now: Timestamp) -> Result<(), CrlError> {
        if self.this_update.as_second() - SKEW > now.as_second() {
            return Err(CrlError::NotYet { begins: self.this_update, now: whole_second(now) });
        }
        if let Some(due) = self.next_update.filter(|due| *due < now) {
            return Err(CrlError::Stale { due, now: whole_second(now) });
        }
        let Some(before) = before else { return Ok(()) };
        let counted_back = match (&self.number, &before.number) {
            (Some(own), Some(known)) => (own.len(), own) < (known.len(), known),
            _ => false,
        };
        if counted_back || self.this_update < before.this_update {
            return Err(CrlError::Older { it: self.title(), in_force: before.title() });
        }
        Ok(())
    }

    /// The number and date that people tell lists apart by.
    pub fn title(&self) -> String {
        match self.shown_number() {
            Some(number) => format!("number {number} of {}", self.this_update),
            None => format!("of {}", self.this_update),
        }
    }

    /// As `openssl crl -crlnumber` shows it: hexadecimal, beyond what fits a decimal.
    pub fn shown_number(&self) -> Option<String> {
        let number = self.number.as_ref()?;
        if number.len() <= 8 {
            let value = number.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
            return Some(value.to_string());
        }
        Some(number.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}")))
    }
}

fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// Which authority has signed `message`, by trying the key of each that has the issuer's name.
fn signer(
    authorities: &[Authority],
    issuer: &[u8],
    algorithm: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<usize, CrlError> {
    let known = aws_lc_rs::default_provider().signature_verification_algorithms;
    if !known.all.iter().any(|known| known.signature_alg_id().as_ref() == algorithm) {
        return Err(CrlError::Algorithm);
    }
    let mut named = None;
    for (at, authority) in authorities.iter().enumerate() {
        if authority.anchor.subject.as_ref() != issuer {
            continue;
        }
        named.get_or_insert(authority);
        if is_signed_by(authority, algorithm, message, signature)? {
            let may = authority.signs_lists;
            return if may { Ok(at) } else { Err(CrlError::NoCrlSign(authority.name.clone())) };
        }
    }
    Err(named.map_or(CrlError::OtherIssuer, |authority| CrlError::Signature(authority.name.clone())))
}

/// By the algorithms of TLS, so nothing that is too weak there is good enough here.
fn is_signed_by(
    authority: &Authority,
    algorithm: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<bool, Malformed> {
    let mut key = Reader::new(&authority.anchor.subject_public_key_info);
    let kind = key.expect(SEQUENCE)?;
    let key = bits(key.expect(BIT_STRING)?.content)?;
    let known = aws_lc_rs::default_provider().signature_verification_algorithms;
    let mut fitting = known.all.iter().filter(|known| {
        known.signature_alg_id().as_ref() == algorithm && known.public_key_alg_id().as_ref() == kind.content
    });
    Ok(fitting.any(|known| known.verify_signature(key, message, signature).is_ok()))
}

fn time(element: Element<'_>) -> Result<Timestamp, Malformed> {
    let (_, time) = ASN1Time::from_der(element.whole).map_err(|_| Malformed)?;
    Timestamp::from_second(time.timestamp()).map_err(|_| Malformed)
}

fn serials(content: &[u8]) -> Result<HashSet<Serial>, CrlError> {
    let mut entries = Reader::new(content);
    // An entry takes some 20 bytes at least; the guess is for one allocation, not for trust.
    let mut serials = HashSet::with_capacity(content.len() / 32);
    while !entries.is_empty() {
        let mut entry = Reader::new(entries.expect(SEQUENCE)?.content);
        serials.insert(Serial::new(entry.expect(INTEGER)?.content));
        entry.element()?;
        if let Some(extensions) = entry.optional(&[SEQUENCE])? {
            // A critical one may say that the entry is about another issuer's certificate.
            let mut extensions = Reader::new(extensions.content);
            while !extensions.is_empty() {
                refuse_critical(&extension(extensions.element()?)?)?;
            }
        }
        entry.end()?;
    }
    Ok(serials)
}

/// The list's own number; any critical extension would narrow what the list is about.
fn number(content: &[u8]) -> Result<Option<Vec<u8>>, CrlError> {
    let (mut extensions, mut number) = (Reader::new(content), None);
    while !extensions.is_empty() {
        let extension = extension(extensions.element()?)?;
        refuse_critical(&extension)?;
        if extension.oid.as_bytes() == CRL_NUMBER {
            let counted = Reader::new(extension.value).expect(INTEGER)?.content;
            let zeros = counted.iter().take_while(|byte| **byte == 0).count();
            number = Some(counted[zeros..].to_vec());
        }
    }
    Ok(number)
}

fn extension(element: Element<'_>) -> Result<X509Extension<'_>, Malformed> {
    X509Extension::from_der(element.whole).map(|(_, extension)| extension).map_err(|_| Malformed)
}

fn refuse_critical(extension: &X509Extension<'_>) -> Result<(), CrlError> {
    if extension.critical { Err(CrlError::Extension(extension.oid.to_id_string())) } else { Ok(()) }
}
