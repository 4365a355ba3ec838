//! Proofs that this agent is reached by a name, while an ACME server looks for them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The protocol by which an ACME server asks for a proof (RFC 8737).
pub const ALPN_ACME: &[u8] = b"acme-tls/1";

/// The challenges that are open.
#[derive(Default)]
pub struct Challenges {
    /// By the name in question, what is to be shown to whoever asks for it.
    by_tls: RwLock<HashMap<String, Arc<CertifiedKey>>>,
}

impl Challenges {
    /// Shows `proof` for `name` until it is withdrawn.
    pub fn open(&self, name: &str, proof: Arc<CertifiedKey>) {
        self.by_tls.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_ascii_lowercase(), proof);
    }

    pub fn withdraw(&self, name: &str) {
        self.by_tls.write().unwrap_or_else(PoisonError::into_inner).remove(&name.to_ascii_lowercase());
    }
}

impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Challenges")
    }
}

impl ResolvesServerCert for Challenges {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?.to_ascii_lowercase();
        self.by_tls.read().unwrap_or_else(PoisonError::into_inner).get(&name).cloned()
    }
}
