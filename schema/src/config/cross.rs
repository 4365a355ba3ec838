//! Faults that only show when declarations are seen beside one another.

use std::collections::HashMap;

use super::assemble::{Assembled, describe};
use crate::diagnostic::{Diagnostic, Location};
use crate::kind::cluster_link::ClusterLink;
use crate::kind::service::Service;
use crate::name::{InstanceId, RemoteName};
use crate::plan::Desired;
use crate::record::{Record, RecordKey};

/// Tells of every one.
pub fn check(assembled: &Assembled, diagnostics: &mut Vec<Diagnostic>) {
    let mut listeners = Listeners::default();
    let mut ids = InstanceIds::default();
    for desired in &assembled.desired {
        for (key, declared) in &desired.records {
            match (&declared.record, key) {
                (Record::ClusterLink(link), RecordKey::ClusterLink(name)) => {
                    diagnostics.extend(linked_to_itself(desired, name.as_str(), link, &declared.location));
                }
                (Record::Service(service), _) => {
                    ids.check(desired, key, &declared.location, diagnostics);
                    listeners.check(desired, key, service, &declared.location, diagnostics);
                }
                _ => {}
            }
        }
    }
}

fn linked_to_itself(desired: &Desired, name: &str, link: &ClusterLink, at: &Location) -> Option<Diagnostic> {
    let own = desired.manifest.cluster.as_ref()?.as_str();
    let peer = link.cluster.as_ref().map_or(name, RemoteName::as_str);
    (peer == own).then(|| {
        Diagnostic::error("link-to-itself", format!("cluster_link \"{name}\" links {own:?} to itself"), Some(at.clone()))
            .detail(
                "The manifest is applied to that cluster. Name the other one, by the link's name or by its `cluster`.",
            )
    })
}

/// The instances by id, by cluster: calls about an instance name it by nothing else.
#[derive(Default)]
struct InstanceIds<'d>(HashMap<(Option<&'d RemoteName>, InstanceId), (&'d RecordKey, &'d Location)>);

impl<'d> InstanceIds<'d> {
    fn check(
        &mut self,
        desired: &'d Desired,
        key: &'d RecordKey,
        at: &'d Location,
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        let Some((_, id)) = key.as_instance() else { return };
        let cluster = desired.manifest.cluster.as_ref();
        let Some((first, place)) = self.0.insert((cluster, id.clone()), (key, at)) else { return };
        let summary = format!("instance id \"{id}\" is that of {} and of {}", describe(first), describe(key));
        diagnostics.push(
            Diagnostic::error("id-taken-twice", summary, Some(at.clone()))
                .detail("An instance is found by its id alone, and has the service's name if it gives none.")
                .related(place.clone(), "the other is here"),
        );
    }
}

/// The local ports and sockets that upstreams listen on, by cluster: one agent cannot listen twice on one.
#[derive(Default)]
struct Listeners<'d>(HashMap<Listener<'d>, (&'d RecordKey, &'d Location)>);

/// Where an upstream listens: the cluster, and the address and port or the socket's path.
type Listener<'d> = (Option<&'d RemoteName>, &'d str, u16, &'d str);

impl<'d> Listeners<'d> {
    fn check(
        &mut self,
        desired: &'d Desired,
        key: &'d RecordKey,
        service: &'d Service,
        at: &'d Location,
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        for upstream in &service.upstreams {
            let listener = (
                desired.manifest.cluster.as_ref(),
                upstream.local_bind_address.as_str(),
                upstream.local_bind_port,
                upstream.local_bind_socket_path.as_str(),
            );
            let Some((first, place)) = self.0.insert(listener, (key, at)) else { continue };
            let local = match upstream.local_bind_port {
                0 => format!("local socket {}", upstream.local_bind_socket_path),
                port => format!("local port {port}"),
            };
            let who = if first == key { String::new() } else { format!(" and of {}", describe(first)) };
            let mut fault = Diagnostic::error(
                "port-taken-twice",
                format!("{local} is that of two upstreams of {}{who}", describe(key)),
                Some(at.clone()),
            );
            if first != key {
                fault = fault.related(place.clone(), "the other is here");
            }
            diagnostics.push(fault);
        }
    }
}
