//! Certificates from an ACME server (RFC 8555), for clients to see. Links pin the cluster's own and never see them.
//!
//! One task has the certificate of the settings' domain, and has it renewed. `schedule` says when, and is pure;
//! `attempt` is one way through the protocol; `unfit` looks at what came of it. What is shown is only ever replaced by
//! what was checked, so whatever fails, the last good certificate stays.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use self::challenge::Challenges;
use super::server_identity::{ServerIdentity, Source};
use crate::audit::Audit;
use crate::task::Tasks;
use crate::wire::acme::{AcmeState, AcmeStatus, Origin, ServerCertificate, Standing};

mod account;
mod attempt;
pub mod challenge;
mod door;
mod fault;
mod keeper;
mod ours;
mod schedule;
mod transport;
mod unfit;

/// What is wanted of an ACME server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    Nothing,
    /// A certificate, but this setting is missing.
    Lacks(&'static str),
    Certificate(Wanted),
}

/// A certificate that is wanted, by an administrator who has agreed to the server's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub domain: String,
    pub email: String,
    pub directory: String,
    pub method: Method,
    /// Where HTTP-01 is answered: the first that this machine can have.
    pub http: Vec<SocketAddr>,
}

/// How a name is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// On the agent's own port.
    TlsAlpn01,
    /// In the clear, on a port that is open only meanwhile.
    Http01,
}

impl Method {
    pub fn name(self) -> &'static str {
        match self {
            Method::TlsAlpn01 => "TLS-ALPN-01",
            Method::Http01 => "HTTP-01",
        }
    }
}

/// What the task is built of.
pub struct AcmeParts {
    /// The data folder.
    pub dir: PathBuf,
    pub server: Arc<ServerIdentity>,
    pub audit: Arc<Audit>,
    pub tasks: Tasks,
}

/// Certificates from an ACME server.
pub struct Acme {
    parts: AcmeParts,
    challenges: Arc<Challenges>,
    status: watch::Sender<AcmeStatus>,
}

impl Acme {
    pub fn new(parts: AcmeParts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            challenges: Challenges::new(),
            status: watch::Sender::new(status(AcmeState::Off)),
        })
    }

    /// One that nobody has run, and that nothing can be written by.
    #[cfg(test)]
    pub fn scratch(server: Arc<ServerIdentity>) -> Arc<Self> {
        Self::new(AcmeParts { dir: PathBuf::new(), server, audit: Audit::none(), tasks: Tasks::new() })
    }

    /// What a listener answers with whoever looks for a proof.
    pub fn challenges(&self) -> Arc<Challenges> {
        self.challenges.clone()
    }

    /// Does what is wished, until the tasks end. To be run once, when challenges can be answered.
    pub async fn run(self: Arc<Self>, wish: watch::Receiver<Wish>) {
        let ending = self.parts.tasks.ending();
        let keeping = keeper::Keeper::new(self).run(wish);
        ending.run_until_cancelled(keeping).await;
    }

    /// How it stands; nothing, where nothing is wanted and nothing was.
    pub fn status(&self) -> Option<AcmeStatus> {
        let status = self.status.borrow().clone();
        let told = status.state != AcmeState::Off || status.note.is_some();
        told.then_some(status)
    }

    /// The certificate that clients are shown, where it is not the cluster's.
    pub fn certificate(&self) -> Option<ServerCertificate> {
        let pair = self.parts.server.own()?;
        let (life, names) = unfit::read(&pair.certificate).ok()?;
        let issued = || ours::Ours::of(&self.parts.dir).find(&pair.fingerprint).ok().flatten();
        let origin = match self.parts.server.source() {
            Source::Given => Origin::Given,
            _ if issued().is_some() => Origin::Acme,
            _ => Origin::Folder,
        };
        Some(ServerCertificate {
            fingerprint: pair.fingerprint.to_string(),
            names,
            issuer: unfit::issuer(&pair.certificate),
            valid_from: life.from,
            valid_until: life.until,
            origin,
            // Whoever shows it looks at the clock.
            standing: Standing::default(),
        })
    }
}

fn status(state: AcmeState) -> AcmeStatus {
    AcmeStatus {
        state,
        note: None,
        domain: None,
        directory: None,
        challenge: None,
        next_attempt: None,
        failures: 0,
        last_error: None,
    }
}
