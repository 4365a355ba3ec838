//! When the instances of each service last changed, or their health: a number for clients that wait for the next change.
//!
//! Health is in memory only, so the store's revision does not tell. The numbers begin at the time of the start, in
//! milliseconds, and rise by one a change: so they are above whatever an earlier life of the agent has handed out, as
//! long as that had no more than a thousand changes a second.

use schema::name::ServiceName;

use crate::catalog::Sharded;

/// The numbers as of one moment.
#[derive(Debug, Clone, Default)]
pub struct Indexes {
    services: Sharded<ServiceName, u64>,
    newest: u64,
    /// Of the newest change by which a service went.
    gone: u64,
}

impl Indexes {
    pub(super) fn begin(start_ms: u64) -> Self {
        Self { services: Sharded::default(), newest: start_ms, gone: start_ms }
    }

    /// Of the newest change to `service`.
    pub fn of(&self, service: &ServiceName) -> u64 {
        self.services.get(service).copied().unwrap_or(self.gone)
    }

    /// Of the newest change to any service.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// One change, to all of these.
    pub(super) fn advance<'a>(&mut self, changed: impl Iterator<Item = (&'a ServiceName, Fate)>) {
        self.newest += 1;
        for (service, fate) in changed {
            match fate {
                Fate::Changed => _ = self.services.insert(service.clone(), self.newest),
                Fate::Gone => {
                    self.services.remove(service);
                    self.gone = self.newest;
                }
            }
        }
    }
}

/// What became of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Changed,
    Gone,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_one_service_is_none_of_another() {
        let (web, api): (ServiceName, ServiceName) = ("web".parse().unwrap(), "api".parse().unwrap());
        let mut indexes = Indexes::begin(1_000);
        assert_eq!((indexes.of(&web), indexes.newest()), (1_000, 1_000));
        indexes.advance([(&web, Fate::Changed), (&api, Fate::Changed)].into_iter());
        indexes.advance([(&api, Fate::Changed)].into_iter());
        assert_eq!((indexes.of(&web), indexes.of(&api), indexes.newest()), (1_001, 1_002, 1_002));
        // What is not there is as new as whatever went last: who waits for its return sees no number fall.
        indexes.advance([(&web, Fate::Gone)].into_iter());
        assert_eq!((indexes.of(&web), indexes.of(&"none".parse().unwrap())), (1_003, 1_003));
    }
}
