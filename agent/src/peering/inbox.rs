//! What has been received of a peer's exports, as a state machine without I/O: frames go in, the services that the
//! peer offers come out.
//!
//! It outlives its streams: a stream that breaks loses only what was not whole, and the next one may go on from the
//! last position. Whatever does not fit the order of frames, or the limits, ends the stream with a [`Violation`].

use std::collections::BTreeSet;
use std::sync::Arc;

use schema::name::{ClusterName, ServiceName};

use crate::catalog::{ImportedService, ImportedServices};
use crate::wire::sync::{
    MAX_ADDRESSES, MAX_BYTES, MAX_INSTANCES, MAX_SERVICE, MAX_SERVICES, News, Offered, Part, PeerView,
    Position, SyncFrame, VERSION,
};

/// Why a frame is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("the peer sent {got} where {wanted} was due")]
    OutOfOrder { got: &'static str, wanted: &'static str },
    #[error("the peer speaks version {0} of the sync stream, and this agent version {VERSION}")]
    Version(u32),
    #[error("the peer goes on from a position that it was not asked for")]
    Resumed,
    #[error("the peer's position went back, or into another epoch")]
    Backwards,
    #[error("the peer sent a part of service {0:?} without the part before it, or without the one after it")]
    Torn(String),
    #[error("the peer says of service {0:?} that it speaks what is no word")]
    Protocol(String),
    #[error("the peer names instance {id:?} of service {service:?} twice")]
    Twice { service: String, id: String },
    #[error("the peer sent a snapshot of {told} services and said that it has {said}")]
    Count { told: u64, said: u64 },
    #[error("the peer exports more than {MAX_SERVICES} services")]
    TooManyServices,
    #[error("the peer exports more than {MAX_INSTANCES} instances")]
    TooManyInstances,
    #[error("the instances of the peer's service {:?} take more than {} MiB", .0, MAX_SERVICE >> 20)]
    TooLargeService(String),
    #[error("what the peer exports takes more than {} MiB", MAX_BYTES >> 20)]
    TooLarge,
    #[error("the peer names more than {MAX_ADDRESSES} addresses, or one that is none")]
    Addresses,
}

/// What a frame that was taken has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    Nothing,
    /// The greeting.
    Hello {
        cluster: ClusterName,
        view: PeerView,
        news: News,
    },
    News(News),
    View(PeerView),
    /// What the peer offers is another than before.
    Services,
}

/// What a peer exports, as far as it has been heard.
#[derive(Debug, Default)]
pub struct Inbox {
    held: Held,
    position: Option<Position>,
    stage: Stage,
    partial: Option<Partial>,
}

#[derive(Debug, Default)]
enum Stage {
    /// A stream was opened, and nothing came yet.
    #[default]
    Opened,
    /// The greeting came, and no snapshot yet.
    Greeted,
    /// A snapshot is on its way.
    Building(Held),
    /// What is held is what the peer offers.
    Current,
}

impl Stage {
    fn wants(&self) -> &'static str {
        match self {
            Stage::Opened => "a greeting",
            Stage::Greeted => "a snapshot",
            Stage::Building(_) => "the rest of a snapshot",
            Stage::Current => "a change",
        }
    }
}

/// Services, and what they come to.
#[derive(Debug, Clone, Default)]
struct Held {
    services: ImportedServices,
    instances: usize,
    bytes: usize,
}

impl Held {
    fn insert(&mut self, name: ServiceName, service: Arc<ImportedService>) -> Result<(), Violation> {
        let (instances, bytes) = size(&name, &service);
        let before = self.services.get(&name).map_or((0, 0), |before| size(&name, before));
        self.services.insert(name, service);
        self.instances = self.instances + instances - before.0;
        self.bytes = self.bytes + bytes - before.1;
        if self.services.len() > MAX_SERVICES {
            Err(Violation::TooManyServices)
        } else if self.instances > MAX_INSTANCES {
            Err(Violation::TooManyInstances)
        } else if self.bytes > MAX_BYTES {
            Err(Violation::TooLarge)
        } else {
            Ok(())
        }
    }

    fn remove(&mut self, name: &ServiceName) {
        // Exported and withdrawn again between two frames: it was never here.
        if let Some(service) = self.services.remove(name) {
            let (instances, bytes) = size(name, &service);
            (self.instances, self.bytes) = (self.instances - instances, self.bytes - bytes);
        }
    }

    /// This, sharing with `before` what is the same in both.
    fn shared_with(self, before: &Held) -> Held {
        let mut services = before.services.clone();
        for (name, _) in before.services.iter() {
            if self.services.get(name).is_none() {
                services.remove(name);
            }
        }
        for (name, service) in self.services.iter() {
            if services.get(name) != Some(service) {
                services.insert(name.clone(), service.clone());
            }
        }
        Held { services, ..self }
    }
}

/// What a service takes besides its texts and instances, about: its row in a map, and what counts who shares it.
const ROW: usize = 128;
/// Longest word for what a service speaks.
const MAX_PROTOCOL: usize = 32;

/// Instances of a service, and the bytes that it takes with them.
fn size(name: &ServiceName, service: &ImportedService) -> (usize, usize) {
    let bytes = service.instances.iter().map(crate::catalog::ImportedInstance::weight_bytes);
    let own = name.as_str().len() + service.protocol.len() + ROW;
    (service.instances.len(), own + bytes.sum::<usize>())
}

/// The first parts of a service.
#[derive(Debug)]
struct Partial {
    name: ServiceName,
    service: ImportedService,
    bytes: usize,
}

impl Inbox {
    /// A new stream begins: what was not whole is forgotten. Gives the position to go on from.
    pub fn opened(&mut self) -> Option<Position> {
        self.stage = Stage::Opened;
        self.partial = None;
        self.position
    }

    /// What the peer sent made no sense, so nothing is built on it: the next stream begins with a snapshot.
    pub fn distrust(&mut self) {
        self.position = None;
    }

    /// Whether what is held is what the peer offers.
    pub fn is_current(&self) -> bool {
        matches!(self.stage, Stage::Current)
    }

    pub fn services(&self) -> &ImportedServices {
        &self.held.services
    }

    /// Takes the next frame of the stream.
    pub fn take(&mut self, frame: SyncFrame) -> Result<Taken, Violation> {
        match (frame, &mut self.stage) {
            (SyncFrame::Hello { version, .. }, Stage::Opened) if version != VERSION => {
                Err(Violation::Version(version))
            }
            (SyncFrame::Hello { cluster, view, news, resumed, .. }, Stage::Opened) => {
                check(&news)?;
                self.stage = match resumed {
                    None => Stage::Greeted,
                    Some(_) if resumed == self.position => Stage::Current,
                    Some(_) => return Err(Violation::Resumed),
                };
                Ok(Taken::Hello { cluster, view, news })
            }
            (frame, Stage::Opened) => Err(out_of_order(&frame, "a greeting")),
            (SyncFrame::News { news }, _) => {
                check(&news)?;
                Ok(Taken::News(news))
            }
            (SyncFrame::Heartbeat { view }, _) => Ok(Taken::View(view)),
            // A sender whose memory did not reach back far enough begins anew in the middle of a stream.
            (SyncFrame::Begin, Stage::Greeted | Stage::Current) if self.partial.is_none() => {
                self.stage = Stage::Building(Held::default());
                Ok(Taken::Nothing)
            }
            (SyncFrame::Items { services }, Stage::Building(building)) => {
                for offered in services {
                    if let Some((name, service)) = whole(&mut self.partial, offered)? {
                        building.insert(name, Arc::new(service))?;
                    }
                }
                Ok(Taken::Nothing)
            }
            (SyncFrame::End { position, services }, Stage::Building(building)) => {
                done(&mut self.partial)?;
                let told = u64::try_from(building.services.len()).unwrap_or(u64::MAX);
                if told != services {
                    return Err(Violation::Count { told, said: services });
                }
                self.held = std::mem::take(building).shared_with(&self.held);
                self.stage = Stage::Current;
                self.position = Some(position);
                Ok(Taken::Services)
            }
            (SyncFrame::Change { services, removed, position }, Stage::Current) => {
                self.change(services, &removed, position)?;
                Ok(Taken::Services)
            }
            (frame, stage) => Err(out_of_order(&frame, stage.wants())),
        }
    }

    fn change(
        &mut self,
        services: Vec<Offered>,
        removed: &[ServiceName],
        position: Option<Position>,
    ) -> Result<(), Violation> {
        for offered in services {
            if let Some((name, service)) = whole(&mut self.partial, offered)? {
                self.held.insert(name, Arc::new(service))?;
            }
        }
        for name in removed {
            self.held.remove(name);
        }
        if let Some(now) = position {
            done(&mut self.partial)?;
            let forward = self
                .position
                .is_some_and(|before| before.epoch == now.epoch && before.sequence <= now.sequence);
            if !forward {
                return Err(Violation::Backwards);
            }
            self.position = Some(now);
        }
        Ok(())
    }
}

/// Adds a row to what has come of its service; gives the service once it is whole.
fn whole(
    partial: &mut Option<Partial>,
    offered: Offered,
) -> Result<Option<(ServiceName, ImportedService)>, Violation> {
    let Offered { name, protocol, part, instances } = offered;
    if protocol.len() > MAX_PROTOCOL || !protocol.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(Violation::Protocol(name.to_string()));
    }
    let torn = |name: &ServiceName| Violation::Torn(name.to_string());
    let mut this = match (partial.take(), part) {
        (None, Part::Whole | Part::First) => {
            Partial { name, service: ImportedService { protocol, instances: Vec::new() }, bytes: 0 }
        }
        (Some(before), Part::Middle | Part::Last) if before.name == name => before,
        (Some(before), _) => return Err(torn(&before.name)),
        (None, Part::Middle | Part::Last) => return Err(torn(&name)),
    };
    this.bytes += instances.iter().map(crate::catalog::ImportedInstance::weight_bytes).sum::<usize>();
    this.service.instances.extend(instances);
    if this.bytes > MAX_SERVICE {
        return Err(Violation::TooLargeService(this.name.to_string()));
    }
    if matches!(part, Part::First | Part::Middle) {
        *partial = Some(this);
        return Ok(None);
    }
    let Partial { name, mut service, .. } = this;
    let mut seen = BTreeSet::new();
    for instance in &service.instances {
        if !seen.insert(&instance.id) {
            return Err(Violation::Twice { service: name.to_string(), id: instance.id.to_string() });
        }
    }
    service.instances.sort_by(|a, b| a.id.cmp(&b.id));
    service.instances.shrink_to_fit();
    Ok(Some((name, service)))
}

fn done(partial: &mut Option<Partial>) -> Result<(), Violation> {
    partial.take().map_or(Ok(()), |partial| Err(Violation::Torn(partial.name.to_string())))
}

fn check(news: &News) -> Result<(), Violation> {
    let is_address = |address: &String| {
        address.len() <= 300
            && address.bytes().all(|byte| byte.is_ascii_graphic())
            && address.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
            })
    };
    if news.addresses.len() > MAX_ADDRESSES || !news.addresses.iter().all(is_address) {
        return Err(Violation::Addresses);
    }
    Ok(())
}

fn out_of_order(frame: &SyncFrame, wanted: &'static str) -> Violation {
    let got = match frame {
        SyncFrame::Hello { .. } => "a second greeting",
        SyncFrame::Begin => "the beginning of a snapshot",
        SyncFrame::Items { .. } => "a snapshot's items",
        SyncFrame::End { .. } => "the end of a snapshot",
        SyncFrame::Change { .. } => "a change",
        SyncFrame::News { .. } => "news of itself",
        SyncFrame::Heartbeat { .. } => "a heartbeat",
    };
    Violation::OutOfOrder { got, wanted }
}

#[cfg(test)]
mod tests;
