//! Proof that a name is this agent's, while an order wants it: what the authority asks for over TLS (TLS-ALPN-01,
//! RFC 8737) and in the clear (HTTP-01, RFC 8555 section 8.3).
//!
//! An answer is there only while its challenge is open. It is public by nature: it proves something only to who has
//! asked for it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rcgen::{CertificateParams, CustomExtension, DistinguishedName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::trust::certificate::CertificateError;

/// The protocol by which an authority looks for TLS-ALPN-01.
pub const ALPN_ACME: &[u8] = b"acme-tls/1";

/// The challenges that are open.
#[derive(Default)]
pub struct Challenges {
    answers: RwLock<Answers>,
}

#[derive(Default)]
struct Answers {
    /// By the name that is to be proved.
    over_tls: HashMap<String, Arc<CertifiedKey>>,
    /// By the challenge's token.
    in_clear: HashMap<String, Arc<str>>,
}

/// A challenge that is answered until this is dropped.
pub struct Open {
    challenges: Arc<Challenges>,
    key: Key,
}

enum Key {
    Name(String),
    Token(String),
}

impl Challenges {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Shows a certificate with `digest` to whoever asks for `domain` over TLS.
    pub fn open_over_tls(self: &Arc<Self>, domain: &str, digest: &[u8]) -> Result<Open, CertificateError> {
        let key = rcgen::KeyPair::generate()?;
        let mut params = CertificateParams::new([domain.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let certificate = params.self_signed(&key)?.der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)?;
        let shown = Arc::new(CertifiedKey::new(vec![certificate], signer));
        let name = domain.to_ascii_lowercase();
        self.change(|answers| answers.over_tls.insert(name.clone(), shown));
        Ok(Open { challenges: Arc::clone(self), key: Key::Name(name) })
    }

    /// Gives `answer` to whoever asks for `token` in the clear.
    pub fn open_in_clear(self: &Arc<Self>, token: &str, answer: &str) -> Open {
        self.change(|answers| answers.in_clear.insert(token.to_owned(), answer.into()));
        Open { challenges: Arc::clone(self), key: Key::Token(token.to_owned()) }
    }

    /// What is to be said to who asks for `token`, if it is open.
    pub fn answer(&self, token: &str) -> Option<Arc<str>> {
        self.answers.read().unwrap_or_else(PoisonError::into_inner).in_clear.get(token).cloned()
    }

    fn for_name(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        self.answers.read().unwrap_or_else(PoisonError::into_inner).over_tls.get(&name).cloned()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Answers) -> T) {
        // Each change is one call of a map, so a panic elsewhere leaves nothing half done.
        change(&mut self.answers.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Challenges")
    }
}

/// What a listener shows for `acme-tls/1`: nothing, where no challenge is open for the name.
impl ResolvesServerCert for Challenges {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.for_name(hello.server_name()?)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.challenges.change(|answers| match &self.key {
            Key::Name(name) => drop(answers.over_tls.remove(name)),
            Key::Token(token) => drop(answers.in_clear.remove(token)),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_there_while_its_challenge_is_open() {
        let challenges = Challenges::new();
        let open = challenges.open_in_clear("token", "token.thumb");
        assert_eq!(challenges.answer("token").as_deref(), Some("token.thumb"));
        assert!(challenges.answer("other").is_none());
        drop(open);
        assert!(challenges.answer("token").is_none());
    }

    #[test]
    fn what_is_shown_over_tls_names_the_domain_and_holds_the_digest_where_it_cannot_be_passed_over() {
        let challenges = Challenges::new();
        let open = challenges.open_over_tls("East.example", &[7; 32]).unwrap();
        let shown = challenges.for_name("EAST.example").unwrap();
        let (_, certificate) = x509_parser::parse_x509_certificate(&shown.cert[0]).unwrap();
        let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert!(
            matches!(names[..], [x509_parser::extensions::GeneralName::DNSName("East.example")]),
            "{names:?}"
        );
        let extension =
            certificate.extensions().iter().find(|e| e.oid.to_id_string() == "1.3.6.1.5.5.7.1.31").unwrap();
        assert!(extension.critical);
        // An OCTET STRING of 32 bytes.
        assert_eq!(extension.value[..3], [4, 32, 7]);
        drop(open);
        assert!(challenges.for_name("east.example").is_none());
    }
}
