//! The receiving side alone, and both sides together, with everything that may go wrong between them.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use schema::kind::service::Weights;
use schema::name::LinkName;
use schema::plan::LinkState;
use uuid::Uuid;

use super::*;
use crate::peering::offers::{Consumers, Offers};
use crate::peering::outbox::{Outbox, Step};
use crate::wire::sync::{OfferedInstance, OfferedStatus};

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn view() -> PeerView {
    PeerView { link: name("east"), state: LinkState::Active, reason: None, exported: 0, imported: 0 }
}

fn hello(resumed: Option<Position>) -> SyncFrame {
    SyncFrame::Hello { version: VERSION, cluster: name("west"), view: view(), news: News::default(), resumed }
}

fn instance(id: &str) -> OfferedInstance {
    OfferedInstance {
        id: name(id),
        port: Some(80),
        tags: vec![],
        meta: BTreeMap::new(),
        weights: Weights::default(),
        status: OfferedStatus::Passing,
    }
}

fn offered(service: &str, part: Part, ids: &[&str]) -> Offered {
    let instances = ids.iter().map(|id| instance(id)).collect();
    Offered { name: name(service), protocol: String::new(), part, instances }
}

fn at(sequence: u64) -> Position {
    Position { epoch: Uuid::nil(), sequence }
}

fn items(services: Vec<Offered>) -> SyncFrame {
    SyncFrame::Items { services }
}

fn change(services: Vec<Offered>, sequence: u64) -> SyncFrame {
    SyncFrame::Change { services, removed: vec![], position: Some(at(sequence)) }
}

fn end(sequence: u64, services: u64) -> SyncFrame {
    SyncFrame::End { position: at(sequence), services }
}

fn whole(service: &str) -> Offered {
    offered(service, Part::Whole, &["1"])
}

/// An inbox that has taken a snapshot of `a` and `b`.
fn current() -> Inbox {
    let mut inbox = Inbox::default();
    assert_eq!(inbox.opened(), None);
    for frame in [hello(None), SyncFrame::Begin, items(vec![whole("a"), whole("b")]), end(3, 2)] {
        inbox.take(frame).unwrap();
    }
    inbox
}

fn names(inbox: &Inbox) -> Vec<String> {
    inbox.services().sorted().into_iter().map(|(name, _)| name.to_string()).collect()
}

#[test]
fn a_snapshot_sweeps_and_a_stream_that_breaks_loses_only_what_was_not_whole() {
    let mut inbox = current();
    assert_eq!(names(&inbox), ["a", "b"]);
    assert_eq!(inbox.opened(), Some(at(3)));
    assert!(!inbox.is_current());
    for frame in [hello(None), SyncFrame::Begin, items(vec![whole("b"), offered("c", Part::First, &["1"])])] {
        inbox.take(frame).unwrap();
    }
    assert_eq!(names(&inbox), ["a", "b"]);
    // Cut, and the sender remembers: what has changed is told, and nothing else.
    assert_eq!(inbox.opened(), Some(at(3)));
    inbox.take(hello(Some(at(3)))).unwrap();
    assert!(inbox.is_current());
    let removed = vec![name("a"), name("never-here")];
    let gone = SyncFrame::Change { services: vec![whole("c")], removed, position: Some(at(9)) };
    assert_eq!(inbox.take(gone), Ok(Taken::Services));
    assert_eq!((names(&inbox), inbox.held.instances), (vec!["b".to_owned(), "c".to_owned()], 2));
    // It does not: everything is told anew.
    assert_eq!(inbox.opened(), Some(at(9)));
    for frame in [hello(None), SyncFrame::Begin, items(vec![whole("d")]), end(1, 1)] {
        inbox.take(frame).unwrap();
    }
    assert_eq!((names(&inbox), inbox.opened()), (vec!["d".to_owned()], Some(at(1))));
    inbox.distrust();
    assert_eq!(inbox.opened(), None);
}

#[test]
fn a_service_in_parts_is_taken_when_it_is_whole() {
    let mut inbox = current();
    inbox
        .take(SyncFrame::Change {
            services: vec![offered("a", Part::First, &["9"])],
            removed: vec![],
            position: None,
        })
        .unwrap();
    assert_eq!(inbox.services().get(&name::<ServiceName>("a")).unwrap().instances.len(), 1);
    let rest = vec![offered("a", Part::Middle, &["3"]), offered("a", Part::Last, &["5", "4"]), whole("e")];
    inbox.take(change(rest, 4)).unwrap();
    let ids: Vec<_> = inbox.services().get(&name::<ServiceName>("a")).unwrap().instances.clone();
    assert_eq!(ids.iter().map(|instance| instance.id.as_str()).collect::<Vec<_>>(), ["3", "4", "5", "9"]);
    assert_eq!((inbox.held.services.len(), inbox.held.instances), (3, 6));
}

#[test]
fn what_does_not_keep_to_the_order_is_refused_with_its_cause() {
    let after_hello = |frames: Vec<SyncFrame>| [vec![hello(None)], frames].concat();
    let after_snapshot = |frames: Vec<SyncFrame>| {
        after_hello([vec![SyncFrame::Begin, items(vec![whole("a")]), end(3, 1)], frames].concat())
    };
    let news = |addresses| after_hello(vec![SyncFrame::News { news: News { bundle: None, addresses } }]);
    let old = SyncFrame::Hello {
        version: 1,
        cluster: name("west"),
        view: view(),
        news: News::default(),
        resumed: None,
    };
    let other = Position { epoch: Uuid::max(), sequence: 9 };
    for (frames, says) in [
        (vec![SyncFrame::Begin], "the beginning of a snapshot where a greeting was due"),
        (vec![old], "version 1"),
        (vec![hello(Some(at(3)))], "not asked for"),
        (after_hello(vec![hello(None)]), "a second greeting where a snapshot was due"),
        (after_hello(vec![items(vec![])]), "a snapshot's items where a snapshot was due"),
        (after_hello(vec![end(1, 0)]), "the end of a snapshot where a snapshot was due"),
        (after_hello(vec![change(vec![], 1)]), "a change where a snapshot was due"),
        (after_hello(vec![SyncFrame::Begin, SyncFrame::Begin]), "where the rest of a snapshot was due"),
        (after_hello(vec![SyncFrame::Begin, change(vec![], 1)]), "a change where the rest"),
        (after_hello(vec![SyncFrame::Begin, end(1, 7)]), "0 services and said that it has 7"),
        (after_snapshot(vec![end(4, 1)]), "the end of a snapshot where a change was due"),
        (after_snapshot(vec![items(vec![whole("b")])]), "items where a change was due"),
        (after_snapshot(vec![change(vec![], 2)]), "went back"),
        (
            after_snapshot(vec![SyncFrame::Change {
                services: vec![],
                removed: vec![],
                position: Some(other),
            }]),
            "another epoch",
        ),
        (after_snapshot(vec![change(vec![offered("b", Part::Last, &["1"])], 4)]), "part of service \"b\""),
        (after_snapshot(vec![change(vec![offered("b", Part::First, &["1"])], 4)]), "part of service \"b\""),
        (
            after_snapshot(vec![change(vec![offered("b", Part::First, &["1"]), whole("c")], 4)]),
            "part of service \"b\"",
        ),
        (after_snapshot(vec![change(vec![offered("b", Part::Whole, &["1", "1"])], 4)]), "twice"),
        (news(vec!["10.0.0.1".to_owned()]), "addresses"),
        (news(vec!["10.0.0.1:1".to_owned(); MAX_ADDRESSES + 1]), "addresses"),
    ] {
        let mut inbox = Inbox::default();
        inbox.opened();
        let refused = frames.into_iter().find_map(|frame| inbox.take(frame).err()).expect(says);
        assert!(refused.to_string().contains(says), "{refused}");
    }
}

#[test]
fn limits_are_those_that_are_said() {
    let mut inbox = current();
    let long = |part, id: usize| {
        let mut offered = offered("a", part, &[]);
        offered.instances =
            vec![OfferedInstance { tags: vec!["t".repeat(60_000)], ..instance(&id.to_string()) }];
        SyncFrame::Change { services: vec![offered], removed: vec![], position: None }
    };
    inbox.take(long(Part::First, 0)).unwrap();
    let refused = (1..).find_map(|id| inbox.take(long(Part::Middle, id)).err()).unwrap();
    assert_eq!(refused, Violation::TooLargeService("a".to_owned()));

    let mut inbox = current();
    let refused = (0..).find_map(|batch| {
        let named = |n| Offered { instances: vec![], ..whole(&format!("s{batch}-{n}")) };
        inbox.take(change((0..1000).map(named).collect(), 9)).err()
    });
    assert_eq!(refused, Some(Violation::TooManyServices));
    assert!(inbox.held.services.len() <= MAX_SERVICES + 1);
}

fn any_frame() -> impl Strategy<Value = SyncFrame> {
    let part = prop_oneof![
        6 => Just(Part::Whole), 1 => Just(Part::First), 1 => Just(Part::Middle), 1 => Just(Part::Last)
    ];
    let row = ("[a-d]", part, vec("[1-4]", 0..3)).prop_map(|(service, part, ids)| {
        offered(&service, part, &ids.iter().map(String::as_str).collect::<Vec<_>>())
    });
    let place = (0u64..4, prop::bool::weighted(0.1)).prop_map(|(sequence, other)| Position {
        epoch: if other { Uuid::max() } else { Uuid::nil() },
        sequence,
    });
    let rows = vec(row, 0..3);
    prop_oneof![
        1 => prop::option::of(place.clone()).prop_map(hello),
        2 => Just(SyncFrame::Begin),
        3 => rows.clone().prop_map(items),
        2 => (place.clone(), 0u64..4).prop_map(|(position, services)| SyncFrame::End { position, services }),
        3 => (rows, vec("[a-d]", 0..2), prop::option::of(place)).prop_map(|(services, removed, position)| {
            SyncFrame::Change { services, removed: removed.iter().map(|text| name(text)).collect(), position }
        }),
        1 => Just(SyncFrame::Heartbeat { view: view() }),
    ]
}

proptest! {
    /// Whatever comes, nothing panics, what is counted is what is there, and a stream's services are told only when
    /// they are whole.
    #[test]
    fn no_order_of_frames_confuses_it(streams in vec(vec(any_frame(), 0..12), 1..6)) {
        let mut inbox = Inbox::default();
        for frames in streams {
            inbox.opened();
            for frame in std::iter::once(hello(None)).chain(frames) {
                let before = names(&inbox);
                let current = inbox.is_current();
                match inbox.take(frame) {
                    Ok(Taken::Services) => {}
                    Ok(_) => prop_assert_eq!(before, names(&inbox)),
                    Err(_) => {
                        prop_assert!(current || before == names(&inbox));
                        inbox.distrust();
                        break;
                    }
                }
                let sizes = inbox.services().iter().map(|(name, service)| size(name, service));
                let sum = sizes.fold((0, 0), |sum, this| (sum.0 + this.0, sum.1 + this.1));
                prop_assert_eq!(sum, (inbox.held.instances, inbox.held.bytes));
            }
        }
    }
}

/// What may happen to two agents.
#[derive(Debug, Clone)]
enum Event {
    /// A service is exported to these links, with so many instances; to none: withdrawn.
    Set(usize, Vec<usize>, usize),
    /// The stream carries so many frames.
    Carry(usize),
    Cut,
    /// The sender starts again: it remembers nothing of the streams.
    Restart,
    /// So does the receiver.
    Forget,
}

const LINKS: [&str; 3] = ["east", "west", "south"];

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0usize..6, prop::collection::btree_set(0usize..3, 0..3), 0usize..4)
            .prop_map(|(service, to, instances)| Event::Set(service, to.into_iter().collect(), instances)),
        6 => (1usize..5).prop_map(Event::Carry),
        2 => Just(Event::Cut),
        1 => Just(Event::Restart),
        1 => Just(Event::Forget),
    ]
}

/// An exporting agent, an importing one, and the stream between them.
struct Pair {
    truth: BTreeMap<usize, (Vec<usize>, usize)>,
    offers: Offers,
    epoch: Uuid,
    inbox: Inbox,
    outbox: Option<Outbox>,
    sent: std::collections::VecDeque<SyncFrame>,
}

impl Pair {
    fn set(&mut self, service: usize) {
        let now = self.truth.get(&service).map(|(to, instances)| {
            let consumers: Consumers = to.iter().map(|link| name::<LinkName>(LINKS[*link])).collect();
            (consumers, *instances as u64)
        });
        self.offers.set(&name(&format!("s{service}")), now);
    }

    fn row(&self, name: &ServiceName) -> Vec<Offered> {
        let (_, instances) = self.truth[&name.as_str()[1..].parse().unwrap()];
        let ids: Vec<String> = (0..instances).map(|id| id.to_string()).collect();
        let part = |part, ids: &[String]| {
            offered(name.as_str(), part, &ids.iter().map(String::as_str).collect::<Vec<_>>())
        };
        // A large one comes in parts.
        if instances < 3 {
            vec![part(Part::Whole, &ids)]
        } else {
            vec![part(Part::First, &ids[..1]), part(Part::Middle, &ids[1..2]), part(Part::Last, &ids[2..])]
        }
    }

    /// Sends one step, and the peer takes up to so many frames of what was sent.
    fn carry(&mut self, frames: usize) -> Result<bool, TestCaseError> {
        if self.outbox.is_none() {
            self.sent.clear();
            let asked = self.inbox.opened();
            let outbox = Outbox::begin(name("east"), self.epoch, asked, &self.offers);
            self.sent.push_back(hello(outbox.resumed()));
            self.outbox = Some(outbox);
        }
        let step = self.outbox.as_mut().map(|outbox| outbox.next(&self.offers));
        let idle = step == Some(Step::Nothing);
        match step.unwrap_or(Step::Nothing) {
            Step::Nothing => {}
            Step::Begin => self.sent.push_back(SyncFrame::Begin),
            Step::Items(names) => {
                let rows: Vec<SyncFrame> =
                    names.iter().flat_map(|name| self.row(name)).map(|row| items(vec![row])).collect();
                self.sent.extend(rows);
            }
            Step::End { position, services } => self.sent.push_back(SyncFrame::End { position, services }),
            Step::Change { changed, removed, position } => {
                let rows: Vec<Offered> = changed.iter().flat_map(|name| self.row(name)).collect();
                let row = |row| SyncFrame::Change { services: vec![row], removed: vec![], position: None };
                self.sent.extend(rows.into_iter().map(row));
                self.sent.push_back(SyncFrame::Change {
                    services: vec![],
                    removed,
                    position: Some(position),
                });
            }
        }
        for frame in self.sent.drain(..frames.min(self.sent.len())) {
            if let SyncFrame::Change { services, removed, .. } = &frame {
                let told = services.iter().map(|row| &row.name).chain(removed);
                for told in told {
                    // Only what was this link's ever leaves.
                    prop_assert!(told.as_str() < "s6");
                }
            }
            let taken = self.inbox.take(frame);
            prop_assert!(taken.is_ok(), "{taken:?}");
        }
        Ok(idle && self.sent.is_empty())
    }

    fn wanted(&self) -> Vec<(String, usize)> {
        let to_east = self.truth.iter().filter(|(_, (to, _))| to.contains(&0));
        to_east.map(|(service, (_, instances))| (format!("s{service}"), *instances)).collect()
    }

    fn arrived(&self) -> Vec<(String, usize)> {
        let services = self.inbox.services().sorted();
        services.into_iter().map(|(name, service)| (name.to_string(), service.instances.len())).collect()
    }
}

proptest! {
    /// Whatever is changed, cut and restarted, and in whatever order: once the stream is quiet the receiver has what
    /// it is offered, nothing else and nothing stale.
    #[test]
    fn the_imported_view_converges(events in vec(any_event(), 0..60), remembered in 1usize..12) {
        let mut pair = Pair {
            truth: BTreeMap::new(),
            offers: Offers::remembering(remembered),
            epoch: Uuid::from_u128(1),
            inbox: Inbox::default(),
            outbox: None,
            sent: std::collections::VecDeque::new(),
        };
        for event in events {
            match event {
                Event::Set(service, to, instances) => {
                    if to.is_empty() {
                        pair.truth.remove(&service);
                    } else {
                        pair.truth.insert(service, (to, instances));
                    }
                    pair.set(service);
                }
                Event::Carry(frames) => drop(pair.carry(frames)?),
                Event::Cut => pair.outbox = None,
                Event::Restart => {
                    pair.outbox = None;
                    pair.epoch = Uuid::from_u128(pair.epoch.as_u128() + 1);
                    pair.offers = Offers::remembering(remembered);
                    for service in 0..6 {
                        pair.set(service);
                    }
                }
                Event::Forget => {
                    pair.outbox = None;
                    pair.inbox = Inbox::default();
                }
            }
        }
        let mut steps = 0;
        while !pair.carry(usize::MAX)? {
            steps += 1;
            prop_assert!(steps < 100, "the stream never becomes quiet");
        }
        prop_assert!(pair.inbox.is_current());
        prop_assert_eq!(pair.arrived(), pair.wanted());
    }
}

#[test]
fn services_without_instances_count_too_and_what_one_speaks_is_a_word() {
    let mut inbox = Inbox::default();
    inbox.opened();
    inbox.take(hello(None)).unwrap();
    inbox.take(SyncFrame::Begin).unwrap();
    let empty = |protocol: &str| Offered { protocol: protocol.to_owned(), ..offered("a", Part::Whole, &[]) };
    for bad in ["x".repeat(33), "ht tp".to_owned()] {
        let refused = inbox.take(items(vec![empty(&bad)]));
        assert_eq!(refused, Err(Violation::Protocol("a".to_owned())));
    }
    inbox.take(items(vec![empty("http2")])).unwrap();
    let Stage::Building(held) = &inbox.stage else { panic!("a snapshot is on its way") };
    assert_eq!(held.bytes, "a".len() + "http2".len() + ROW);
}
