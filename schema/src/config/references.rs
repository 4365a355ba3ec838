//! Names that nothing declares: in the given files first, on the live clusters after.

use super::assemble::{Assembled, describe};
use super::{Loaded, Reference};
use crate::diagnostic::nearest::suggestion;
use crate::diagnostic::{Diagnostic, Severity};
use crate::kind::Kind;
use crate::kind::auth_group::entitlements::ADMINS;
use crate::name::ManifestName;
use crate::plan::{Desired, Live};
use crate::record::RecordKey;

/// What is named in the files and declared in none of them for that cluster.
pub fn unsatisfied(assembled: &Assembled) -> Vec<Reference> {
    let mut references = Vec::new();
    for (owner, location, mention) in &assembled.mentions {
        if matches!(&mention.to, RecordKey::AuthGroup(group) if group.as_str() == ADMINS) {
            continue;
        }
        let own = &assembled.desired[*owner];
        let cluster = mention.cluster.as_ref().or(own.manifest.cluster.as_ref());
        if assembled.declared.contains_key(&(cluster.cloned(), mention.to.clone())) {
            continue;
        }
        let on = if cluster == own.manifest.cluster.as_ref() {
            Some(*owner)
        } else {
            assembled.desired.iter().position(|desired| desired.manifest.cluster.as_ref() == cluster)
        };
        // A cluster that no manifest here is applied to is asked when the thing is used.
        let Some(on) = on else { continue };
        references.push(Reference {
            from: mention.from.clone(),
            manifest: own.name.clone(),
            desired: on,
            to: mention.to.clone(),
            location: location.clone(),
            severity: mention.severity,
        });
    }
    references
}

/// The references that are satisfied nowhere. `live` gives a manifest's cluster, if it is known: with `validate`
/// it never is, and only groups of either sort and links are asked for.
pub fn dangling<'l>(loaded: &Loaded, live: impl Fn(&Desired) -> Option<&'l Live>) -> Vec<Diagnostic> {
    loaded
        .references
        .iter()
        .filter_map(|reference| {
            let desired = loaded.desired.get(reference.desired)?;
            match live(desired) {
                Some(live) if is_live(&reference.to, live, desired, loaded) => None,
                None if !matches!(
                    reference.to.kind(),
                    Kind::AuthGroup | Kind::ClusterLink | Kind::SamenessGroup
                ) =>
                {
                    None
                }
                known => Some(diagnostic(reference, loaded, desired, known)),
            }
        })
        .collect()
}

/// True if `to` is on the cluster and stays there: not if its manifest is in this run and declares it no more.
fn is_live(to: &RecordKey, live: &Live, on: &Desired, loaded: &Loaded) -> bool {
    let Some(record) = live.records.get(to) else {
        return matches!(to, RecordKey::ClusterLink(link) if live.links.contains_key(link));
    };
    let pruned = |owner: &ManifestName| {
        loaded
            .desired
            .iter()
            .any(|desired| desired.name == *owner && desired.manifest.cluster == on.manifest.cluster)
    };
    !record.owner.as_ref().is_some_and(pruned)
}

fn diagnostic(reference: &Reference, loaded: &Loaded, on: &Desired, live: Option<&Live>) -> Diagnostic {
    let to = &reference.to;
    let from = match &reference.from {
        Some(from) => describe(from),
        None => format!("manifest \"{}\"", reference.manifest),
    };
    let declared = loaded
        .desired
        .iter()
        .filter(|desired| desired.manifest.cluster == on.manifest.cluster)
        .flat_map(|desired| desired.records.keys());
    let names: Vec<String> = declared
        .chain(live.into_iter().flat_map(|live| live.records.keys()))
        .filter(|key| key.kind() == to.kind())
        .map(RecordKey::entry_name)
        .collect();
    let near = suggestion(&to.entry_name(), names.iter().map(String::as_str));
    let place = if live.is_some() { "and it is not on the cluster" } else { "in the given files" };
    let summary = format!("{from} names {}, which nothing declares{near}", describe(to));
    let detail = match live {
        Some(_) => format!("Nothing in the given files declares it, {place}."),
        None => format!("Nothing {place} declares it for the same cluster."),
    };
    let at = Some(reference.location.clone());
    let fault = match reference.severity {
        Severity::Error => Diagnostic::error("dangling-reference", summary, at),
        Severity::Warning => Diagnostic::warning("dangling-reference", summary, at),
    };
    fault.detail(detail)
}
