//! What a config entry has besides its parts: the one record of an entry that no part can hold.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::service_intentions::permission::Jwt;
use crate::access::precedence;
use crate::record::RecordKey;

/// Consul's `Meta` and `JWT` of an entry. An entry that has neither needs no such record, unless it has no parts either:
/// then this is what is left of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Entry {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    /// What every source of a destination must show. Not enforced yet, so that none of them is allowed.
    #[serde(default, skip_serializing_if = "Jwt::is_empty")]
    pub jwt: Jwt,
    /// The parts as a client that wrote them whole had them, where they do not stand in their own order. It decides
    /// nothing: the client is shown again what it wrote. Parts that are not among these come after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub order: Vec<RecordKey>,
}

/// Up to so many parts are shown again in the order in which they were written.
const MAX_ORDERED: usize = 1000;

impl Entry {
    /// The entry's parts, as they are shown: intentions by precedence, and otherwise in the order in which they were
    /// written, or else in their own.
    pub fn arrange<'a, T>(&self, parts: &mut [T], key: impl Fn(&T) -> &'a RecordKey) {
        let places: BTreeMap<&RecordKey, usize> =
            self.order.iter().enumerate().map(|(place, key)| (key, place)).collect();
        parts.sort_by_cached_key(|part| {
            let key = key(part);
            (Reverse(precedence_of(key)), places.get(key).copied().unwrap_or(usize::MAX), key.clone())
        });
    }

    /// Notes the order in which `written` has the parts, if that is not their own.
    pub fn note_order(&mut self, mut written: Vec<RecordKey>) {
        self.order.clear();
        if written.len() > MAX_ORDERED {
            return;
        }
        let mut own = written.clone();
        own.sort_by_cached_key(|key| (Reverse(precedence_of(key)), key.clone()));
        written.sort_by_key(|key| Reverse(precedence_of(key)));
        if written != own {
            self.order = written;
        }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn precedence_of(part: &RecordKey) -> u8 {
    match part {
        RecordKey::Intention { destination, source, .. } => precedence(destination, source),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(texts: &[&str]) -> Vec<RecordKey> {
        texts.iter().map(|text| format!("service_intentions/db/{text}").parse().unwrap()).collect()
    }

    #[test]
    fn parts_are_shown_as_they_were_written_within_their_precedence() {
        let mut entry = Entry::default();
        entry.note_order(keys(&["@/a", "@/b", "west/a", "@/*"]));
        assert!(entry.is_empty());
        entry.note_order(keys(&["@/*", "@/b", "@/a"]));
        let mut shown = keys(&["@/*", "@/a", "@/b", "@/c"]);
        let order = entry.clone();
        shown.sort();
        let mut shown: Vec<&RecordKey> = shown.iter().collect();
        order.arrange(&mut shown, |key| *key);
        let shown: Vec<RecordKey> = shown.into_iter().cloned().collect();
        assert_eq!(shown, keys(&["@/b", "@/a", "@/c", "@/*"]));
    }
}
