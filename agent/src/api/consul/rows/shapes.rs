//! What rows are made of, for filters.

use crate::api::consul::filter::Shape::{self, Bool, Int, List, Map, Struct, Text};

const ADDRESS: Shape = Struct(&[("Address", Text), ("Port", Int)]);
const WEIGHTS: Shape = Struct(&[("Passing", Int), ("Warning", Int)]);
const CONNECT: Shape = Struct(&[("Native", Bool)]);

pub const NODE: Shape = Struct(&[
    ("ID", Text),
    ("Node", Text),
    ("Address", Text),
    ("Datacenter", Text),
    ("PeerName", Text),
    ("TaggedAddresses", Map(&Text)),
    ("Meta", Map(&Text)),
]);

/// As the catalog and health have it, and the agent too.
pub const SERVICE: Shape = Struct(&[
    ("Kind", Text),
    ("ID", Text),
    ("Service", Text),
    ("Tags", List(&Text)),
    ("Meta", Map(&Text)),
    ("Port", Int),
    ("Address", Text),
    ("SocketPath", Text),
    ("TaggedAddresses", Map(&ADDRESS)),
    ("Weights", WEIGHTS),
    ("EnableTagOverride", Bool),
    ("Connect", CONNECT),
    ("PeerName", Text),
]);

pub const CHECK: Shape = Struct(&[
    ("Node", Text),
    ("CheckID", Text),
    ("Name", Text),
    ("Status", Text),
    ("Notes", Text),
    ("Output", Text),
    ("ServiceID", Text),
    ("ServiceName", Text),
    ("ServiceTags", List(&Text)),
    ("Type", Text),
    ("Interval", Text),
    ("Timeout", Text),
    ("ExposedPort", Int),
    ("PeerName", Text),
]);

pub const WITH_CHECKS: Shape = Struct(&[("Node", NODE), ("Service", SERVICE), ("Checks", List(&CHECK))]);

pub const SERVICE_NODE: Shape = Struct(&[
    ("ID", Text),
    ("Node", Text),
    ("Address", Text),
    ("Datacenter", Text),
    ("TaggedAddresses", Map(&Text)),
    ("NodeMeta", Map(&Text)),
    ("ServiceKind", Text),
    ("ServiceID", Text),
    ("ServiceName", Text),
    ("ServiceTags", List(&Text)),
    ("ServiceAddress", Text),
    ("ServiceTaggedAddresses", Map(&ADDRESS)),
    ("ServiceWeights", WEIGHTS),
    ("ServiceMeta", Map(&Text)),
    ("ServicePort", Int),
    ("ServiceSocketPath", Text),
    ("ServiceEnableTagOverride", Bool),
    ("ServiceConnect", CONNECT),
    ("PeerName", Text),
]);
