//! Who is at work on an instance: never two at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use schema::name::{ContainerName, ProjectName};

use super::{InstanceError, Place};

/// What each instance that somebody is at work on is busy with.
#[derive(Debug, Clone, Default)]
pub(super) struct Holds(Arc<Mutex<HashMap<(ProjectName, ContainerName), &'static str>>>);

/// Keeps an instance from being changed by others until it is dropped.
#[derive(Debug)]
pub struct Busy {
    holds: Holds,
    place: (ProjectName, ContainerName),
}

impl Holds {
    pub fn take(&self, place: Place<'_>, doing: &'static str) -> Result<Busy, InstanceError> {
        let place = (place.0.clone(), place.1.clone());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = all.get(&place) {
            return Err(InstanceError::Busy(other));
        }
        all.insert(place.clone(), doing);
        Ok(Busy { holds: self.clone(), place })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.holds.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.place);
    }
}
