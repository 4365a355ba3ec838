//! The CA's list of certificates that count no more: `ca.crl`, beside the CA.
//!
//! It only grows, and its number rises each time that it is signed, so that whoever holds an older one can tell. A list
//! that this CA did not sign is never replaced by one that it did.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber,
};
use x509_parser::der_parser::num_bigint::BigUint;
use x509_parser::extensions::ParsedExtension;
use x509_parser::revocation_list::{CertificateRevocationList, RevokedCertificate};

use super::serial::Serial;
use super::{Authority, AuthorityError, BACKDATED, parsed, stamp};

/// Why a certificate counts no more, as RFC 5280 numbers it. There is no `certificateHold`: nothing is taken out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Unspecified,
    KeyCompromise,
    CaCompromise,
    AffiliationChanged,
    Superseded,
    CessationOfOperation,
    PrivilegeWithdrawn,
    AaCompromise,
    /// One that this program never gives, read from a list.
    Other(u8),
}

/// The reasons that can be given, by the names that RFC 5280 and OpenSSL have for them.
const REASONS: [(&str, Reason); 8] = [
    ("unspecified", Reason::Unspecified),
    ("keyCompromise", Reason::KeyCompromise),
    ("CACompromise", Reason::CaCompromise),
    ("affiliationChanged", Reason::AffiliationChanged),
    ("superseded", Reason::Superseded),
    ("cessationOfOperation", Reason::CessationOfOperation),
    ("privilegeWithdrawn", Reason::PrivilegeWithdrawn),
    ("AACompromise", Reason::AaCompromise),
];

/// A word that is no reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a reason is one of unspecified, keyCompromise, CACompromise, affiliationChanged, superseded, cessationOfOperation, privilegeWithdrawn"
)]
pub struct ReasonError;

impl FromStr for Reason {
    type Err = ReasonError;
    fn from_str(text: &str) -> Result<Self, ReasonError> {
        let bare = text.replace('-', "");
        REASONS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(&bare))
            .map(|(_, reason)| *reason)
            .ok_or(ReasonError)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match REASONS.iter().find(|(_, reason)| reason == self) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{}", self.code()),
        }
    }
}

impl Reason {
    fn code(self) -> u8 {
        match self {
            Reason::Unspecified => 0,
            Reason::KeyCompromise => 1,
            Reason::CaCompromise => 2,
            Reason::AffiliationChanged => 3,
            Reason::Superseded => 4,
            Reason::CessationOfOperation => 5,
            Reason::PrivilegeWithdrawn => 9,
            Reason::AaCompromise => 10,
            Reason::Other(code) => code,
        }
    }

    fn of(code: u8) -> Self {
        let known = REASONS.iter().map(|(_, reason)| *reason).find(|reason| reason.code() == code);
        known.unwrap_or(Reason::Other(code))
    }

    fn written(self) -> Option<RevocationReason> {
        Some(match self {
            Reason::KeyCompromise => RevocationReason::KeyCompromise,
            Reason::CaCompromise => RevocationReason::CaCompromise,
            Reason::AffiliationChanged => RevocationReason::AffiliationChanged,
            Reason::Superseded => RevocationReason::Superseded,
            Reason::CessationOfOperation => RevocationReason::CessationOfOperation,
            Reason::PrivilegeWithdrawn => RevocationReason::PrivilegeWithdrawn,
            Reason::AaCompromise => RevocationReason::AaCompromise,
            Reason::Other(6) => RevocationReason::CertificateHold,
            Reason::Unspecified | Reason::Other(_) => return None,
        })
    }
}

/// A certificate that counts no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    pub serial: Serial,
    pub at: Timestamp,
    pub reason: Reason,
    /// Since when its key may have been in other hands, where a list of another program says so.
    invalid_since: Option<Timestamp>,
}

/// A list as it was read, or one that is still empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Revocations {
    number: BigUint,
    signed: Option<Signed>,
    entries: Vec<Revoked>,
}

/// When a list was signed, and until when it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed {
    pub at: Timestamp,
    pub until: Option<Timestamp>,
}

/// What a list that was just signed says of itself.
#[derive(Debug, Clone)]
pub struct Listed {
    /// PEM.
    pub pem: String,
    pub number: String,
    pub at: Timestamp,
    pub until: Timestamp,
}

/// What became of an addition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    New,
    /// It was there, since then.
    Already(Timestamp),
}

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    #[error("it is not a revocation list that can be read")]
    Unreadable,
    #[error("it was not signed by this CA")]
    Foreign,
    #[error("it was signed at {at}, and it is {now} now by this machine's clock")]
    Future { at: Timestamp, now: Timestamp },
    #[error("it holds what this program does not understand, and would lose")]
    Unknown,
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl Revocations {
    /// The list in `der`, whoever signed it.
    pub fn read(der: &[u8]) -> Result<Self, RevocationError> {
        let list = list(der)?;
        let entries = list.iter_revoked_certificates().map(revoked).collect::<Result<_, _>>()?;
        let at = Timestamp::from_second(list.last_update().timestamp());
        let until = list.next_update().map(|until| Timestamp::from_second(until.timestamp())).transpose();
        let signed = Signed {
            at: at.map_err(|_| RevocationError::Unreadable)?,
            until: until.map_err(|_| RevocationError::Unreadable)?,
        };
        let number = list.crl_number().cloned().unwrap_or_default();
        Ok(Self { number, signed: Some(signed), entries })
    }

    /// The list in `der`, if this CA may go on with it.
    pub fn of(authority: &Authority, der: &[u8], now: Timestamp) -> Result<Self, RevocationError> {
        if !is_signed_by(der, authority.certificate())? {
            return Err(RevocationError::Foreign);
        }
        let understood = list(der)?.extensions().iter().all(|extension| {
            matches!(
                extension.parsed_extension(),
                ParsedExtension::CRLNumber(_) | ParsedExtension::AuthorityKeyIdentifier(_)
            ) || !extension.critical
        });
        if !understood {
            return Err(RevocationError::Unknown);
        }
        let read = Self::read(der)?;
        match read.signed {
            Some(signed) if signed.at > now => Err(RevocationError::Future { at: signed.at, now }),
            _ => Ok(read),
        }
    }

    pub fn entries(&self) -> &[Revoked] {
        &self.entries
    }

    /// How often it was signed, in decimal.
    pub fn number(&self) -> String {
        self.number.to_string()
    }

    pub fn signed(&self) -> Option<Signed> {
        self.signed
    }

    /// Since when this certificate counts no more.
    pub fn find(&self, serial: &Serial) -> Option<&Revoked> {
        self.entries.iter().find(|revoked| revoked.serial == *serial)
    }

    /// From now on this certificate counts no more.
    pub fn add(&mut self, serial: Serial, reason: Reason, now: Timestamp) -> Added {
        if let Some(there) = self.find(&serial) {
            return Added::Already(there.at);
        }
        self.entries.push(Revoked { serial, at: now, reason, invalid_since: None });
        Added::New
    }

    /// The list signed anew, under the next number.
    pub fn sign(
        &mut self,
        authority: &Authority,
        now: Timestamp,
        valid_for: SignedDuration,
    ) -> Result<Listed, RevocationError> {
        authority.check_usable(now)?;
        // Backdated like certificates, but never before the list that it follows.
        let backdated = now - SignedDuration::from_secs(BACKDATED.whole_seconds());
        let at = self.signed.map_or(backdated, |signed| signed.at.max(backdated));
        let until = now.checked_add(valid_for).map_err(|_| AuthorityError::Clock)?;
        let number = &self.number + 1_u32;
        let mut revoked_certs = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            revoked_certs.push(RevokedCertParams {
                serial_number: entry.serial.clone().into(),
                revocation_time: stamp(entry.at)?,
                reason_code: entry.reason.written(),
                invalidity_date: entry.invalid_since.map(stamp).transpose()?,
            });
        }
        let params = CertificateRevocationListParams {
            this_update: stamp(at)?,
            next_update: stamp(until)?,
            crl_number: SerialNumber::from(number.to_bytes_be()),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: key_identifier(authority)?,
        };
        let made = params.signed_by(authority.issuer()).map_err(AuthorityError::from)?;
        let pem = made.pem().map_err(AuthorityError::from)?;
        self.number = number;
        self.signed = Some(Signed { at, until: Some(until) });
        Ok(Listed { pem, number: self.number(), at, until })
    }
}

/// Whether the key of this CA signed a list, in its name.
pub fn is_signed_by(der: &[u8], authority: &[u8]) -> Result<bool, RevocationError> {
    let (list, own) = (list(der)?, parsed(authority)?);
    Ok(list.issuer().as_raw() == own.subject().as_raw() && list.verify_signature(own.public_key()).is_ok())
}

fn list(der: &[u8]) -> Result<CertificateRevocationList<'_>, RevocationError> {
    match x509_parser::parse_x509_crl(der) {
        Ok((&[], list)) => Ok(list),
        _ => Err(RevocationError::Unreadable),
    }
}

fn revoked(entry: &RevokedCertificate<'_>) -> Result<Revoked, RevocationError> {
    let at = |time: x509_parser::time::ASN1Time| {
        Timestamp::from_second(time.timestamp()).map_err(|_| RevocationError::Unreadable)
    };
    let understood = entry.iter_extensions().all(|extension| {
        matches!(
            extension.parsed_extension(),
            ParsedExtension::ReasonCode(_) | ParsedExtension::InvalidityDate(_)
        ) || !extension.critical
    });
    if !understood {
        return Err(RevocationError::Unknown);
    }
    Ok(Revoked {
        serial: Serial::of(entry.raw_serial()),
        at: at(entry.revocation_date)?,
        reason: entry.reason_code().map_or(Reason::Unspecified, |(_, code)| Reason::of(code.0)),
        invalid_since: entry.invalidity_date().map(|(_, date)| at(date)).transpose()?,
    })
}

/// The CA's own, so that its list is found by it, whichever program made the CA.
fn key_identifier(authority: &Authority) -> Result<KeyIdMethod, AuthorityError> {
    let own = parsed(authority.certificate())?;
    let identifier = own.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0.to_vec()),
        _ => None,
    });
    Ok(identifier.map_or(KeyIdMethod::Sha256, KeyIdMethod::PreSpecified))
}
