//! Data as it arrives, on all connections of a transfer at once.

use std::sync::{Mutex, PoisonError};
use std::thread;

use tokio_util::sync::CancellationToken;

use super::TransferError;
use super::batch::{Record, records};
use super::frame::{FrameError, Kind};
use super::lane::Lane;
use super::pack::Unpacker;
use super::progress::Meter;
use crate::task::crash;

/// Takes the data of one tree, each connection on a thread of its own. `with` is given what goes through a
/// connection's data, and calls it with what is done with each record.
pub fn each_lane(
    lanes: &[Lane],
    stop: &CancellationToken,
    meter: &Meter,
    with: impl Fn(&mut dyn FnMut(Take<'_>) -> Result<(), TransferError>) -> Result<(), TransferError> + Sync,
) -> Result<(), TransferError> {
    let failed: Mutex<[Option<TransferError>; 2]> = Mutex::default();
    let run = |lane: &Lane, is_first: bool| {
        let Err(e) = with(&mut |take| data(lane, meter, take)) else { return };
        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_first && matches!(e, TransferError::Connection(FrameError::Broken(_))) {
            // The source went, then, and says why over the first connection.
            failed[1].get_or_insert(e);
        } else if failed[0].is_none() {
            lanes.iter().take(1).for_each(|first| e.tell(first));
            failed[0] = Some(e);
            // The other connections have nothing more to wait for.
            stop.cancel();
        }
    };
    thread::scope(|scope| {
        for lane in lanes.iter().skip(1) {
            scope.spawn(|| run(lane, false));
        }
        lanes.iter().take(1).for_each(|first| run(first, true));
    });
    let [first, other] = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    first.or(other).map_or(Ok(()), Err)
}

/// What is done with each record.
pub type Take<'a> = &'a mut dyn FnMut(Record<'_>) -> Result<(), TransferError>;

/// Reads a connection's data until its end.
fn data(lane: &Lane, meter: &Meter, take: Take<'_>) -> Result<(), TransferError> {
    let mut unpacker = Unpacker::new().map_err(TransferError::Packing)?;
    let mut payload = Vec::new();
    loop {
        let kind = lane.receive(&mut payload)?;
        let batch = match kind {
            Kind::Data => payload.as_slice(),
            Kind::PackedData => unpacker
                .unpack(&payload)
                .map_err(|_| FrameError::Malformed("a batch that does not unpack"))?,
            Kind::Expect => {
                expected(meter, &payload);
                continue;
            }
            Kind::End => return Ok(()),
            _ => return Err(FrameError::Malformed("expected data").into()),
        };
        meter.sent(payload.len() as u64);
        let mut records = records(batch);
        while let Some(record) = records.read()? {
            take(record)?;
        }
    }
}

/// How much there will be, as the source says: for people alone.
pub fn expected(meter: &Meter, payload: &[u8]) {
    if let ([bytes, files], []) = payload.as_chunks::<8>() {
        meter.correct(u64::from_be_bytes(*bytes), u64::from_be_bytes(*files));
    }
}

/// Where a test may end the process: when half of the data has come.
#[derive(Debug, Default)]
pub struct Half {
    pub at: Option<u64>,
}

impl Half {
    pub fn look(&self, meter: &Meter) {
        let (done, total) = meter.so_far();
        if self.at.or(total.map(|total| total / 2)).is_some_and(|half| done >= half) {
            crash::point("transfer-half");
        }
    }
}
