//! Trees over a client's own connection: a folder of its machine becomes a volume's data, and the other way about.

use schema::kind::transfer::Mode;
use serde_json::Value;

use super::TransferError;
use super::bridge::Stream;
use super::connections::Connections;
use super::exchange::{receive, send, unreported};
use super::receive::Received;
use super::run::{Then, Transfers};
use super::send::Sent;
use super::shipment::{Chosen, Consistency, Incoming, Kin, Main, Origin, Outgoing};
use crate::authorize::Permit;
use crate::dataset::Dataset;
use crate::dataset::pool::Use;

impl Transfers {
    /// Takes a tree that the caller sends over its own connection, of at most `size` bytes of data.
    pub async fn import(
        &self,
        permit: &Permit,
        dataset: &Dataset,
        size: Option<u64>,
        stream: Box<dyn Stream>,
        then: Then,
    ) -> Result<Received, TransferError> {
        let incoming = Incoming {
            dataset: dataset.clone(),
            origin: Origin::default(),
            mode: Mode::Refresh,
            kin: Kin::of(permit.caller()),
            size,
            choose: Box::new(|_, _| Box::pin(async { Ok(Chosen::default()) })),
            record: then,
        };
        let held = self.claim(dataset, Mode::Refresh)?.of_size(size);
        receive(held, Connections::single(stream), incoming, unreported()).await
    }

    /// Sends a tree over the caller's own connection.
    pub async fn export(
        &self,
        _permit: &Permit,
        dataset: &Dataset,
        stream: Box<dyn Stream>,
    ) -> Result<Sent, TransferError> {
        let outgoing = Outgoing {
            dataset: dataset.clone(),
            snapshots: Vec::new(),
            main: Main::Live,
            consistency: Consistency::Strict,
            header: Value::Null,
        };
        let held = self.pools.hold(dataset, Use::Reading)?;
        send(&self.pools, held, Connections::single(stream), outgoing, unreported()).await
    }

    /// Checks, before anything is moved, that the target may be written.
    pub fn check_target(&self, dataset: &Dataset) -> Result<(), TransferError> {
        self.claim(dataset, Mode::Refresh).map(drop)
    }
}
