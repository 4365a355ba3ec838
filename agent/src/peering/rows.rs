//! What a peer is told of a service: rows made from the catalog and the health of its instances, cut to fit frames.

use std::hash::{DefaultHasher, Hasher};
use std::io;

use schema::name::ServiceName;
use serde::Serialize;

use crate::catalog::CatalogView;
use crate::health::{Health, Status};
use crate::wire::sync::{
    FULL_FRAME, MAX_INSTANCE, MAX_SERVICE, Offered, OfferedInstance, OfferedStatus, Part,
};

/// What is told of one service.
pub struct Rows {
    pub rows: Vec<Offered>,
    /// What could not be told as it is.
    pub left_out: Option<LeftOut>,
}

/// Why a peer is told less of a service than there is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeftOut {
    #[error(
        "its instances take more than {} MiB, so peers are told of none of them; spread them over several services",
        MAX_SERVICE >> 20
    )]
    Instances,
    #[error(
        "an instance takes more than {} KiB, so peers are told neither its tags nor its meta; shorten these",
        MAX_INSTANCE >> 10
    )]
    Details,
}

/// The rows of `name` as it is now. A service that is exported and has no instance is told of all the same, as Consul
/// does: its peer sees at once that there is nothing behind the name.
pub fn rows(view: &CatalogView, health: &Health, name: &ServiceName) -> Rows {
    let protocol = view.defaults.get(name).and_then(|defaults| defaults.protocol);
    let protocol = protocol.map(|protocol| protocol.to_string()).unwrap_or_default();
    cut(name, protocol, instances(view, health, name))
}

/// Those that take connections: one that only calls others is nobody's to know of.
fn instances(view: &CatalogView, health: &Health, name: &ServiceName) -> Vec<OfferedInstance> {
    let declared = view.instances(name).into_iter().flat_map(|instances| instances.iter());
    declared
        .filter(|instance| instance.listens())
        .map(|instance| OfferedInstance {
            id: instance.id.clone(),
            port: instance.service.port,
            tags: instance.service.tags.clone(),
            meta: instance.service.meta.clone(),
            weights: instance.service.weights,
            status: match health.instance(name, &instance.id).status {
                Status::Passing => OfferedStatus::Passing,
                Status::Warning => OfferedStatus::Warning,
                Status::Critical => OfferedStatus::Critical,
                Status::Maintenance => OfferedStatus::Maintenance,
            },
        })
        .collect()
}

fn cut(name: &ServiceName, protocol: String, instances: Vec<OfferedInstance>) -> Rows {
    let mut rest = Offered { name: name.clone(), protocol, part: Part::Whole, instances: Vec::new() };
    let mut rows = Vec::new();
    let mut left_out = None;
    let (mut all, mut here) = (0, 0);
    for mut instance in instances {
        let mut bytes = size(&instance);
        if bytes > MAX_INSTANCE {
            (instance.tags, instance.meta) = (Vec::new(), std::collections::BTreeMap::new());
            bytes = size(&instance);
            left_out = Some(LeftOut::Details);
        }
        all += instance.weight_bytes();
        if all > MAX_SERVICE {
            rest.part = Part::Whole;
            rest.instances.clear();
            return Rows { rows: vec![rest], left_out: Some(LeftOut::Instances) };
        }
        if here > 0 && here + bytes > FULL_FRAME {
            let part = if rows.is_empty() { Part::First } else { Part::Middle };
            rows.push(Offered { part, instances: std::mem::take(&mut rest.instances), ..rest.clone() });
            rest.part = Part::Last;
            here = 0;
        }
        here += bytes;
        rest.instances.push(instance);
    }
    rows.push(rest);
    Rows { rows, left_out }
}

/// Bytes of it as JSON.
pub fn size(value: &impl Serialize) -> usize {
    let mut counter = Counter(0);
    // Counting cannot fail, and a row has no key that is not a text.
    let _ = serde_json::to_writer(&mut counter, value);
    counter.0
}

/// The same for the same rows, and hardly ever for others.
pub fn digest(rows: &[Offered]) -> u64 {
    let mut hashing = Hashing(DefaultHasher::new());
    let _ = serde_json::to_writer(&mut hashing, rows);
    hashing.0.finish()
}

struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Hashing(DefaultHasher);

impl io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Rows that are gathered until they fill a frame.
#[derive(Debug, Default)]
pub struct Gathered {
    rows: Vec<Offered>,
    bytes: usize,
}

impl Gathered {
    /// Adds a row; gives those before it where it would not fit beside them.
    pub fn push(&mut self, row: Offered) -> Option<Vec<Offered>> {
        let bytes = size(&row);
        let full = (self.bytes > 0 && self.bytes + bytes > FULL_FRAME).then(|| self.take());
        self.bytes += bytes;
        self.rows.push(row);
        full
    }

    /// What is left.
    pub fn take(&mut self) -> Vec<Offered> {
        self.bytes = 0;
        std::mem::take(&mut self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sync::{MAX_FRAME, SyncFrame};

    fn instance(id: usize, meta: usize) -> OfferedInstance {
        OfferedInstance {
            id: format!("web-{id}").parse().unwrap(),
            port: Some(80),
            tags: vec![],
            meta: [("k".to_owned(), "\u{1}".repeat(meta))].into(),
            weights: schema::kind::service::Weights::default(),
            status: OfferedStatus::Passing,
        }
    }

    #[test]
    fn a_large_service_is_told_in_parts_that_fit_frames() {
        let name: ServiceName = "web".parse().unwrap();
        // What JSON makes six bytes of counts as six.
        let instances: Vec<_> = (0..40).map(|id| instance(id, 2_000)).collect();
        let Rows { rows, left_out } = cut(&name, "http".to_owned(), instances.clone());
        assert_eq!(left_out, None);
        assert!(rows.len() > 5);
        let parts: Vec<Part> = rows.iter().map(|row| row.part).collect();
        assert_eq!((parts[0], parts[1], parts[parts.len() - 1]), (Part::First, Part::Middle, Part::Last));
        let told: Vec<_> = rows.iter().flat_map(|row| row.instances.clone()).collect();
        assert_eq!(told, instances);
        let mut gathered = Gathered::default();
        let mut frames: Vec<Vec<Offered>> = rows.into_iter().filter_map(|row| gathered.push(row)).collect();
        frames.push(gathered.take());
        for services in frames {
            assert!(serde_json::to_vec(&SyncFrame::Items { services }).unwrap().len() < MAX_FRAME);
        }
    }

    #[test]
    fn what_is_too_large_is_told_without_what_makes_it_so() {
        let name: ServiceName = "web".parse().unwrap();
        let Rows { rows, left_out } = cut(&name, String::new(), vec![instance(0, MAX_INSTANCE)]);
        assert_eq!(left_out, Some(LeftOut::Details));
        assert!(rows[0].instances[0].meta.is_empty() && rows[0].instances[0].id.as_str() == "web-0");
        let many = (0..300).map(|id| instance(id, 0)).map(|mut instance| {
            instance.tags = vec!["t".repeat(30_000)];
            instance
        });
        let Rows { rows, left_out } = cut(&name, "http".to_owned(), many.collect());
        assert_eq!(left_out, Some(LeftOut::Instances));
        assert_eq!((rows.len(), rows[0].instances.len(), rows[0].part), (1, 0, Part::Whole));
    }

    #[test]
    fn the_largest_frames_fit() {
        let longest = "x".repeat(schema::name::MAX_NAME);
        let removed = vec![longest.parse().unwrap(); crate::wire::sync::MAX_REMOVED];
        let frame = SyncFrame::Change { services: vec![], removed, position: None };
        assert!(serde_json::to_vec(&frame).unwrap().len() < MAX_FRAME);
        const { assert!(FULL_FRAME + MAX_INSTANCE + 4096 < MAX_FRAME) };
    }
}
