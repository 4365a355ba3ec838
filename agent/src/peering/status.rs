//! What is known of a link's connection, and the state that follows from it. In memory only: after a restart nothing
//! has been heard yet, and that is what is told.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use schema::kind::cluster_link::{ClusterLink, LinkType};
use schema::name::LinkName;
use schema::plan::{LinkState, LiveLink};
use tokio::sync::watch;

use super::half::{Established, Half, Pending, Unconfirmed};
use crate::clock::Clock;
use crate::wire::cluster_link::{DialBack, Dials, LinkReport, StreamTimes, UnconfirmedPeer};
use crate::wire::sync::PeerView;

/// The connection to a peer, as of now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Connection {
    /// Nothing was heard, and nothing went wrong, since this agent started.
    #[default]
    Waiting,
    /// Data arrived within the heartbeat window, and the session stands.
    Up,
    Down {
        reason: String,
    },
}

/// One link's status.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    pub connection: Connection,
    /// The peer's last word about its own half.
    pub peer: Option<PeerView>,
}

/// Every link's status, and a number that rises with each change.
#[derive(Debug)]
pub struct Statuses {
    by_link: Mutex<BTreeMap<LinkName, Status>>,
    /// Apart from the rest: they move all the time, and nobody is woken for it.
    streams: Mutex<BTreeMap<LinkName, StreamTimes>>,
    changed: Clock,
}

impl Default for Statuses {
    fn default() -> Self {
        let changed = Clock::starting(Timestamp::now());
        Self { by_link: Mutex::default(), streams: Mutex::default(), changed }
    }
}

impl Statuses {
    pub fn get(&self, link: &LinkName) -> Status {
        self.lock().get(link).cloned().unwrap_or_default()
    }

    /// Changes a link's status; tells whether that changed anything.
    pub fn update(&self, link: &LinkName, change: impl FnOnce(&mut Status)) -> bool {
        let mut statuses = self.lock();
        let status = statuses.entry(link.clone()).or_default();
        let before = status.clone();
        change(status);
        let differs = *status != before;
        drop(statuses);
        if differs {
            self.touch();
        }
        differs
    }

    pub fn forget(&self, link: &LinkName) {
        self.lock().remove(link);
        self.streams().remove(link);
        self.touch();
    }

    /// When the link's streams last carried something.
    pub fn stream(&self, link: &LinkName) -> StreamTimes {
        self.streams().get(link).copied().unwrap_or_default()
    }

    pub fn note_stream(&self, link: &LinkName, change: impl FnOnce(&mut StreamTimes)) {
        let mut streams = self.streams();
        match streams.get_mut(link) {
            Some(times) => change(times),
            None => change(streams.entry(link.clone()).or_default()),
        }
    }

    fn streams(&self) -> MutexGuard<'_, BTreeMap<LinkName, StreamTimes>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whoever follows to look again.
    pub fn touch(&self) {
        self.changed.tick();
    }

    pub fn index(&self) -> u64 {
        self.changed.now()
    }

    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<LinkName, Status>> {
        // The map is whole between statements, so a panic elsewhere leaves nothing half done.
        self.by_link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A link's state and, where it is not ACTIVE, why.
pub fn state(half: &Half, connection: &Connection, now: Timestamp) -> (LinkState, Option<String>) {
    match half {
        Half::Pending(Pending { token: None }) => (
            LinkState::Pending,
            Some(connection.reason().unwrap_or("no token has been exchanged yet").to_owned()),
        ),
        Half::Pending(Pending { token: Some(token) }) if token.expires_at <= now => {
            let why = format!(
                "the token expired at {}; apply its declaration again, or delete the link and create it anew",
                token.expires_at
            );
            (LinkState::Pending, Some(why))
        }
        Half::Pending(Pending { token: Some(_) }) => {
            (LinkState::Pending, Some("the token has not been redeemed yet".to_owned()))
        }
        Half::Unconfirmed(_) => {
            (LinkState::Pending, Some("the certificate of the peer has not been confirmed yet".to_owned()))
        }
        Half::Redeeming(_) => {
            let trouble = connection.reason().map_or(String::new(), |reason| format!(": {reason}"));
            (LinkState::Pending, Some(format!("the peer's token is being redeemed{trouble}")))
        }
        Half::Terminated(terminated) => {
            (LinkState::Terminated, Some(format!("deleted by the peer at {:.0}", terminated.at)))
        }
        Half::Established(established) => match (connection, established.first_active) {
            (Connection::Up, _) => (LinkState::Active, None),
            (Connection::Waiting, _) => {
                (LinkState::Establishing, Some("nothing has arrived from the peer yet".to_owned()))
            }
            (Connection::Down { reason }, None) => (LinkState::Establishing, Some(reason.clone())),
            (Connection::Down { reason }, Some(_)) => (LinkState::Failing, Some(reason.clone())),
        },
    }
}

impl Connection {
    fn reason(&self) -> Option<&str> {
        match self {
            Connection::Down { reason } => Some(reason),
            Connection::Waiting | Connection::Up => None,
        }
    }
}

/// The whole truth about one link.
pub fn report(
    name: &LinkName,
    declared: Option<&ClusterLink>,
    half: &Half,
    (status, times): (Status, StreamTimes),
    now: Timestamp,
) -> LinkReport {
    let (state, reason) = state(half, &status.connection, now);
    let mut report = LinkReport {
        name: name.clone(),
        description: declared.map(|link| link.description.clone()).unwrap_or_default(),
        kind: declared.map(|link| link.kind).unwrap_or_default(),
        auth_groups: declared.map(|link| link.auth_groups.clone()).unwrap_or_default(),
        state,
        reason,
        peer_fingerprint: None,
        addresses: Vec::new(),
        dials: None,
        first_active: None,
        token_id: None,
        token_expires_at: None,
        peer: None,
        config: declared.map(|link| link.config.clone()).unwrap_or_default(),
        unconfirmed: None,
        dial_back: None,
        note: None,
        stream: StreamTimes::default(),
    };
    match half {
        Half::Pending(pending) => {
            report.token_id = pending.token.as_ref().map(|token| token.id);
            report.token_expires_at = pending.token.as_ref().map(|token| token.expires_at);
        }
        Half::Unconfirmed(Unconfirmed { peer }) => {
            report.unconfirmed = Some(UnconfirmedPeer {
                address: peer.addresses.join(","),
                fingerprint: peer.fingerprint.to_string(),
                certificate: peer.certificate_pem.clone(),
            });
        }
        Half::Redeeming(redeeming) => report.addresses.clone_from(&redeeming.addresses),
        Half::Established(established) => {
            report.peer_fingerprint = Some(established.peer.fingerprint.to_string());
            report.addresses = established.peer.reached_at();
            report.dials = Some(established.dials);
            report.first_active = established.first_active;
            report.peer = status.peer;
            report.stream = times;
            let notes = [note(established), established.peer.succession()];
            report.note = notes.into_iter().flatten().reduce(|one, other| format!("{other}; {one}"));
            report.dial_back.clone_from(&established.dial_back);
            report.token_id = established.reissued.as_ref().map(|token| token.id);
            report.token_expires_at = established.reissued.as_ref().map(|token| token.expires_at);
        }
        Half::Terminated(_) => {}
    }
    report
}

fn note(established: &Established) -> Option<String> {
    let note = match (&established.dial_back, established.kind) {
        (Some(DialBack::Unreached { .. }), _) => {
            "the peer cannot be reached from here at the addresses that it gave; the link works over its own connection"
        }
        (Some(DialBack::Nowhere { .. }), _) => {
            "the peer gave no address to be reached at; the link works over its own connection"
        }
        (_, LinkType::Public) => {
            "only the certificate is pinned: neither cluster knows the other as a caller"
        }
        (_, LinkType::Unidirectional) if established.dials == Dials::Here => "the peer may not call here",
        (_, LinkType::Unidirectional) => "this cluster does not call the peer",
        (_, LinkType::Bidirectional) => return None,
    };
    Some(note.to_owned())
}

/// As much of it as a plan needs.
pub fn live(report: LinkReport) -> LiveLink {
    LiveLink {
        kind: report.kind,
        state: report.state,
        peer_fingerprint: report.peer_fingerprint,
        addresses: report.addresses,
        reason: report.reason,
    }
}
