//! One pass: from the folder to the cluster, with the very functions that the command line uses.

use std::collections::BTreeMap;
use std::path::Path;

use schema::config::{self, Inputs, Loaded};
use schema::diagnostic::{Diagnostic, Location, Severity, Sources, has_errors};
use schema::kind::cluster_link::TokenSource;
use schema::plan::pairing::{Exchange, Site, exchanges};
use schema::plan::{Conflict, Data, Desired, Live, Plan, plan};
use schema::record::RecordKey;

use super::{ReconcileParts, owner};
use crate::authorize::{Entitlement, Entity, Permit, decide};
use crate::files::{self, DiskInputs};
use crate::store::Revision;
use crate::trust::{Caller, Origin, Who};
use crate::wire::control::{ApplyRequest, WatchFault, WatchState};

/// What a pass came to.
#[derive(Debug)]
pub struct Outcome {
    pub state: WatchState,
    pub faults: Vec<WatchFault>,
    /// The last commit of the pass, or the revision that nothing was found to do at.
    pub revision: Revision,
    /// Records that were changed.
    pub changes: usize,
    /// Somebody else changed what was planned against; plan again.
    pub overtaken: bool,
}

impl Outcome {
    fn of(state: WatchState, faults: Vec<WatchFault>) -> Self {
        Self { state, faults, revision: Revision(0), changes: 0, overtaken: false }
    }

    fn failing(message: impl Into<String>) -> Self {
        Self::of(WatchState::Failing, vec![WatchFault { at: None, message: message.into() }])
    }
}

/// What is planned for each manifest of the folder.
struct Planned {
    loaded: Loaded,
    live: Live,
    plans: Vec<Plan>,
}

pub async fn pass(parts: &ReconcileParts) -> Outcome {
    let planned = match prepare(parts).await {
        Ok(planned) => planned,
        Err(outcome) => return outcome,
    };
    let uid = rustix::process::geteuid().as_raw();
    // The folder is the administrator's word: who may write there may do all that he may.
    let origin = Origin { request: uuid::Uuid::new_v4(), address: None, session: None };
    let administrator = Caller { who: Who::Local { uid }, origin, shown: None };
    let permit = |entity| decide(&administrator, Entitlement::CanEdit, entity, &parts.identities.policy());
    let mut outcome = Outcome::of(WatchState::Applied, Vec::new());
    outcome.revision = Revision(planned.live.revision);
    match permit(Entity::Server) {
        Ok(permit) => apply(parts, &permit, &planned, &mut outcome).await,
        Err(denied) => return Outcome::failing(denied.to_string()),
    }
    if outcome.state != WatchState::Applied {
        return outcome;
    }
    for (link, given) in given(&planned) {
        let made = match (permit(Entity::ClusterLink(link.clone())), given) {
            (Ok(permit), Ok(Given::Token(token))) => parts.redeem.redeem(&permit, &link, token.trim()).await,
            (Ok(permit), Ok(Given::Certificate)) => parts.redeem.pin(&permit, &link).await,
            (_, Err(why)) => Err(why),
            (Err(denied), _) => Err(denied.to_string()),
        };
        if let Err(why) = made {
            outcome.state = WatchState::Failing;
            outcome.faults.push(WatchFault { at: None, message: format!("cluster_link.{link}: {why}") });
        }
    }
    outcome
}

/// Reads, checks and plans; the outcome is why there is nothing to apply.
async fn prepare(parts: &ReconcileParts) -> Result<Planned, Outcome> {
    let folder = parts.folder.clone();
    let read = tokio::task::spawn_blocking(move || read(&folder)).await;
    let loaded = read.map_err(|error| Outcome::failing(error.to_string()))??;
    let own = parts.observe.cluster();
    let mut diagnostics = elsewhere(&loaded, own.as_str());
    diagnostics.extend(claimed_twice(&loaded));
    if has_errors(&loaded.diagnostics) || has_errors(&diagnostics) {
        return Err(faulty(&loaded, &diagnostics));
    }
    let live = parts.observe.live().await.map_err(|error| Outcome::failing(error.to_string()))?;
    diagnostics.extend(config::dangling(&loaded, |_| Some(&live)));
    let mut plans = Vec::with_capacity(loaded.desired.len());
    for desired in &loaded.desired {
        match plan(desired, &live, Data::Keep) {
            Ok(plan) => plans.push(plan),
            Err(conflicts) => diagnostics.extend(conflicts.iter().map(Conflict::diagnostic)),
        }
    }
    if has_errors(&diagnostics) {
        return Err(faulty(&loaded, &diagnostics));
    }
    Ok(Planned { loaded, live, plans })
}

fn read(folder: &Path) -> Result<Loaded, Outcome> {
    if !folder.is_dir() {
        return Err(Outcome::of(WatchState::Missing, Vec::new()));
    }
    if let Err(fault) = owner::check(folder, rustix::process::geteuid().as_raw()) {
        return Err(Outcome::of(WatchState::Faulty, vec![fault]));
    }
    let (files, unreadable) = files::read(&[folder.to_owned()]);
    // Gone while it was read: half of it must not be taken for the whole.
    if !folder.is_dir() {
        return Err(Outcome::of(WatchState::Missing, Vec::new()));
    }
    let mut loaded = config::load(&files, &DiskInputs::of_watched_folder());
    loaded.diagnostics.splice(0..0, unreadable);
    Ok(loaded)
}

/// Manifests that are for another cluster than the one that watches.
fn elsewhere(loaded: &Loaded, own: &str) -> Vec<Diagnostic> {
    let others = loaded.desired.iter().filter_map(|desired| {
        let named = desired.manifest.cluster.as_ref().filter(|named| named.as_str() != own)?;
        let summary = format!(
            "manifest {:?} is for cluster {:?}, but this agent's is {own:?}",
            desired.name.as_str(),
            named.as_str()
        );
        let fault = Diagnostic::error("other-cluster", summary, None)
            .detail("A watched folder names its own agent's cluster, or none.");
        Some(fault)
    });
    others.collect()
}

/// All manifests of a watched folder are for one cluster, so no two may claim one record.
fn claimed_twice(loaded: &Loaded) -> Vec<Diagnostic> {
    let mut claims: BTreeMap<&RecordKey, (&Desired, &Location)> = BTreeMap::new();
    let mut faults = Vec::new();
    for desired in &loaded.desired {
        for (key, declared) in &desired.records {
            let Some((first, place)) = claims.get(key) else {
                claims.insert(key, (desired, &declared.location));
                continue;
            };
            let summary = format!(
                "{key} is declared by manifest {:?} and by manifest {:?}",
                first.name.as_str(),
                desired.name.as_str()
            );
            faults.push(
                Diagnostic::error("claimed-twice", summary, Some(declared.location.clone()))
                    .related((*place).clone(), "first declared here"),
            );
        }
    }
    faults
}

async fn apply(parts: &ReconcileParts, permit: &Permit, planned: &Planned, outcome: &mut Outcome) {
    for plan in &planned.plans {
        if plan.changes.is_empty() && plan.owners_before.is_none() {
            continue;
        }
        let request = ApplyRequest { plan: plan.clone(), destroy_data: false };
        match parts.apply.apply(permit, request).await {
            Ok(applied) => {
                outcome.revision = outcome.revision.max(Revision(applied.revision));
                outcome.changes += plan.changes.len();
                outcome
                    .faults
                    .extend(applied.unfinished.into_iter().map(|message| WatchFault { at: None, message }));
            }
            Err(error) => {
                outcome.state = WatchState::Failing;
                outcome.overtaken |= error.is_stale();
                let hint = error.hint().map_or_else(String::new, |hint| format!(". {hint}"));
                let message = format!("manifest {:?}: {error}{hint}", plan.manifest.as_str());
                outcome.faults.push(WatchFault { at: None, message });
            }
        }
    }
}

/// What the folder names to make a link's trust with.
enum Given {
    Token(String),
    /// A public link's, in its declaration.
    Certificate,
}

/// Links without trust that the folder itself can make, and what with.
fn given(planned: &Planned) -> Vec<(schema::name::LinkName, Result<Given, String>)> {
    let sites: Vec<Site<'_>> = planned
        .loaded
        .desired
        .iter()
        .zip(&planned.plans)
        .map(|(desired, plan)| Site::new(desired, &planned.live, plan))
        .collect();
    let exchanges = match exchanges(&sites) {
        Ok(exchanges) => exchanges,
        Err(unfit) => return vec![(unfit.end().link.clone(), Err(format!("{unfit}. {}", unfit.detail())))],
    };
    let given = exchanges.into_iter().filter_map(|exchange| match exchange {
        Exchange::Redeem { end, from } => {
            let key = RecordKey::ClusterLink(end.link.clone());
            let declared = planned.loaded.desired.get(end.site)?.records.get(&key)?;
            let inputs = DiskInputs::of_watched_folder();
            let token = match &from {
                TokenSource::File(wanted) => inputs.file(&declared.location.file, wanted),
                TokenSource::Environment(name) => inputs.env(name),
            };
            Some((end.link, token.map(Given::Token)))
        }
        Exchange::Pin { end } => Some((end.link, Ok(Given::Certificate))),
        // Nobody is here to carry a token away: the other side's, or `comity link`, begins the exchange.
        Exchange::Mint { .. } | Exchange::Paired { .. } => None,
    });
    given.collect()
}

fn faulty(loaded: &Loaded, more: &[Diagnostic]) -> Outcome {
    let all = loaded.diagnostics.iter().chain(more);
    let faults = all
        .filter(|diagnostic| diagnostic.severity == Severity::Error)
        .map(|diagnostic| WatchFault {
            at: diagnostic.location.as_ref().map(|location| place(location, &loaded.sources)),
            message: if diagnostic.detail.is_empty() {
                diagnostic.summary.clone()
            } else {
                format!("{}. {}", diagnostic.summary, diagnostic.detail)
            },
        })
        .collect();
    Outcome::of(WatchState::Faulty, faults)
}

/// `FILE:LINE:COLUMN`, both counted from 1 and the column in characters.
fn place(location: &Location, sources: &Sources) -> String {
    let before = sources.0.get(&location.file).and_then(|text| text.get(..location.span.start));
    match before {
        None => location.file.to_string(),
        Some(before) => {
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
            format!("{}:{line}:{column}", location.file)
        }
    }
}
