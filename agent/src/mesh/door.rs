//! Connections of those who speak for themselves: an app or a proxy with the certificate of its service, over TLS of its
//! own, to the agent's port.
//!
//! The name that its hello asks for (SNI) says which service it wants, and that service's certificate is shown to it.
//! Who it is, its own certificate says, and who vouches for that is looked at again for as long as the connection is
//! open. From there on it is a connection as any other: export, intention, a healthy instance, and the same counters.
//!
//! No protocol of the application is spoken here. Where the service is said to speak HTTP, its protocols are agreed to as
//! Consul's proxies do; otherwise what a caller offers is left unanswered, and it speaks what it would without TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use jiff::Timestamp;
use rustls::CertificateError;
use rustls::server::ClientHello;
use rustls_pki_types::CertificateDer;
use schema::access::Source;
use schema::kind::service_defaults::Protocol;
use schema::name::{LinkName, ServiceName};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;
use tokio_util::io::{InspectReader, InspectWriter};

use super::Mesh;
use super::admission::Request;
use super::carry::{Miss, Patience, open};
use super::grant::Wish;
use super::instance::reach;
use super::relay::{Meter, join};
use super::traffic::Pair;
use crate::catalog::CatalogView;
use crate::trust::mesh::server_name::{self, Asked};
use crate::trust::mesh::{Face, Judge, LeafError, Speaker, Vouching};
use crate::tunnel::tls;
use crate::wire::link::StreamHeader;
use crate::wire::traffic::{Cause, Denial, Way};

/// Connections that may be open here at a time, of this cluster's services that speak for themselves. Those of a link
/// count as the link's.
const MAX_OPEN: usize = 16_384;
/// What the log says then.
const TOO_MANY: &str = "as many connections of its cluster are open as may be";

/// What is shared by those connections.
#[derive(Debug)]
pub(super) struct Door {
    places: Arc<Semaphore>,
}

impl Default for Door {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(MAX_OPEN)) }
    }
}

impl Door {
    fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }
}

/// What a caller's hello asks for.
#[derive(Debug)]
pub struct Call {
    /// `None` where there is no such service.
    face: Option<Face>,
    alpn: Option<&'static [u8]>,
    /// As sent, if it could be a service's.
    name: Option<ServiceName>,
    arrived: Instant,
}

/// A caller that is known.
pub struct Visitor {
    stream: TlsStream<TcpStream>,
    leaf: CertificateDer<'static>,
    speaker: Speaker,
    face: Face,
    vouching: Vouching,
    judge: Judge,
    from: SocketAddr,
    arrived: Instant,
}

impl Mesh {
    /// What a hello asks of the mesh; `None` if it is not for a service.
    pub fn called(&self, hello: &ClientHello<'_>) -> Option<Call> {
        let (arrived, name) = (Instant::now(), hello.server_name()?);
        let authority = &self.parts.mesh_ca;
        let asked = server_name::read(name, &authority.roots().domain, authority.cluster())?;
        let view = self.parts.catalog.view();
        let face = match asked {
            Asked::Here { service } => declared(&view, service).map(Face::Here),
            Asked::Across { service_and_link } => across(self, &view, service_and_link),
            Asked::Nothing => None,
        };
        let offers =
            |wanted: &[u8]| hello.alpn().is_some_and(|mut offered| offered.any(|alpn| alpn == wanted));
        let alpn = match &face {
            Some(Face::Here(service)) => {
                spoken(view.protocol(service)).iter().copied().find(|own| offers(own))
            }
            _ => None,
        };
        let name = match asked {
            Asked::Here { service } => service.parse().ok(),
            Asked::Across { .. } | Asked::Nothing => None,
        };
        Some(Call { face, alpn, name, arrived })
    }

    /// Ends the handshake with a caller, and learns who it is.
    pub async fn receive(
        &self,
        start: StartHandshake<TcpStream>,
        call: Call,
        from: SocketAddr,
    ) -> io::Result<Visitor> {
        let parts = &self.parts;
        let judge = Judge {
            authority: parts.mesh_ca.clone(),
            bundles: parts.bundles.clone(),
            identities: parts.identities.clone(),
        };
        let vouching = judge.vouching();
        let shown = match &call.face {
            Some(face) => Some(parts.mesh_ca.face(face, Timestamp::now()).map_err(io::Error::other)?),
            None => None,
        };
        let found = Arc::new(OnceLock::new());
        let asked = {
            let (judge, found) = (judge.clone(), Arc::clone(&found));
            Box::new(move |leaf: &CertificateDer<'_>| {
                let who = judge.speaker(leaf, Timestamp::now());
                let answer = who.as_ref().map(drop).map_err(|unfit| alert(&unfit.why));
                // A handshake asks once.
                let _ = found.set((leaf.clone().into_owned(), who));
                answer
            })
        };
        let config = tls::server_config_judging(shown, call.alpn, asked).map_err(io::Error::other)?;
        let ended = start.into_stream(config).await;
        let found = Arc::into_inner(found).and_then(OnceLock::into_inner);
        let error = match (ended, found, call.face) {
            (Ok(stream), Some((leaf, Ok(speaker))), Some(face)) => {
                let arrived = call.arrived;
                return Ok(Visitor { stream, leaf, speaker, face, vouching, judge, from, arrived });
            }
            // The verifier has been asked, or there would be no stream.
            (Ok(_), ..) => return Err(io::ErrorKind::InvalidData.into()),
            (Err(error), Some((_, Err(unfit))), _) => {
                let claims = unfit.claims.as_ref().and_then(|id| id.service.parse().ok());
                self.traffic.unproven(claims, call.name, Denial::Leaf, &unfit.why);
                error
            }
            (Err(error), None, Some(_)) if is_nameless(&error) => {
                self.traffic.unproven(None, call.name, Denial::Leaf, &LeafError::Missing);
                error
            }
            (Err(error), None, None) => {
                let reason = "the name that it asked for is of no service here";
                self.traffic.unproven(None, call.name, Denial::NotDeclared, &reason);
                error
            }
            (Err(error), ..) => error,
        };
        Err(error)
    }

    /// Carries a caller's connection to its end.
    pub async fn carry(self: Arc<Self>, mut visitor: Visitor) {
        let ended = match visitor.face.clone() {
            Face::Here(service) => self.carry_here(&mut visitor, service).await,
            Face::Across(service, link) => self.carry_across(&mut visitor, service, &link).await,
        };
        if ended == Ended::Cut {
            // A reset: nobody must take a cut for the end of the data. Fails only on a socket that is closed already.
            let _ = visitor.stream.get_ref().0.set_zero_linger();
        }
    }

    /// To a service of this cluster: the same question as any connection meets, and the same watch on the answer.
    async fn carry_here(&self, visitor: &mut Visitor, destination: ServiceName) -> Ended {
        let wish =
            Wish { request: Request { source: visitor.source(), destination }, peer: None, way: Way::Leaf };
        let grant = match self.grants.ask(&wish) {
            Ok(grant) => grant,
            Err(refused) => {
                self.traffic.refused(wish.pair(), &refused);
                return Ended::Cut;
            }
        };
        let counters = grant.counters();
        let place = match &wish.request.source.peer {
            Some(link) => self.inbound.take(link),
            None => self.door.place(),
        };
        let Some(_place) = place else {
            counters.failed(Cause::TooMany, &TOO_MANY);
            return Ended::Cut;
        };
        let reached = tokio::select! {
            biased;
            () = grant.cut().cancelled() => {
                if let Some(refused) = grant.why() {
                    self.traffic.refused(wish.pair(), refused);
                }
                return Ended::Cut;
            }
            reached = reach(self, &wish.request, &grant, Some(visitor.from)) => reached,
        };
        let instance = match reached {
            Ok(instance) => instance,
            Err(reason) => {
                counters.failed(reason.cause(), &reason);
                return Ended::Cut;
            }
        };
        let _open = counters.carried(visitor.arrived.elapsed());
        let Visitor { stream, leaf, speaker, vouching, judge, .. } = visitor;
        let ended = tokio::select! {
            // First, so that not a byte passes after the permit has fallen.
            biased;
            () = grant.cut().cancelled() => {
                if let Some(refused) = grant.why() {
                    counters.cut(refused);
                }
                Ended::Cut
            }
            reason = vouching.ended(judge, leaf, speaker) => {
                counters.cut(&reason);
                Ended::Cut
            }
            ended = join(&instance, stream, counters.of_instance()) => {
                told(&wish.request, ended)
            }
        };
        if ended == Ended::Cut {
            instance.reset();
        }
        ended
    }

    /// To a service across a link, as what its leaf says it is. Whether it may is the peer's to say.
    async fn carry_across(&self, visitor: &mut Visitor, service: ServiceName, link: &LinkName) -> Ended {
        let pair =
            Pair { destination_peer: Some(link.clone()), ..Pair::of_leaf(visitor.source(), service.clone()) };
        let counters = self.traffic.of(pair);
        let request = Request { source: visitor.source(), destination: service.clone() };
        if request.source.peer.is_some() {
            // Nobody is carried on from one link to another.
            counters
                .denied(Denial::NotExported, &"it is of a linked cluster, and asks for another's service");
            return Ended::Cut;
        }
        let Some(_place) = self.door.place() else {
            counters.failed(Cause::TooMany, &TOO_MANY);
            return Ended::Cut;
        };
        let cutting = self.parts.tasks.cutting();
        let header = StreamHeader::Service {
            destination: service,
            source: request.source.service.clone(),
            from: Some(visitor.from),
        };
        let opened = tokio::select! {
            () = cutting.cancelled() => return Ended::Cut,
            opened = open(self, link, &header, &[], Patience::UntilItIsBack) => opened,
        };
        let mut far = match opened {
            Ok(stream) => stream,
            Err(Miss::Denied(reason)) => {
                counters.denied(Denial::Peer, &reason);
                return Ended::Cut;
            }
            Err(Miss::Unavailable(cause, reason)) => {
                counters.failed(cause, &reason);
                return Ended::Cut;
            }
            Err(Miss::Lost(reason)) => {
                counters.failed(Cause::LinkDown, &reason);
                return Ended::Cut;
            }
        };
        let _open = counters.carried(visitor.arrived.elapsed());
        let Visitor { stream, leaf, speaker, vouching, judge, .. } = visitor;
        let meter = counters.of_app();
        let near = InspectWriter::new(stream, |bytes: &[u8]| meter.given(bytes.len() as u64));
        let mut near = InspectReader::new(near, |bytes: &[u8]| meter.taken(bytes.len() as u64));
        tokio::select! {
            biased;
            () = cutting.cancelled() => Ended::Cut,
            reason = vouching.ended(judge, leaf, speaker) => {
                counters.cut(&reason);
                Ended::Cut
            }
            ended = tokio::io::copy_bidirectional(&mut near, &mut far) => told(&request, ended.map(drop)),
        }
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Both directions, in order.
    Whole,
    /// Before that, or before it began.
    Cut,
}

fn told(request: &Request, ended: io::Result<()>) -> Ended {
    match ended {
        Ok(()) => Ended::Whole,
        Err(error) => {
            tracing::debug!(?request, %error, "connection broke");
            Ended::Cut
        }
    }
}

impl Visitor {
    /// Who calls, as intentions name it.
    fn source(&self) -> Source {
        Source { peer: self.speaker.peer.clone(), service: self.speaker.service.clone() }
    }
}

/// What a name across a link asks for: one of its services, as the peer offers them; or, since Consul's own proxies name
/// a service that is exported to them by the link that it is exported to, one of ours.
fn across(mesh: &Mesh, view: &CatalogView, service_and_link: &str) -> Option<Face> {
    let imports = mesh.parts.imports.view();
    imports.iter().find_map(|(link, imported)| {
        let name = server_name::across(service_and_link, link)?;
        if let Some(service) = declared(view, name).filter(|service| view.is_exported(service, link)) {
            return Some(Face::Here(service));
        }
        let service = name.parse().ok().filter(|service| imported.services.get(service).is_some())?;
        Some(Face::Across(service, link.clone()))
    })
}

/// The declared service of this name, which may have come in another case.
fn declared(view: &CatalogView, name: &str) -> Option<ServiceName> {
    let exact = name.parse().ok().filter(|name| view.instances(name).is_some());
    exact.or_else(|| {
        let mut alike = view
            .services
            .iter()
            .map(|(known, _)| known)
            .filter(|known| known.as_str().eq_ignore_ascii_case(name));
        alike.next().filter(|_| alike.next().is_none()).cloned()
    })
}

/// What is agreed to with callers of a service that speaks this, in the order of preference: Consul's lists.
fn spoken(protocol: Protocol) -> &'static [&'static [u8]] {
    match protocol {
        Protocol::Tcp => &[],
        Protocol::Http => &[b"http/1.1"],
        Protocol::Http2 | Protocol::Grpc => &[b"h2", b"http/1.1"],
    }
}

/// What a caller hears of its certificate, in the words that TLS has.
fn alert(why: &LeafError) -> CertificateError {
    match why {
        LeafError::Missing | LeafError::Unreadable => CertificateError::BadEncoding,
        LeafError::Names(_) | LeafError::Name(_) | LeafError::Form | LeafError::NoService => {
            CertificateError::NotValidForName
        }
        LeafError::NotYet { .. } => CertificateError::NotValidYet,
        LeafError::Expired { .. } => CertificateError::Expired,
        LeafError::Usage | LeafError::Authority => CertificateError::InvalidPurpose,
        LeafError::UnknownDomain | LeafError::NotSigned => CertificateError::UnknownIssuer,
        LeafError::OtherCluster | LeafError::NoLink(_) | LeafError::Other(_) => {
            CertificateError::ApplicationVerificationFailure
        }
    }
}

/// Whether a handshake failed because the caller has no certificate.
fn is_nameless(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::NoCertificatesPresented))
}
