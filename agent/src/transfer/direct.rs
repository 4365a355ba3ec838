//! Volumes as the command line moves them without LXD's API: an offer that is pulled, and trees over the command's own
//! connection.

use super::asker::Asker;
use super::bridge::Stream;
use super::connections::{Connections, Dial, More};
use super::exchange::{receive, send, unreported};
use super::receive::Received;
use super::remote::CONTROL;
use super::run::{Then, Transfers, report};
use super::send::Sent;
use super::shipment::{Chosen, Consistency, Incoming, Kin, Main, Outgoing};
use super::{TransferError, offer};
use crate::authorize::Permit;
use crate::client::Client;
use crate::dataset::pool::{Held, Use};
use crate::dataset::{Dataset, PoolError};
use crate::operation::{Class, Handle, Operation, Start};
use crate::trust::Fingerprint;
use crate::wire::token::Secret;
use crate::wire::volume::{RemoteSource, TRANSFER_PROTOCOL};
use schema::kind::transfer::Mode;
use schema::name::{PoolName, VolumeName};
use serde_json::{Value, json};
use std::sync::Arc;

/// A pipe within the process holds this much.
const PIPE: usize = 512 * 1024;

/// A volume, and what to do if it has data already.
#[derive(Debug, Clone)]
pub struct Target {
    pub pool: PoolName,
    pub volume: VolumeName,
    pub mode: Mode,
}

impl Transfers {
    /// Offers a volume's tree to whoever comes with the secret, which is in this answer and nowhere else.
    pub fn offer(
        &self,
        permit: &Permit,
        pool: &PoolName,
        volume: &VolumeName,
        bound_to: Option<Fingerprint>,
    ) -> Result<(Operation, Secret), TransferError> {
        let dataset = Dataset::volume(pool, volume);
        let held = self.pools.hold(&dataset, Use::Reading)?;
        self.pools.tree(&dataset)?;
        let secret = Secret::random();
        let start = Start {
            class: Class::Websocket,
            description: "Sending storage volume",
            by: permit.caller().clone(),
            resources: vec![format!("/1.0/storage-pools/{pool}/volumes/custom/{volume}")],
        };
        let (offers, own) = (self.offers.clone(), secret.clone());
        let (pools, outgoing) = (self.pools.clone(), outgoing(pool, volume));
        let operation = self.operations.start(&self.tasks, start, move |handle| {
            let mut doors = offers.put(handle.id(), &[(CONTROL, own)], bound_to);
            async move {
                let Some(arrived) = doors.arrival(CONTROL).await else {
                    return Err(format!("nobody connected within {} s", offer::UNCONNECTED_LIFE.as_secs()));
                };
                let connections = Connections { first: arrived.stream, more: More::Accept(doors) };
                send(&pools, held, connections, outgoing, report(Some(handle)))
                    .await
                    .map(|sent| json!({"total": sent.total, "sent": sent.moved}))
                    .map_err(|e| e.to_string())
            }
        });
        Ok((operation, secret))
    }

    /// Pulls a tree from another agent, which is dialled with its certificate pinned.
    pub async fn pull(
        &self,
        permit: &Permit,
        source: &RemoteSource,
        target: &Target,
        handle: &Handle,
        then: Then,
    ) -> Result<Received, TransferError> {
        let held = self.claim_target(target)?;
        let pin = source
            .fingerprint
            .parse()
            .map_err(|_| TransferError::Unreachable("its certificate fingerprint is malformed".to_owned()))?;
        let asker = Asker::of(permit.caller());
        let addresses = asker.dialled(&source.addresses).await?;
        let client = Client::pinned("the source", addresses, pin, Some(self.identity.current()));
        let path = format!("/control/v1/transfers/{}/stream", source.operation);
        let stream = client
            .upgrade(&path, TRANSFER_PROTOCOL, Some(&source.secret))
            .await
            .map_err(|e| asker.unreached(&e))?;
        let dial: Dial = Arc::new(move |ticket| {
            let (client, path) = (client.clone(), path.clone());
            Box::pin(async move {
                let stream = client.upgrade(&path, TRANSFER_PROTOCOL, Some(&ticket)).await;
                stream.map(|stream| Box::new(stream) as Box<dyn Stream>).map_err(|e| e.to_string())
            })
        });
        let connections = Connections { first: Box::new(stream), more: More::Dial(dial) };
        receive(held, connections, incoming(permit, target, then), report(Some(handle.clone()))).await
    }

    /// Copies one volume of this agent to another of its own.
    pub async fn copy_volume(
        &self,
        [_, permit]: [&Permit; 2],
        source: (&PoolName, &VolumeName),
        target: &Target,
        handle: &Handle,
        then: Then,
    ) -> Result<Received, TransferError> {
        if source == (&target.pool, &target.volume) {
            return Err(TransferError::Itself);
        }
        let reading = self.pools.hold(&Dataset::volume(source.0, source.1), Use::Reading)?;
        let held = self.claim_target(target)?;
        let (here, there) = tokio::io::duplex(PIPE);
        let (sent, received) = tokio::join!(
            send(
                &self.pools,
                reading,
                Connections::single(Box::new(here)),
                outgoing(source.0, source.1),
                unreported()
            ),
            receive(
                held,
                Connections::single(Box::new(there)),
                incoming(permit, target, then),
                report(Some(handle.clone()))
            ),
        );
        match (sent, received) {
            // Whoever failed first told the other; its own words are the better ones.
            (Err(e), Err(TransferError::Connection(_))) => Err(e),
            (_, received) => received,
        }
    }

    /// Takes a tree that the caller sends over its own connection.
    pub async fn import(
        &self,
        permit: &Permit,
        target: &Target,
        stream: Box<dyn Stream>,
        then: Then,
    ) -> Result<Received, TransferError> {
        let held = self.claim_target(target)?;
        receive(held, Connections::single(stream), incoming(permit, target, then), unreported()).await
    }

    /// Sends a volume's tree over the caller's own connection.
    pub async fn export(
        &self,
        _permit: &Permit,
        pool: &PoolName,
        volume: &VolumeName,
        stream: Box<dyn Stream>,
    ) -> Result<Sent, TransferError> {
        let held = self.pools.hold(&Dataset::volume(pool, volume), Use::Reading)?;
        send(&self.pools, held, Connections::single(stream), outgoing(pool, volume), unreported()).await
    }

    /// Checks, before anything is moved, that the target may be written.
    pub fn check_target(&self, target: &Target) -> Result<(), TransferError> {
        self.claim_target(target).map(drop)
    }

    fn claim_target(&self, target: &Target) -> Result<Held, TransferError> {
        let dataset = Dataset::volume(&target.pool, &target.volume);
        let held = self.pools.hold(&dataset, Use::Replacing)?;
        if !self.pools.exists(&target.pool) {
            return Err(PoolError::NoSuchPool(target.pool.clone()).into());
        }
        if target.mode == Mode::Copy && held.tree().is_some() {
            return Err(TransferError::Exists(dataset));
        }
        self.pools.room(&target.pool)?;
        Ok(held)
    }
}

fn outgoing(pool: &PoolName, volume: &VolumeName) -> Outgoing {
    Outgoing {
        dataset: Dataset::volume(pool, volume),
        snapshots: Vec::new(),
        main: Main::Live,
        consistency: Consistency::Strict,
        header: Value::Null,
    }
}

fn incoming(permit: &Permit, target: &Target, then: Then) -> Incoming {
    Incoming {
        dataset: Dataset::volume(&target.pool, &target.volume),
        mode: target.mode,
        kin: Kin::of(permit.caller()),
        choose: Box::new(|_, _| Box::pin(async { Ok(Chosen::default()) })),
        record: then,
    }
}
