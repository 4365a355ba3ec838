use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::tunnel::wire::{Decoder, Violation};

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// Two machines, and the bytes under way between them.
struct Pair {
    sides: [Machine; 2],
    wires: [Vec<u8>; 2],
    decoders: [Decoder; 2],
    opened: [Vec<StreamId>; 2],
}

impl Pair {
    fn new(limit: usize) -> Self {
        Self {
            sides: [
                Machine::new(End::Dialled, limit, credit::PURSE),
                Machine::new(End::Accepted, limit, credit::PURSE),
            ],
            wires: Default::default(),
            decoders: Default::default(),
            opened: Default::default(),
        }
    }

    /// Puts what `side` has to send on its wire.
    fn flush(&mut self, side: usize) {
        let mut sending = Queue::default();
        self.sides[side].queue.move_to(&mut sending);
        sending.slices().for_each(|slice| self.wires[side].extend(slice));
        self.sides[side].call_next();
    }

    /// Hands at most `most` bytes of what `side` has sent to the other.
    fn carry(&mut self, side: usize, most: usize) -> Result<(), Violation> {
        self.flush(side);
        let other = 1 - side;
        let most = most.min(self.wires[side].len());
        let bytes: Vec<u8> = self.wires[side].drain(..most).collect();
        let mut input = &*bytes;
        while let Some(frame) = self.decoders[other].next(&mut input)? {
            if let Event::Opened { id, .. } = self.sides[other].receive(&frame)? {
                self.opened[other].push(id);
            }
        }
        Ok(())
    }

    fn settle(&mut self) {
        for _ in 0..8 {
            for side in [0, 1] {
                self.carry(side, usize::MAX).unwrap();
            }
        }
    }

    /// A stream that side 0 has opened and side 1 has accepted.
    fn stream(&mut self) -> StreamId {
        let id = self.sides[0].open(b"h", b"").unwrap();
        self.settle();
        self.sides[1].accept(id).unwrap();
        self.settle();
        id
    }
}

fn read(machine: &mut Machine, id: StreamId) -> Poll<Result<Vec<u8>, io::ErrorKind>> {
    let mut came = Vec::new();
    let read = machine.poll_read(id, &cx(), |bytes| {
        came.extend_from_slice(bytes);
        Ok(bytes.len())
    });
    read.map(|read| read.map(|_| came).map_err(|error| error.kind()))
}

fn frame(machine: &mut Machine, frame: &Frame<'_>) -> Result<(), Violation> {
    machine.receive(frame).map(|_| ())
}

/// What the test of random turns does.
#[derive(Debug, Clone)]
enum Turn {
    Open(usize, usize),
    Write(usize, usize, usize),
    Read(usize, usize, usize),
    Finish(usize, usize),
    Release(usize, usize),
    Carry(usize, usize),
}

fn turns() -> impl Strategy<Value = Turn> {
    let side = 0..2_usize;
    let which = 0..6_usize;
    prop_oneof![
        1 => (side.clone(), 0..20_000_usize).prop_map(|(side, early)| Turn::Open(side, early)),
        6 => (side.clone(), which.clone(), 1..100_000_usize).prop_map(|(s, w, n)| Turn::Write(s, w, n)),
        6 => (side.clone(), which.clone(), 1..100_000_usize).prop_map(|(s, w, n)| Turn::Read(s, w, n)),
        1 => (side.clone(), which.clone()).prop_map(|(s, w)| Turn::Finish(s, w)),
        1 => (side.clone(), which).prop_map(|(s, w)| Turn::Release(s, w)),
        8 => (side, 1..200_000_usize).prop_map(|(side, most)| Turn::Carry(side, most)),
    ]
}

/// One end of one stream, as the test knows it.
#[derive(Debug, Default)]
struct Known {
    sent: Vec<u8>,
    finished: bool,
    read: Vec<u8>,
    ends: usize,
    released: bool,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_the_turns_nothing_is_overdrawn_lost_or_reordered(turns in prop::collection::vec(turns(), 1..200)) {
        let mut pair = Pair::new(16);
        let mut known: [BTreeMap<StreamId, Known>; 2] = Default::default();
        let mut next = 0_u8;
        let mut fresh = |length: usize| -> Vec<u8> {
            (0..length).map(|_| { next = next.wrapping_mul(5).wrapping_add(7); next }).collect()
        };
        for turn in turns {
            match turn {
                Turn::Open(side, early) => {
                    let early = fresh(early.min(credit::EARLY as usize));
                    if let Ok(id) = pair.sides[side].open(b"{}", &early) {
                        known[side].insert(id, Known { sent: early, ..Known::default() });
                    }
                }
                Turn::Write(side, which, most) => {
                    let Some((&id, known)) = known[side].iter_mut().nth(which) else { continue };
                    // An opener has to wait for the answer before it knows that it may go on.
                    let answered = pair.sides[side].poll_answer(id, &cx()).is_ready();
                    if answered && let Poll::Ready(Ok(room)) = pair.sides[side].poll_room(id, &cx()) {
                        prop_assert!(room > 0);
                        let bytes = fresh(most.min(room));
                        pair.sides[side].write(id, &bytes).unwrap();
                        known.sent.extend(bytes);
                    }
                }
                Turn::Read(side, which, most) => {
                    let Some((&id, known)) = known[side].iter_mut().nth(which) else { continue };
                    let read = pair.sides[side].poll_read(id, &cx(), |bytes| {
                        let taken = bytes.len().min(most);
                        known.read.extend(&bytes[..taken]);
                        Ok(taken)
                    });
                    known.ends += usize::from(matches!(read, Poll::Ready(Ok(0))));
                }
                Turn::Finish(side, which) => {
                    let Some((&id, known)) = known[side].iter_mut().nth(which) else { continue };
                    known.finished |= pair.sides[side].finish(id).is_ok();
                }
                Turn::Release(side, which) => {
                    let Some(&id) = known[side].keys().nth(which) else { continue };
                    pair.sides[side].release(id);
                    known[side].get_mut(&id).unwrap().released = true;
                }
                Turn::Carry(side, most) => pair.carry(side, most).unwrap(),
            }
            for side in [0, 1] {
                for id in std::mem::take(&mut pair.opened[side]) {
                    // It may be reset by now.
                    let _ = pair.sides[side].accept(id);
                    known[side].insert(id, Known::default());
                }
            }
        }
        // What is left is read to its end.
        for _ in 0..200 {
            pair.settle();
            for side in [0, 1] {
                for id in std::mem::take(&mut pair.opened[side]) {
                    let _ = pair.sides[side].accept(id);
                    known[side].insert(id, Known::default());
                }
                for (&id, known) in &mut known[side] {
                    if let Poll::Ready(Ok(bytes)) = read(&mut pair.sides[side], id) {
                        known.ends += usize::from(bytes.is_empty());
                        known.read.extend(bytes);
                    }
                }
            }
        }
        for (reader, writer) in [(0, 1), (1, 0)] {
            for (id, at) in &known[reader] {
                let Some(from) = known[writer].get(id) else { continue };
                prop_assert!(from.sent.starts_with(&at.read), "stream {} came out otherwise", id);
                let whole = !at.released && !from.released;
                prop_assert!(!whole || from.sent == at.read, "of stream {} something is missing", id);
                prop_assert!(at.ends == 0 || from.finished, "stream {} ended, and nobody ended it", id);
                prop_assert!(at.ends == 0 || at.read == from.sent, "stream {} ended before its end", id);
                prop_assert!(!whole || at.ends > 0 || !from.finished, "the end of stream {} got lost", id);
            }
        }
        // What was let go of holds nothing, and gives back what its window had grown by.
        for side in [0, 1] {
            for (id, _) in known[side].iter().filter(|(_, known)| !known.released) {
                pair.sides[side].release(*id);
            }
            prop_assert_eq!((pair.sides[side].held, pair.sides[side].purse), (0, credit::PURSE));
            prop_assert_eq!((pair.sides[side].ours, pair.sides[side].theirs), (0, 0));
        }
    }
}

#[test]
fn a_window_grows_while_it_is_read_and_not_for_a_reader_that_sleeps() {
    let mut pair = Pair::new(16);
    let (fast, slow) = (pair.stream(), pair.stream());
    let mut sent = BTreeMap::from([(fast, 0), (slow, 0)]);
    for _ in 0..100 {
        for id in [fast, slow] {
            if let Poll::Ready(Ok(room)) = pair.sides[0].poll_room(id, &cx()) {
                pair.sides[0].write(id, &vec![7; room]).unwrap();
                *sent.get_mut(&id).unwrap() += room;
            }
            pair.settle();
        }
        while read(&mut pair.sides[1], fast).is_ready() {}
    }
    assert!(sent[&fast] > 8_000_000, "{sent:?}");
    assert_eq!(sent[&slow], credit::FIRST as usize);
    assert_eq!(pair.sides[1].held, credit::FIRST as usize);
}

#[test]
fn what_has_no_reader_is_bounded_for_the_session_and_others_go_on() {
    let mut pair = Pair::new(10_000);
    let mut open = Vec::new();
    while pair.sides[1].shed < 3 {
        open.push(pair.stream());
        let id = *open.last().unwrap();
        let Poll::Ready(Ok(room)) = pair.sides[0].poll_room(id, &cx()) else { panic!("no room on {id}") };
        pair.sides[0].write(id, &vec![7; room]).unwrap();
        pair.settle();
        assert!(pair.sides[1].held <= HELD && open.len() < 10_000);
    }
    // Reset is who holds most; who came late got less to hold, and goes on.
    let lost: Vec<StreamId> = open
        .iter()
        .copied()
        .filter(|id| read(&mut pair.sides[1], *id) == Poll::Ready(Err(io::ErrorKind::OutOfMemory)))
        .collect();
    assert_eq!(lost.len(), 3);
    assert!(matches!(pair.sides[0].poll_room(lost[0], &cx()), Poll::Ready(Err(_))));
    let last = open.last().unwrap();
    assert!(!lost.contains(last), "the last that came is not the one to go");
    assert!(pair.sides[0].streams[last].credit < credit::EARLY);
}

#[test]
fn each_that_waits_for_room_is_called_once_and_in_turn() {
    let mut machine = Machine::new(End::Dialled, 16, credit::PURSE);
    let count = |waker: &Arc<Count>| waker.0.load(Ordering::Relaxed);
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let id = machine.open(b"h", b"").unwrap();
        frame(&mut machine, &Frame::Accept { id, window: credit::FIRST }).unwrap();
        waiting.push((id, Arc::new(Count::default())));
    }
    machine.queue.data(1, &vec![0; crate::tunnel::queue::FULL]);
    for (id, waker) in &waiting {
        let waker = Waker::from(waker.clone());
        for _ in 0..3 {
            assert!(machine.poll_room(*id, &Context::from_waker(&waker)).is_pending());
        }
    }
    // Without room nobody is called.
    machine.call_next();
    assert!(waiting.iter().all(|(_, waker)| count(waker) == 0));
    let mut sent = Queue::default();
    machine.queue.move_to(&mut sent);
    machine.call_next();
    assert_eq!(waiting.iter().map(|(_, waker)| count(waker)).collect::<Vec<_>>(), [1, 0, 0, 0]);
    // Who looks calls the next; who is let go of without looking does, too.
    assert!(machine.poll_room(waiting[0].0, &Context::from_waker(Waker::noop())).is_ready());
    assert_eq!(waiting.iter().map(|(_, waker)| count(waker)).collect::<Vec<_>>(), [1, 1, 0, 0]);
    machine.release(waiting[1].0);
    assert_eq!(waiting.iter().map(|(_, waker)| count(waker)).collect::<Vec<_>>(), [1, 1, 1, 0]);
}

#[test]
fn a_stream_that_is_not_accepted_takes_nothing_from_the_purse_and_none_comes_after_a_farewell() {
    let mut machine = Machine::new(End::Accepted, 16, credit::PURSE);
    frame(&mut machine, &Frame::Open { id: 1, window: 10, header: b"h" }).unwrap();
    for _ in 0..4 {
        frame(&mut machine, &Frame::Starved { id: 1 }).unwrap();
    }
    assert_eq!(machine.purse, credit::PURSE);
    machine.accept(1).unwrap();
    frame(&mut machine, &Frame::Starved { id: 1 }).unwrap();
    assert_eq!(machine.purse, credit::PURSE - credit::FIRST);
    machine.release(1);
    assert_eq!(machine.purse, credit::PURSE);
    frame(&mut machine, &Frame::Leave).unwrap();
    let late = frame(&mut machine, &Frame::Open { id: 3, window: 10, header: b"h" });
    assert_eq!(late.unwrap_err(), Violation::Left(3));
}

#[derive(Default)]
struct Count(AtomicUsize);

impl std::task::Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn an_end_that_was_reached_stays_one_and_everything_else_is_an_error() {
    let mut pair = Pair::new(16);
    let (whole, cut) = (pair.stream(), pair.stream());
    for id in [whole, cut] {
        pair.sides[0].write(id, b"abc").unwrap();
    }
    pair.sides[0].finish(whole).unwrap();
    assert!(pair.sides[0].write(whole, b"d").is_err());
    pair.settle();
    pair.sides[1].end();
    assert_eq!(read(&mut pair.sides[1], whole), Poll::Ready(Ok(b"abc".to_vec())));
    assert_eq!(read(&mut pair.sides[1], whole), Poll::Ready(Ok(Vec::new())));
    assert_eq!(read(&mut pair.sides[1], cut), Poll::Ready(Err(io::ErrorKind::ConnectionReset)));
    assert!(pair.sides[1].write(whole, b"x").is_err());
    assert_eq!(pair.sides[1].open(b"h", b""), Err(Unopened::Ended));
}

#[test]
fn a_farewell_hands_back_what_crossed_with_it() {
    let mut pair = Pair::new(16);
    let open = pair.stream();
    pair.sides[1].leave();
    let crossed = pair.sides[0].open(b"h", b"early").unwrap();
    pair.settle();
    assert_eq!(pair.sides[0].poll_answer(crossed, &cx()), Poll::Ready(Answer::Leaving));
    assert_eq!(pair.sides[0].open(b"h", b""), Err(Unopened::Leaving));
    assert_eq!(pair.sides[1].open(b"h", b""), Err(Unopened::Leaving));
    pair.sides[0].write(open, b"goes on").unwrap();
    pair.settle();
    assert_eq!(read(&mut pair.sides[1], open), Poll::Ready(Ok(b"goes on".to_vec())));
    assert!(!pair.sides[1].has_left());
    pair.sides[1].release(open);
    assert!(pair.sides[1].has_left());

    // One that has no stream left closes at once, and what crosses with that is handed back as well.
    let mut pair = Pair::new(16);
    let crossed = pair.sides[0].open(b"h", b"early").unwrap();
    pair.sides[0].hand_back();
    pair.sides[0].end();
    assert_eq!(pair.sides[0].poll_answer(crossed, &cx()), Poll::Ready(Answer::Leaving));
    let lost = pair.sides[1].open(b"h", b"early").unwrap();
    pair.sides[1].end();
    assert_eq!(pair.sides[1].poll_answer(lost, &cx()), Poll::Ready(Answer::Lost));
}

#[test]
fn streams_are_limited_by_those_who_hold_them_and_not_by_what_the_peer_says() {
    let mut pair = Pair::new(4);
    for n in 0..20_u32 {
        let id = 1 + 2 * n;
        frame(&mut pair.sides[1], &Frame::Open { id, window: 1, header: b"h" }).unwrap();
        frame(&mut pair.sides[1], &Frame::Reset { id, why: Reset::Dropped }).unwrap();
    }
    assert_eq!(pair.sides[1].streams.len(), 4);
    pair.sides[1].release(1);
    frame(&mut pair.sides[1], &Frame::Open { id: 41, window: 1, header: b"h" }).unwrap();
    assert_eq!(pair.sides[1].streams.len(), 4);
    let opened: Vec<_> = (0..4).map(|_| pair.sides[0].open(b"h", b"")).collect();
    assert!(opened.iter().all(Result::is_ok));
    assert_eq!(pair.sides[0].open(b"h", b""), Err(Unopened::TooMany));
}

#[test]
fn a_peer_that_breaks_a_rule_is_told_which() {
    fn broken(frames: &[Frame<'_>]) -> Violation {
        let mut machine = Machine::new(End::Accepted, 16, credit::PURSE);
        assert_eq!(machine.open(b"h", b""), Ok(2));
        frame(&mut machine, &Frame::Open { id: 1, window: 10, header: b"h" }).unwrap();
        let (last, before) = frames.split_last().unwrap();
        for before in before {
            frame(&mut machine, before).unwrap();
        }
        frame(&mut machine, last).unwrap_err()
    }
    let data = vec![0; credit::EARLY as usize];
    assert_eq!(
        broken(&[Frame::Data { id: 1, bytes: &data }, Frame::Data { id: 1, bytes: &[1] }]),
        Violation::Overdrawn(1)
    );
    assert_eq!(broken(&[Frame::Open { id: 1, window: 1, header: b"h" }]), Violation::Number(1));
    assert_eq!(broken(&[Frame::Open { id: 4, window: 1, header: b"h" }]), Violation::Number(4));
    assert_eq!(broken(&[Frame::Open { id: 5, window: 1, header: b"h" }]), Violation::Number(5));
    assert_eq!(broken(&[Frame::Data { id: 3, bytes: b"x" }]), Violation::Unknown(3));
    assert_eq!(broken(&[Frame::Credit { id: 4, more: 1 }]), Violation::Unknown(4));
    assert_eq!(broken(&[Frame::End { id: 1 }, Frame::Data { id: 1, bytes: b"x" }]), Violation::AfterEnd(1));
    assert_eq!(broken(&[Frame::End { id: 1 }, Frame::End { id: 1 }]), Violation::AfterEnd(1));
    assert_eq!(broken(&[Frame::Accept { id: 1, window: 1 }]), Violation::Answer(1));
    assert_eq!(broken(&[Frame::Data { id: 2, bytes: b"x" }]), Violation::Answer(2));
    assert_eq!(
        broken(&[Frame::Accept { id: 2, window: 1 }, Frame::Refuse { id: 2, answer: b"" }]),
        Violation::Answer(2)
    );
    assert_eq!(broken(&[Frame::Credit { id: 1, more: u32::MAX }]), Violation::Credit(1));
    // Answers that nobody reads.
    let mut machine = Machine::new(End::Accepted, 16, credit::PURSE);
    let flood = (0..1_000_000).find_map(|_| frame(&mut machine, &Frame::Ping(7)).err());
    assert_eq!(flood, Some(Violation::Unread));
}

/// A sink that takes so many bytes and no more.
struct Narrow(Mutex<(usize, Vec<u8>)>);

impl Sink for Narrow {
    fn deliver(&self, bytes: &[u8]) -> io::Result<usize> {
        let (room, came) = &mut *self.0.lock().unwrap();
        let taken = bytes.len().min(*room);
        *room -= taken;
        came.extend(&bytes[..taken]);
        if taken > 0 { Ok(taken) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }
}

#[test]
fn a_sink_gets_the_bytes_in_order_and_what_it_does_not_take_is_held() {
    let mut pair = Pair::new(16);
    let id = pair.stream();
    let sink = Arc::new(Narrow(Mutex::new((5, Vec::new()))));
    pair.sides[1].set_sink(id, Some(sink.clone()));
    pair.sides[0].write(id, b"abc").unwrap();
    pair.sides[0].write(id, b"defg").unwrap();
    pair.settle();
    assert_eq!(sink.0.lock().unwrap().1, b"abcde");
    // Room again, but what is held goes first.
    sink.0.lock().unwrap().0 = 100;
    pair.sides[0].write(id, b"hi").unwrap();
    pair.settle();
    assert_eq!(read(&mut pair.sides[1], id), Poll::Ready(Ok(b"fghi".to_vec())));
    pair.sides[0].write(id, b"jk").unwrap();
    pair.settle();
    assert_eq!(sink.0.lock().unwrap().1, b"abcdejk");
    pair.sides[1].release(id);
    assert_eq!(Arc::strong_count(&sink), 1);
}
