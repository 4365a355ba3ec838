//! Who is calling, and over which request.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use schema::name::{GroupName, LinkName, ProjectName};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Fingerprint;
use super::groups::Groups;
use super::identity_id::IdentityId;
use super::shown::Shown;
use crate::audit::Actor;

/// Who asks, and where the asking came from. Carried by each permit, so that what acts on one can say for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub who: Who,
    pub origin: Origin,
    /// The certificate that was shown, for what outlives the request: an authority may take its word back.
    pub shown: Option<Arc<Shown>>,
}

/// One request, as logs name it. Work that nobody asked for over the network has the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Origin {
    pub request: Uuid,
    /// Where from; `None` for the unix socket and for streams of a link.
    pub address: Option<SocketAddr>,
    /// The login that it belongs to, of somebody whom the identity provider vouches for.
    pub session: Option<Uuid>,
}

/// Who is calling, as established by the connection and looked up anew for each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Over the unix socket, with this user id (root's or the agent's own).
    Local { uid: u32 },
    /// An identity of the store: a client by certificate, by bearer token, or by an identity provider's word.
    Client { id: IdentityId, name: String, access: Access },
    /// The other side of a link, by its pinned cluster certificate.
    Peer { link: LinkName, fingerprint: Fingerprint, groups: Groups },
    /// A certificate that is good for reading metrics and for nothing else (LXD: metrics certificate).
    Metrics { fingerprint: Fingerprint, name: String },
    /// A certificate that one of the administrator's authorities has signed, and that is trusted for nothing else: it may
    /// do everything (LXD: method `pki`).
    Signed { fingerprint: Fingerprint, name: String },
    /// A node of this cluster, by a certificate of the cluster's own authority. It is no client of the API.
    Node { fingerprint: Fingerprint, id: Uuid },
    /// No certificate, or one that nobody knows.
    Anonymous { certificate: Option<Fingerprint> },
}

/// What a client may do at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Everything (LXD: unrestricted client certificate).
    Unrestricted,
    /// What LXD lets a restricted client certificate do, in these projects.
    Projects(Vec<ProjectName>),
    /// What its groups' permissions add up to (LXD: fine-grained).
    Groups(Groups),
}

impl From<Who> for Caller {
    fn from(who: Who) -> Self {
        Self { who, origin: Origin::default(), shown: None }
    }
}

impl Caller {
    /// The machine's own administrator, or the agent itself on his behalf.
    pub const fn local(uid: u32) -> Self {
        Self {
            who: Who::Local { uid },
            origin: Origin { request: Uuid::nil(), address: None, session: None },
            shown: None,
        }
    }
}

/// As the audit log has it.
impl From<&Caller> for Actor {
    fn from(caller: &Caller) -> Self {
        Self {
            name: caller.to_string(),
            id: caller.username(),
            method: caller.method().unwrap_or_default().to_owned(),
            address: caller.origin.address,
            request: caller.origin.request,
        }
    }
}

impl Deref for Caller {
    type Target = Who;
    fn deref(&self) -> &Who {
        &self.who
    }
}

impl Who {
    /// The certificate shown, known or not.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        match self {
            Who::Local { .. } => None,
            Who::Client { id, .. } => id.fingerprint(),
            Who::Peer { fingerprint, .. }
            | Who::Metrics { fingerprint, .. }
            | Who::Signed { fingerprint, .. }
            | Who::Node { fingerprint, .. } => Some(*fingerprint),
            Who::Anonymous { certificate } => *certificate,
        }
    }

    /// The identity of the store that calls, if one does.
    pub fn id(&self) -> Option<IdentityId> {
        match self {
            Who::Client { id, .. } => Some(id.clone()),
            Who::Peer { fingerprint, .. } | Who::Metrics { fingerprint, .. } => Some((*fingerprint).into()),
            Who::Local { .. } | Who::Signed { .. } | Who::Node { .. } | Who::Anonymous { .. } => None,
        }
    }

    /// The groups that its rights come from.
    pub fn groups(&self) -> &[GroupName] {
        match self {
            Who::Client { access: Access::Groups(groups), .. } | Who::Peer { groups, .. } => groups,
            _ => &[],
        }
    }

    /// Tells callers apart, as their names do not: two clients may have the same.
    pub fn identity(&self) -> String {
        match (self.id(), self) {
            (Some(id), _) => format!("{self} {id}"),
            (None, Who::Signed { fingerprint, .. }) => format!("{self} {fingerprint}"),
            (None, _) => self.to_string(),
        }
    }

    /// Someone who is known here, for more than reading metrics.
    pub fn is_trusted(&self) -> bool {
        !matches!(self, Who::Anonymous { .. } | Who::Metrics { .. } | Who::Node { .. })
    }

    /// How it proved who it is (LXD: protocol, method).
    pub fn method(&self) -> Option<&'static str> {
        match self {
            Who::Local { .. } => Some("unix"),
            Who::Client { id: IdentityId::Certificate(_), .. }
            | Who::Metrics { .. }
            | Who::Peer { .. }
            | Who::Node { .. } => Some("tls"),
            Who::Signed { .. } => Some("pki"),
            Who::Client { id: IdentityId::Token(_), .. } => Some("bearer"),
            Who::Client { id: IdentityId::Email(_), .. } => Some("oidc"),
            Who::Anonymous { .. } => None,
        }
    }

    /// Its name for programs (LXD: username): a user id, a fingerprint, a UUID or a mail address.
    pub fn username(&self) -> String {
        match (self, self.id()) {
            (Who::Local { uid }, _) => uid.to_string(),
            (Who::Signed { fingerprint, .. }, _) => fingerprint.to_string(),
            (_, Some(id)) => id.to_string(),
            (_, None) => String::new(),
        }
    }
}

/// As logs and messages name a caller: `local uid 0`, `client laptop`, `link west`.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.who.fmt(f)
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Local { uid } => write!(f, "local uid {uid}"),
            Who::Client { name, .. } => write!(f, "client {name}"),
            Who::Peer { link, .. } => write!(f, "link {link}"),
            Who::Metrics { name, .. } => write!(f, "metrics certificate {name}"),
            Who::Signed { name, .. } => write!(f, "client {name} of an authority"),
            Who::Node { id, .. } => write!(f, "node {id}"),
            Who::Anonymous { .. } => f.write_str("anonymous"),
        }
    }
}
