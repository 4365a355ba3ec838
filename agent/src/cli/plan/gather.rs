//! From paths to plans: read and check the files, ask each cluster for its state, compare. Shared with `apply`.
//!
//! Every fault is collected before anything is given up: faults of the files, clusters that cannot be asked, records
//! that another manifest owns. Clusters are asked side by side, each once however many manifests go to it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::join_all;
use schema::config::{self, Loaded};
use schema::diagnostic::{Diagnostic, Sources, has_errors};
use schema::name::RemoteName;
use schema::plan::pairing::{Exchange, Site, exchanges};
use schema::plan::{Conflict, Data, Desired, Live, Plan, plan};
use schema::render::Colour;
use schema::render::plan::Section;

use crate::cli::{CliError, Context, Output, validate};
use crate::client::Client;

/// What is declared, and for each manifest of it the plan.
pub struct Gathered {
    pub loaded: Loaded,
    /// One for each of `loaded.desired`, in the same order.
    pub targets: Vec<Target>,
    /// Tokens to be exchanged once the plans are applied; sites are targets.
    pub exchanges: Vec<Exchange>,
}

/// A manifest's cluster and what is to be done there.
pub struct Target {
    /// The cluster as the manifest calls it, else as it calls itself.
    pub label: String,
    pub client: Client,
    pub live: Arc<Live>,
    pub plan: Plan,
}

/// Why there are no plans.
pub enum Ungathered {
    /// The declarations are at fault.
    Faulty {
        diagnostics: Vec<Diagnostic>,
        sources: Sources,
    },
    Failed(CliError),
}

impl From<CliError> for Ungathered {
    fn from(error: CliError) -> Self {
        Ungathered::Failed(error)
    }
}

impl Gathered {
    /// The plans as they are rendered.
    pub fn sections(&self) -> Vec<Section<'_>> {
        self.targets.iter().map(|target| Section::new(&target.label, &target.plan, &target.live)).collect()
    }
}

/// Plans for everything that `paths` declare.
pub async fn gather(paths: &[PathBuf], data: Data, context: &Context) -> Result<Gathered, Ungathered> {
    let (loaded, _) = validate::load(paths);
    if has_errors(&loaded.diagnostics) {
        return Err(Ungathered::Faulty { diagnostics: loaded.diagnostics, sources: loaded.sources });
    }
    if loaded.desired.is_empty() {
        return Err(nothing_declared(paths).into());
    }
    let clusters = ask(&loaded, context).await?;

    let mut lives = Vec::with_capacity(loaded.desired.len());
    for desired in &loaded.desired {
        match clusters.get(&desired.manifest.cluster) {
            Some((client, live)) => lives.push((client.clone(), Arc::clone(live))),
            // `ask` asked for every manifest's cluster or failed.
            None => return Err(CliError::failed("a cluster was not asked for its state").into()),
        }
    }
    let mut diagnostics =
        config::dangling(&loaded, |desired| clusters.get(&desired.manifest.cluster).map(|(_, live)| &**live));
    let sites: Vec<(&Desired, &Live)> =
        loaded.desired.iter().zip(&lives).map(|(desired, (_, live))| (desired, &**live)).collect();
    diagnostics.extend(meet_on_one_cluster(&sites));

    let mut targets = Vec::with_capacity(lives.len());
    for (desired, (client, live)) in loaded.desired.iter().zip(lives) {
        let label = desired.manifest.cluster.as_ref().map_or(live.cluster.to_string(), RemoteName::to_string);
        match plan(desired, &live, data) {
            Ok(plan) => targets.push(Target { label, client, live, plan }),
            Err(conflicts) => diagnostics.extend(conflicts.iter().map(Conflict::diagnostic)),
        }
    }
    if has_errors(&diagnostics) {
        diagnostics.splice(0..0, loaded.diagnostics);
        return Err(Ungathered::Faulty { diagnostics, sources: loaded.sources });
    }
    validate::warn(&loaded.diagnostics, &loaded.sources);
    validate::warn(&diagnostics, &loaded.sources);
    let exchanges = pair(&loaded, &targets)?;
    Ok(Gathered { loaded, targets, exchanges })
}

type Clusters = BTreeMap<Option<RemoteName>, (Client, Arc<Live>)>;

/// The state of every cluster that a manifest names, by the name.
async fn ask(loaded: &Loaded, context: &Context) -> Result<Clusters, CliError> {
    let mut names: Vec<Option<RemoteName>> =
        loaded.desired.iter().map(|desired| desired.manifest.cluster.clone()).collect();
    names.sort();
    names.dedup();
    let asked = join_all(names.into_iter().map(|name| async move {
        let client = context.client(name.as_ref()).await?;
        let live = client.state().await.map_err(CliError::from)?;
        Ok((name, (client, Arc::new(live))))
    }))
    .await;
    let mut clusters = Clusters::new();
    let mut errors = Vec::new();
    for answer in asked {
        match answer {
            Ok((name, cluster)) => {
                clusters.insert(name, cluster);
            }
            Err(error) => errors.push(error),
        }
    }
    match together(errors) {
        Some(error) => Err(error),
        None => Ok(clusters),
    }
}

/// One failure that tells of all; the first one's hint and code stand for it.
pub fn together(errors: Vec<CliError>) -> Option<CliError> {
    let mut errors = errors.into_iter();
    let first = errors.next()?;
    Some(errors.fold(first, |mut all, error| {
        all.message = format!("{}\n{}", all.message, error.message);
        all.hint = all.hint.or(error.hint);
        all
    }))
}

/// Manifests that turn out to go to one cluster, by different names, must not be the same or claim the same.
fn meet_on_one_cluster(sites: &[(&Desired, &Live)]) -> Vec<Diagnostic> {
    let mut faults = Vec::new();
    for (index, (one, here)) in sites.iter().enumerate() {
        let others = sites.iter().skip(index + 1).filter(|(_, there)| there.fingerprint == here.fingerprint);
        for (other, _) in others {
            if one.name == other.name {
                let summary = format!(
                    "manifest {:?} is declared twice for cluster {}",
                    one.name.as_str(),
                    here.cluster
                );
                let fault = Diagnostic::error("duplicate-manifest", summary, None).detail(
                    "Two remotes lead to this cluster. Give one of the manifests another name, or put both folders under one manifest.",
                );
                faults.push(fault);
                continue;
            }
            for (key, declared) in &one.records {
                if let Some(again) = other.records.get(key) {
                    let summary = format!(
                        "{key} is declared by manifest {:?} and by manifest {:?} for one cluster",
                        one.name.as_str(),
                        other.name.as_str()
                    );
                    faults.push(
                        Diagnostic::error("claimed-twice", summary, Some(again.location.clone()))
                            .related(declared.location.clone(), "first declared here"),
                    );
                }
            }
        }
    }
    faults
}

fn pair(loaded: &Loaded, targets: &[Target]) -> Result<Vec<Exchange>, Ungathered> {
    let sites: Vec<Site<'_>> = loaded
        .desired
        .iter()
        .zip(targets)
        .map(|(desired, target)| Site::new(desired, &target.live, &target.plan))
        .collect();
    exchanges(&sites).map_err(|unfit| {
        let end = unfit.end();
        let key = schema::record::RecordKey::ClusterLink(end.link.clone());
        let location = loaded.desired[end.site].records.get(&key).map(|declared| declared.location.clone());
        let fault = Diagnostic::error(unfit.code(), unfit.to_string(), location).detail(unfit.detail());
        Ungathered::Faulty { diagnostics: vec![fault], sources: loaded.sources.clone() }
    })
}

fn nothing_declared(paths: &[PathBuf]) -> CliError {
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    CliError::failed(format!("nothing is declared in {}", paths.join(", ")))
        .code("nothing-declared")
        .hint("A folder is read for *.hcl, *.toml and *.json. To remove what a manifest owns, keep its manifest block.")
}

pub fn colour(output: &Output) -> Colour {
    if output.colourful() { Colour::Always } else { Colour::Never }
}

#[cfg(test)]
mod tests {
    use schema::diagnostic::Location;
    use schema::kind::manifest::Manifest;
    use schema::kind::volume::Volume;
    use schema::plan::Declared;
    use schema::record::{LiveRecords, Record};

    use super::*;

    fn desired(name: &str, volume: &str) -> Desired {
        let location = Location { file: Arc::from("shop.hcl"), span: 0..0 };
        let declared = Declared { record: Record::Volume(Volume::default()), location };
        Desired {
            name: name.parse().unwrap(),
            manifest: Manifest::default(),
            records: BTreeMap::from([(volume.parse().unwrap(), declared)]),
            token_sources: BTreeMap::new(),
        }
    }

    fn live(fingerprint: &str) -> Live {
        Live {
            cluster: "east".parse().unwrap(),
            fingerprint: fingerprint.to_owned(),
            epoch: "first".to_owned(),
            revision: 0,
            records: LiveRecords::new(),
            manifests: BTreeMap::new(),
            links: BTreeMap::new(),
        }
    }

    #[test]
    fn two_remotes_of_one_cluster_are_one_place() {
        let (one, other) = (desired("shop", "volume/default/a"), desired("billing", "volume/default/a"));
        let (here, there) = (live("aa"), live("bb"));
        let codes = |sites: &[(&Desired, &Live)]| -> Vec<&str> {
            meet_on_one_cluster(sites).iter().map(|fault| fault.code).collect()
        };
        assert!(codes(&[(&one, &here), (&one, &there)]).is_empty());
        assert_eq!(codes(&[(&one, &here), (&one, &here)]), ["duplicate-manifest"]);
        assert_eq!(codes(&[(&one, &here), (&other, &here)]), ["claimed-twice"]);
    }

    #[test]
    fn failures_of_several_clusters_are_told_together() {
        let errors = ["east is down", "west is down"].map(CliError::failed);
        assert_eq!(together(errors.to_vec()).unwrap().message, "east is down\nwest is down");
        assert!(together(Vec::new()).is_none());
    }
}
