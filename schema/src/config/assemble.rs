//! Whose each declaration is: a file belongs to the nearest manifest upward, else to the manifest `default`.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Location};
use crate::document::Span;
use crate::kind::manifest::Manifest;
use crate::kind::{Decoded, DecodedRecord, Mention};
use crate::name::{ManifestName, RemoteName};
use crate::origin::Origin;
use crate::plan::{Declared, Desired};
use crate::record::RecordKey;

/// A file's declarations.
pub struct DecodedFile {
    pub path: Arc<str>,
    pub folder: Arc<str>,
    pub decoded: Vec<(Span, Decoded)>,
}

/// What all files come to.
#[derive(Default)]
pub struct Assembled {
    pub desired: Vec<Desired>,
    /// What each names and does not declare itself, with the index of its manifest.
    pub mentions: Vec<(usize, Location, Mention)>,
    /// Which manifest declares a record of a cluster, and where.
    pub declared: HashMap<(Option<RemoteName>, RecordKey), usize>,
}

/// Gives every record its manifest. Two that claim one record are a fault.
pub fn assemble(files: Vec<DecodedFile>, diagnostics: &mut Vec<Diagnostic>) -> Assembled {
    let mut assembled = Assembled::default();
    let mut folders = find_manifests(&files, &mut assembled, diagnostics);
    for file in files {
        for (_, mut decoded) in file.decoded {
            let owner = owner(&file.folder, &mut folders, &decoded, &mut assembled);
            let Some(owner) = owner else { continue };
            let at = |span: Span| Location { file: Arc::clone(&file.path), span: span.into() };
            if let Some((link, source)) = decoded.token_source.take() {
                assembled.desired[owner].token_sources.insert(link, source);
            }
            for mention in decoded.mentions.drain(..) {
                assembled.mentions.push((owner, at(mention.span), mention));
            }
            for record in decoded.records {
                let location = at(record.span);
                insert(&mut assembled, owner, record, location, diagnostics);
            }
        }
    }
    assembled
}

/// The manifest of each folder that has one.
fn find_manifests(
    files: &[DecodedFile],
    assembled: &mut Assembled,
    diagnostics: &mut Vec<Diagnostic>,
) -> HashMap<String, usize> {
    let mut folders: HashMap<String, usize> = HashMap::new();
    let mut places: Vec<Location> = Vec::new();
    let mut names: BTreeMap<(ManifestName, Option<RemoteName>), usize> = BTreeMap::new();
    for file in files {
        for (span, decoded) in &file.decoded {
            let Some((name, manifest)) = &decoded.manifest else { continue };
            let location = Location { file: Arc::clone(&file.path), span: (*span).into() };
            match folders.entry(canonical(&file.folder)) {
                Entry::Occupied(first) => diagnostics.push(
                    Diagnostic::error("two-manifests", "two manifests in one folder", Some(location))
                        .detail("A folder is applied as one. Give each manifest a folder of its own.")
                        .related(places[*first.get()].clone(), "the first is here"),
                ),
                Entry::Vacant(vacant) => {
                    let index = assembled.desired.len();
                    vacant.insert(index);
                    if let Some(first) = names.insert((name.clone(), manifest.cluster.clone()), index) {
                        let cluster =
                            manifest.cluster.as_ref().map_or("the default remote".to_owned(), |cluster| {
                                format!("cluster \"{cluster}\"")
                            });
                        diagnostics.push(
                            Diagnostic::error(
                                "duplicate-name",
                                format!("manifest \"{name}\" of {cluster} is declared twice"),
                                Some(location.clone()),
                            )
                            .detail(
                                "Each would prune what the other declares. Give one of them another name.",
                            )
                            .related(places[first].clone(), "first declared here"),
                        );
                    }
                    places.push(location);
                    assembled.desired.push(desired(name.clone(), manifest.clone()));
                }
            }
        }
    }
    folders
}

fn desired(name: ManifestName, manifest: Manifest) -> Desired {
    Desired { name, manifest, records: BTreeMap::new(), token_sources: BTreeMap::new() }
}

/// The manifest of what is declared in `folder`. The manifest `default` is there only once something needs it, so
/// that an empty folder means nothing rather than "delete all".
fn owner(
    folder: &str,
    folders: &mut HashMap<String, usize>,
    decoded: &Decoded,
    assembled: &mut Assembled,
) -> Option<usize> {
    let mut at = canonical(folder);
    loop {
        if let Some(index) = folders.get(&at) {
            return Some(*index);
        }
        match at.rfind('/') {
            _ if at.is_empty() => break,
            Some(end) => at.truncate(end),
            None => at.clear(),
        }
    }
    if decoded.records.is_empty() && decoded.mentions.is_empty() {
        return None;
    }
    let name: ManifestName = "default".parse().ok()?;
    let known =
        assembled.desired.iter().position(|known| known.name == name && known.manifest.cluster.is_none());
    let index = known.unwrap_or_else(|| {
        assembled.desired.push(desired(name, Manifest::default()));
        assembled.desired.len() - 1
    });
    folders.insert(String::new(), index);
    Some(index)
}

/// One spelling for each folder: `./east/` and `east` are the same.
fn canonical(folder: &str) -> String {
    let parts: Vec<&str> = folder.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let root = if folder.starts_with('/') { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

fn insert(
    assembled: &mut Assembled,
    owner: usize,
    record: DecodedRecord,
    location: Location,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let DecodedRecord { key, record, .. } = record;
    let cluster = assembled.desired[owner].manifest.cluster.clone();
    if let Some(&first) = assembled.declared.get(&(cluster.clone(), key.clone())) {
        let place = assembled.desired[first].records.get(&key).map(|declared| declared.location.clone());
        let mut fault = if first == owner {
            Diagnostic::error(
                "duplicate-name",
                format!("{} is declared twice", describe(&key)),
                Some(location),
            )
        } else {
            let (one, other) = (&assembled.desired[first].name, &assembled.desired[owner].name);
            Diagnostic::error(
                "claimed-twice",
                format!("{} is claimed by two manifests, \"{one}\" and \"{other}\"", describe(&key)),
                Some(location),
            )
            .detail("Both are applied to the same cluster, and an object has one owner. Declare it in one of them.")
        };
        if let Some(place) = place {
            fault = fault.related(place, "first declared here");
        }
        return diagnostics.push(fault);
    }
    assembled.declared.insert((cluster, key.clone()), owner);
    assembled.desired[owner].records.insert(key, Declared { record, location });
}

/// A record as a sentence names it.
pub fn describe(key: &RecordKey) -> String {
    match key {
        RecordKey::Export(service) => format!("the export of \"{service}\""),
        RecordKey::ExportEntry => "the meta of exported_services \"default\"".to_owned(),
        RecordKey::IntentionEntry(destination) => {
            format!("the meta or jwt of service_intentions \"{destination}\"")
        }
        RecordKey::Intention { destination, origin, source } => {
            let of = match origin {
                Origin::Local => String::new(),
                Origin::Peer(peer) => format!(" of peer \"{peer}\""),
                Origin::Group(group) => format!(" of sameness group \"{group}\""),
                Origin::AnyPeer => " of any peer".to_owned(),
            };
            format!("source \"{source}\"{of} of service_intentions \"{destination}\"")
        }
        RecordKey::Instance { service, id } => format!("instance \"{id}\" of service \"{service}\""),
        other => format!("{} \"{}\"", other.kind(), other.entry_name()),
    }
}
