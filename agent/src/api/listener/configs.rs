//! One port, several protocols: which certificate is shown and which is asked for, by what the caller says it speaks.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::ClientHello;

use crate::api::ApiState;
use crate::trust::acme::challenge::ALPN_ACME;
use crate::trust::certificate::CertificateError;
use crate::tunnel::ALPN_LINK;
use crate::tunnel::tls::{ALPN_API, ALPN_CLUSTER, ClientCertificate, server_config};

/// What each protocol's handshake is made with.
pub(super) struct Configs {
    clients: Arc<ServerConfig>,
    cluster: Arc<ServerConfig>,
    links: Arc<ServerConfig>,
    acme: Arc<ServerConfig>,
}

impl Configs {
    pub(super) fn new(state: &ApiState) -> Result<Self, CertificateError> {
        use ClientCertificate::{Requested, Required, Unasked};
        let (server, cluster) = (&state.server, &state.identity);
        Ok(Self {
            clients: server_config(server.clone(), &ALPN_API, Requested)?,
            cluster: server_config(cluster.clone(), &[ALPN_CLUSTER], Requested)?,
            links: server_config(cluster.clone(), &[ALPN_LINK], Required)?,
            acme: server_config(state.acme.challenges(), &[ALPN_ACME], Unasked)?,
        })
    }

    /// For a caller that offers a protocol of ours alone; where it offers several, by the first of these.
    pub(super) fn of_ours(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        let offers =
            |wanted: &[u8]| hello.alpn().is_some_and(|mut offered| offered.any(|alpn| alpn == wanted));
        let own = [(ALPN_LINK, &self.links), (ALPN_CLUSTER, &self.cluster), (ALPN_ACME, &self.acme)];
        own.into_iter().find(|(alpn, _)| offers(alpn)).map(|(_, config)| Arc::clone(config))
    }

    /// For everybody else.
    pub(super) fn clients(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.clients)
    }
}
