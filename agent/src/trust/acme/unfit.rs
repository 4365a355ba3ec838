//! A look at what an authority has issued, before anybody is shown it.

use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::fault::plain;
use super::schedule::Life;

/// Longest chain that is taken, in bytes of PEM and in certificates.
const MAX_CHAIN: usize = 64 * 1024;
const MAX_CERTIFICATES: usize = 10;
/// What lives for less cannot be renewed in time, and would be ordered without end.
const SHORTEST_SECS: i64 = 15;

/// Why a certificate is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("it is no chain of certificates in PEM")]
    Malformed,
    #[error("its chain is longer than {MAX_CERTIFICATES} certificates or {MAX_CHAIN} bytes")]
    Long,
    #[error("its key is not the one that was asked for")]
    Key,
    #[error("it names {names}, not {domain}")]
    Name { domain: String, names: String },
    #[error("it is not for servers")]
    Usage,
    #[error("certificate {0} of its chain did not sign the one before it")]
    Chain(usize),
    #[error("it is valid from {from:.0} only, and this machine's clock says {now:.0}: is the clock right?")]
    NotYet { from: Timestamp, now: Timestamp },
    #[error("it was valid until {until:.0}, and this machine's clock says {now:.0}: is the clock right?")]
    Over { until: Timestamp, now: Timestamp },
    #[error(
        "it is valid until {until:.0} only, for less than {SHORTEST_SECS} s (this machine's clock says {now:.0}), and \
         could not be renewed in time"
    )]
    Short { until: Timestamp, now: Timestamp },
}

/// The chain in `pem`, leaf first, if a server of this name can show it at this moment. `spki` is the key that it was
/// asked for.
pub fn check(
    pem: &str,
    spki: &[u8],
    domain: &str,
    now: Timestamp,
) -> Result<Vec<CertificateDer<'static>>, Unfit> {
    if pem.len() > MAX_CHAIN {
        return Err(Unfit::Long);
    }
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| Unfit::Malformed)?;
    if chain.len() > MAX_CERTIFICATES {
        return Err(Unfit::Long);
    }
    let parsed: Vec<X509Certificate<'_>> = chain.iter().map(|der| parse(der)).collect::<Result<_, _>>()?;
    let leaf = parsed.first().ok_or(Unfit::Malformed)?;
    if leaf.public_key().raw != spki {
        return Err(Unfit::Key);
    }
    let names = names(leaf);
    if !names.iter().any(|name| name.eq_ignore_ascii_case(domain)) {
        let names = if names.is_empty() { "nothing".to_owned() } else { plain(&names.join(", ")) };
        return Err(Unfit::Name { domain: domain.to_owned(), names });
    }
    if let Ok(Some(usage)) = leaf.extended_key_usage()
        && !(usage.value.server_auth || usage.value.any)
    {
        return Err(Unfit::Usage);
    }
    for (place, pair) in parsed.windows(2).enumerate() {
        if pair[0].issuer() != pair[1].subject()
            || pair[0].verify_signature(Some(pair[1].public_key())).is_err()
        {
            return Err(Unfit::Chain(place + 2));
        }
    }
    let life = life_of(leaf)?;
    if now < life.from {
        return Err(Unfit::NotYet { from: life.from, now });
    }
    if now >= life.until {
        return Err(Unfit::Over { until: life.until, now });
    }
    // What was dated back lives for no longer than is left of it.
    if life.until.duration_since(now) < SignedDuration::from_secs(SHORTEST_SECS) {
        return Err(Unfit::Short { until: life.until, now });
    }
    Ok(chain)
}

/// When a certificate is valid, and the DNS names that it is for.
pub fn read(der: &[u8]) -> Result<(Life, Vec<String>), Unfit> {
    let certificate = parse(der)?;
    Ok((life_of(&certificate)?, names(&certificate)))
}

/// Who has signed a certificate, in words.
pub fn issuer(der: &[u8]) -> String {
    parse(der).map(|certificate| plain(&certificate.issuer().to_string())).unwrap_or_default()
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Unfit> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Unfit::Malformed),
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })
        .collect()
}

fn life_of(certificate: &X509Certificate<'_>) -> Result<Life, Unfit> {
    let at = |time: x509_parser::time::ASN1Time| {
        Timestamp::from_second(time.timestamp()).map_err(|_| Unfit::Malformed)
    };
    let validity = certificate.validity();
    Ok(Life { from: at(validity.not_before)?, until: at(validity.not_after)? })
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
        PublicKeyData as _,
    };
    use time::{Duration, OffsetDateTime};

    use super::*;

    struct Authority {
        pem: String,
        issuer: Issuer<'static, KeyPair>,
    }

    fn authority(name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// A chain for `name` that is good for an hour from now, with its key.
    fn issue(authority: &Authority, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, KeyPair) {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        params.not_before = OffsetDateTime::now_utc() - Duration::minutes(1);
        params.not_after = OffsetDateTime::now_utc() + Duration::hours(1);
        let leaf = params.signed_by(&key, &authority.issuer).unwrap();
        (format!("{}{}", leaf.pem(), authority.pem), key)
    }

    #[test]
    fn only_what_clients_would_take_is_used() {
        let now = Timestamp::now();
        let (one, other) = (authority("one"), authority("one"));
        let (pem, key) = issue(&one, "East.example", ExtendedKeyUsagePurpose::ServerAuth);
        let spki = key.subject_public_key_info();
        let chain = check(&pem, &spki, "east.example", now).unwrap();
        assert_eq!(chain.len(), 2);
        let (life, names) = read(&chain[0]).unwrap();
        assert_eq!(names, ["East.example"]);
        assert_eq!(life.until.duration_since(life.from).as_mins(), 61);

        let refused = |pem: &str, domain: &str, at| check(pem, &spki, domain, at).unwrap_err();
        let west = refused(&pem, "west.example", now).to_string();
        assert_eq!(west, "it names East.example, not west.example");
        let hour = SignedDuration::from_hours(1);
        let early = refused(&pem, "east.example", now - hour);
        assert!(matches!(early, Unfit::NotYet { .. }) && early.to_string().contains("is the clock right?"));
        let late = refused(&pem, "east.example", now + hour * 2);
        assert!(matches!(late, Unfit::Over { .. }) && late.to_string().contains("is the clock right?"));
        let left =
            |seconds| check(&pem, &spki, "east.example", life.until - SignedDuration::from_secs(seconds));
        assert!(left(15).is_ok());
        let short = left(14).unwrap_err();
        assert!(
            matches!(short, Unfit::Short { .. }) && short.to_string().contains("for less than 15 s"),
            "{short}"
        );
        let leaf_end = pem.find("-----END").unwrap();
        for cut in ["", "no PEM", &pem[..leaf_end]] {
            assert_eq!(refused(cut, "east.example", now), Unfit::Malformed, "{cut}");
        }
        assert_eq!(refused(&pem.repeat(6), "east.example", now), Unfit::Long);
        assert_eq!(refused(&"x".repeat(MAX_CHAIN + 1), "east.example", now), Unfit::Long);

        let (another, _) = issue(&one, "east.example", ExtendedKeyUsagePurpose::ServerAuth);
        assert_eq!(refused(&another, "east.example", now), Unfit::Key);
        let (client, key) = issue(&one, "east.example", ExtendedKeyUsagePurpose::ClientAuth);
        let spki = key.subject_public_key_info();
        assert_eq!(check(&client, &spki, "east.example", now), Err(Unfit::Usage));
        // Of the same name, and with another key.
        let (swapped, key) = issue(&one, "east.example", ExtendedKeyUsagePurpose::ServerAuth);
        let swapped = swapped.replace(&one.pem, &other.pem);
        let spki = key.subject_public_key_info();
        assert_eq!(check(&swapped, &spki, "east.example", now), Err(Unfit::Chain(2)));
    }
}
