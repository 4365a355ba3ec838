//! Transfers as this agent runs them: who waits for whom, which protocol is spoken, and the operation that tells.
//!
//! Either side may be the one that is dialled: a pull's source and a push's target wait, and a relaying client brings
//! both together. Whoever comes first with the control secret decides by how it comes: over an upgraded connection the
//! chunk stream is spoken, over a websocket LXD's migration.

use std::sync::Arc;

use futures::future::BoxFuture;
use schema::kind::transfer::Mode;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::Role;
use uuid::Uuid;

use super::asker::Asker;
use super::bridge::Stream;
use super::connections::{Connections, Dial, More};
use super::exchange::{receive, send, unreported};
use super::lxd::socket::{ControlSocket, FsSocket};
use super::lxd::{LxdError, sink, source};
use super::offer::{Arrived, Carrier, Claim, ClaimError, Doors, Offers, UNCONNECTED_LIFE};
use super::remote::{CONTROL, FS, Peer, Remote, Secrets};
use super::shipment::{Incoming, Origin, Outgoing};
use super::telling::{self, Protocol, Reason, Teller};
use super::{Stage, TransferError};
use crate::authorize::Permit;
use crate::dataset::pool::{Held, Use};
use crate::dataset::{Dataset, Owner, PoolError, Pools};
use crate::operation::{Class, Handle, Operation, Operations, Start};
use crate::task::Tasks;
use crate::trust::Fingerprint;
use crate::trust::cluster_identity::ClusterIdentity;
use crate::wire::token::Secret;

/// A pipe within the process holds this much.
const PIPE: usize = 512 * 1024;

/// What is done once a tree is in its place, before its source is told: the record is written.
pub type Then = Box<dyn FnOnce() -> BoxFuture<'static, Result<(), String>> + Send>;

/// Moves volumes and instances for this agent. Cheap to clone.
#[derive(Clone)]
pub struct Transfers {
    pub(super) pools: Pools,
    operations: Operations,
    identity: Arc<ClusterIdentity>,
    offers: Arc<Offers>,
    tasks: Tasks,
}

/// How the other side is reached.
enum Reach {
    /// It comes to us.
    Awaited(Doors),
    /// We dial it.
    Dialled(Peer),
}

/// A connection to the other side, by how it came.
enum Link {
    ChunkStream(Connections),
    /// The offer stays as long as the transfer does: whoever comes with a secret again hears that it was used.
    Lxd {
        control: Box<dyn Stream>,
        fs: Box<dyn Stream>,
        role: Role,
        offer: Option<Doors>,
    },
}

impl Transfers {
    pub fn new(pools: Pools, operations: Operations, identity: Arc<ClusterIdentity>, tasks: Tasks) -> Self {
        Self { pools, operations, identity, offers: Arc::default(), tasks }
    }

    /// The source of a pull, or of a copy that a client relays: waits for whoever comes with the secrets. These are in
    /// this answer and nowhere else. `bound_to` is the certificate that the target must show, where it is known.
    pub fn serve(
        &self,
        permit: &Permit,
        outgoing: Outgoing,
        bound_to: Option<Fingerprint>,
    ) -> Result<(Operation, Secrets), TransferError> {
        let held = self.pools.hold(&outgoing.dataset, Use::Reading)?;
        let secrets = Secrets::random();
        let start = sending_starts(permit, &outgoing.dataset, Class::Websocket);
        let (this, own) = (self.clone(), secrets.pairs());
        let operation = self.operations.start(&self.tasks, start, move |handle| {
            let reach = Reach::Awaited(this.offers.put(handle.id(), &own, bound_to));
            async move { this.send_over(reach, outgoing, held, handle).await }
        });
        Ok((operation, secrets))
    }

    /// The source of a push: dials the target.
    pub fn send_to(
        &self,
        permit: &Permit,
        outgoing: Outgoing,
        remote: &Remote,
    ) -> Result<Operation, TransferError> {
        let reach = Reach::Dialled(remote.peer(self.identity.current(), Asker::of(permit.caller()))?);
        let held = self.pools.hold(&outgoing.dataset, Use::Reading)?;
        let start = sending_starts(permit, &outgoing.dataset, Class::Task);
        let this = self.clone();
        Ok(self.operations.start(&self.tasks, start, move |handle| async move {
            this.send_over(reach, outgoing, held, handle).await
        }))
    }

    /// The target of a push, or of a copy that a client relays: waits for whoever comes with the secrets.
    pub fn await_from(
        &self,
        permit: &Permit,
        incoming: Incoming,
        bound_to: Option<Fingerprint>,
    ) -> Result<(Operation, Secrets), TransferError> {
        let held = self.claim(&incoming.dataset, incoming.mode)?.of_size(incoming.size);
        let secrets = Secrets::random();
        let start = receiving_starts(permit, &incoming, Class::Websocket);
        let (this, own) = (self.clone(), secrets.pairs());
        let operation = self.operations.start(&self.tasks, start, move |handle| {
            let reach = Reach::Awaited(this.offers.put(handle.id(), &own, bound_to));
            async move { this.receive_over(reach, incoming, held, handle).await }
        });
        Ok((operation, secrets))
    }

    /// The target of a pull: dials the source.
    pub fn fetch(
        &self,
        permit: &Permit,
        incoming: Incoming,
        remote: &Remote,
    ) -> Result<Operation, TransferError> {
        let reach = Reach::Dialled(remote.peer(self.identity.current(), Asker::of(permit.caller()))?);
        let held = self.claim(&incoming.dataset, incoming.mode)?.of_size(incoming.size);
        let start = receiving_starts(permit, &incoming, Class::Task);
        let this = self.clone();
        Ok(self.operations.start(&self.tasks, start, move |handle| async move {
            this.receive_over(reach, incoming, held, handle).await
        }))
    }

    /// Copies within this agent.
    pub fn copy(
        &self,
        permits: [&Permit; 2],
        outgoing: Outgoing,
        incoming: Incoming,
    ) -> Result<Operation, TransferError> {
        if outgoing.dataset == incoming.dataset {
            return Err(TransferError::Itself);
        }
        let reading = self.pools.hold(&outgoing.dataset, Use::Reading)?;
        let held = self.claim(&incoming.dataset, incoming.mode)?.of_size(incoming.size);
        let [_, permit] = permits;
        let start = receiving_starts(permit, &incoming, Class::Task);
        let pools = self.pools.clone();
        Ok(self.operations.start(&self.tasks, start, move |handle| async move {
            let (here, there) = tokio::io::duplex(PIPE);
            let of = (&incoming.dataset, incoming.origin.clone());
            let teller = Teller::begin(Some(handle), of, Protocol::ChunkStream, Reason::Within);
            let (sent, received) = tokio::join!(
                send(&pools, reading, Connections::single(Box::new(here)), outgoing, unreported()),
                receive_chunks(Connections::single(Box::new(there)), incoming, held, &teller),
            );
            match (sent, received) {
                // Whoever failed first told the other; its own words are the better ones.
                (Err(e), Err(TransferError::Connection(_))) => Err(e.to_string()),
                (_, received) => received.map_err(|e| e.to_string()),
            }
        }))
    }

    /// Takes up an offer: the connection's end of it.
    pub fn take_up(
        &self,
        id: Uuid,
        secret: &Secret,
        certificate: Option<Fingerprint>,
    ) -> Result<Claim, ClaimError> {
        self.offers.claim(id, secret, certificate)
    }

    /// Whether the secret is one of the operation's, used or not.
    pub fn knows(&self, id: Uuid, secret: &Secret) -> bool {
        self.offers.knows(id, secret)
    }

    /// Holds the target, and checks before anything is moved that it may be written.
    pub(super) fn claim(&self, dataset: &Dataset, mode: Mode) -> Result<Held, TransferError> {
        let held = self.pools.hold(dataset, Use::Replacing)?;
        if !self.pools.exists(&dataset.pool) {
            return Err(PoolError::NoSuchPool(dataset.pool.clone()).into());
        }
        if mode == Mode::Copy && held.tree().is_some() {
            return Err(TransferError::Exists(dataset.clone()));
        }
        self.pools.room(&dataset.pool)?;
        Ok(held)
    }

    async fn send_over(
        self,
        reach: Reach,
        outgoing: Outgoing,
        held: Held,
        handle: Handle,
    ) -> Result<Value, String> {
        self.sent(reach, outgoing, held, handle).await.map_err(|e| e.to_string())
    }

    async fn sent(
        self,
        reach: Reach,
        outgoing: Outgoing,
        held: Held,
        handle: Handle,
    ) -> Result<Value, TransferError> {
        let dataset = outgoing.dataset.clone();
        let tell = |protocol, reason| {
            Teller::begin(Some(handle.clone()), (&dataset, Origin::default()), protocol, reason)
        };
        let (control, fs, role, _offer) = match link(reach).await? {
            Link::ChunkStream(connections) => {
                let teller = tell(Protocol::ChunkStream, Reason::BothOurs);
                return send_chunks(&self.pools, connections, outgoing, held, &teller).await;
            }
            Link::Lxd { control, fs, role, offer } => (control, fs, role, offer),
        };
        let mut control = ControlSocket::new(control, role, "target").await;
        let mut fs = FsSocket::new(fs, role).await;
        let done = match source::negotiate(&mut control, &outgoing).await {
            Ok(source::Agreed::ChunkStream) => {
                let teller = tell(Protocol::ChunkStream, Reason::BothOursRelayed);
                let relayed = Connections::single(Box::new(fs.into_stream()));
                send_chunks(&self.pools, relayed, outgoing, held, &teller).await
            }
            Ok(source::Agreed::Files(answer)) => {
                let teller = tell(Protocol::Rsync, Reason::OtherIsLxd);
                let (mut sent, mut count) = (0, teller.count(Stage::Sending));
                let mut count = |more| {
                    sent += more;
                    count(more);
                };
                let done =
                    source::send(&mut control, &mut fs, &self.pools, &outgoing, &answer, &mut count).await;
                done.map(|()| teller.ended(json!({"sent": sent})))
            }
            Err(e) => {
                let _ = control.tell(Err(&e.to_string())).await;
                Err(e)
            }
        };
        control.close().await;
        done
    }

    async fn receive_over(
        self,
        reach: Reach,
        incoming: Incoming,
        held: Held,
        handle: Handle,
    ) -> Result<Value, String> {
        self.received(reach, incoming, held, handle).await.map_err(|e| e.to_string())
    }

    async fn received(
        self,
        reach: Reach,
        incoming: Incoming,
        held: Held,
        handle: Handle,
    ) -> Result<Value, TransferError> {
        let dataset = incoming.dataset.clone();
        let origin = incoming.origin.clone();
        // Told before anybody has come: one that is cut off is known by it.
        handle.progress(json!({ "comity": telling::origin(&origin) }));
        let tell = |protocol, reason| {
            Teller::begin(Some(handle.clone()), (&dataset, origin.clone()), protocol, reason)
        };
        let from = match &reach {
            Reach::Dialled(peer) => peer.pin().to_string(),
            // Whoever comes to us shows nothing but the secret.
            Reach::Awaited(_) => String::new(),
        };
        let (control, fs, role, _offer) = match link(reach).await? {
            Link::ChunkStream(connections) => {
                let teller = tell(Protocol::ChunkStream, Reason::BothOurs);
                return receive_chunks(connections, incoming, held, &teller).await;
            }
            Link::Lxd { control, fs, role, offer } => (control, fs, role, offer),
        };
        let mut control = ControlSocket::new(control, role, "source").await;
        let mut fs = FsSocket::new(fs, role).await;
        let done = match sink::hear(&mut control).await {
            Ok(sink::Offered::ChunkStream) => {
                let teller = tell(Protocol::ChunkStream, Reason::BothOursRelayed);
                let relayed = Connections::single(Box::new(fs.into_stream()));
                receive_chunks(relayed, incoming, held, &teller).await
            }
            Ok(sink::Offered::Files(offer)) => {
                let teller = tell(Protocol::Rsync, Reason::OtherIsLxd);
                let (mut sent, mut count) = (0, teller.count(Stage::Receiving));
                let mut count = |more| {
                    sent += more;
                    count(more);
                };
                let held = Arc::new(held);
                let done =
                    sink::receive(&mut control, &mut fs, &held, &offer, incoming, &from, &mut count).await;
                done.map(|()| teller.ended(json!({"sent": sent})))
            }
            Err(e) => {
                let _ = control.tell(Err(&e.to_string())).await;
                Err(e)
            }
        };
        control.close().await;
        done
    }
}

/// The connection that decides what is spoken.
async fn link(reach: Reach) -> Result<Link, TransferError> {
    match reach {
        Reach::Dialled(peer) => {
            let Some(secret) = peer.secret(CONTROL).filter(|_| peer.is_ours()) else {
                let control = peer.websocket(CONTROL).await?;
                return Ok(Link::Lxd {
                    control,
                    fs: peer.websocket(FS).await?,
                    role: Role::Client,
                    offer: None,
                });
            };
            let first = peer.stream(secret).await?;
            let dial: Dial = Arc::new(move |ticket| {
                let peer = peer.clone();
                Box::pin(async move { peer.stream(&ticket).await.map_err(|e| e.to_string()) })
            });
            Ok(Link::ChunkStream(Connections { first, more: More::Dial(dial) }))
        }
        Reach::Awaited(mut doors) => match doors.arrival(CONTROL).await {
            None => Err(TransferError::Nobody(UNCONNECTED_LIFE)),
            Some(Arrived { carrier: Carrier::Bytes, stream }) => {
                Ok(Link::ChunkStream(Connections { first: stream, more: More::Accept(doors) }))
            }
            Some(Arrived { carrier: Carrier::Websocket, stream }) => match doors.arrival(FS).await {
                Some(Arrived { carrier: Carrier::Websocket, stream: fs }) => {
                    Ok(Link::Lxd { control: stream, fs, role: Role::Server, offer: Some(doors) })
                }
                _ => Err(LxdError::NotConnected(FS).into()),
            },
        },
    }
}

async fn send_chunks(
    pools: &Pools,
    connections: Connections,
    outgoing: Outgoing,
    held: Held,
    teller: &Teller,
) -> Result<Value, TransferError> {
    let sent = send(pools, held, connections, outgoing, teller.report()).await?;
    Ok(teller.ended(json!({"total": sent.total, "sent": sent.moved, "unset": sent.unset})))
}

async fn receive_chunks(
    connections: Connections,
    incoming: Incoming,
    held: Held,
    teller: &Teller,
) -> Result<Value, TransferError> {
    let received = receive(held, connections, incoming, teller.report()).await?;
    Ok(teller.ended(json!({"total": received.total, "sent": received.moved, "unset": received.unset})))
}

/// What the source's operation is, in LXD's words.
fn sending_starts(permit: &Permit, dataset: &Dataset, class: Class) -> Start {
    let description = match dataset.owner {
        Owner::Instance { .. } => "Migrating instance",
        Owner::Volume(_) => "Migrating storage volume",
    };
    Start { class, description, by: permit.caller().clone(), resources: vec![path(dataset)] }
}

/// What the target's operation is, in LXD's words.
fn receiving_starts(permit: &Permit, incoming: &Incoming, class: Class) -> Start {
    let description = match (&incoming.dataset.owner, incoming.mode) {
        (Owner::Instance { .. }, Mode::Copy) => "Creating instance",
        (Owner::Instance { .. }, Mode::Refresh) => "Refreshing instance",
        (Owner::Volume(_), Mode::Copy) => "Copying storage volume",
        (Owner::Volume(_), Mode::Refresh) => "Refreshing storage volume",
    };
    Start { class, description, by: permit.caller().clone(), resources: vec![path(&incoming.dataset)] }
}

/// The dataset as the API names it.
pub fn path(dataset: &Dataset) -> String {
    match &dataset.owner {
        Owner::Volume(volume) => {
            format!("/1.0/storage-pools/{}/volumes/custom/{volume}", dataset.pool)
        }
        Owner::Instance { project, name } if project.as_str() == "default" => {
            format!("/1.0/instances/{name}")
        }
        Owner::Instance { project, name } => format!("/1.0/instances/{name}?project={project}"),
    }
}
