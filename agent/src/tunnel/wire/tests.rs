use proptest::prelude::*;

use super::*;

/// A frame that owns what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owned {
    Open(u32, u32, Vec<u8>),
    Accept(u32, u32),
    Refuse(u32, Vec<u8>),
    Data(u32, Vec<u8>),
    End(u32),
    Reset(u32, Reset),
    Credit(u32, u32),
    Starved(u32),
    Ping(u64),
    Pong(u64),
    Leave,
    Close(Vec<u8>),
}

impl Owned {
    fn of(frame: &Frame<'_>) -> Self {
        match *frame {
            Frame::Open { id, window, header } => Self::Open(id, window, header.to_vec()),
            Frame::Accept { id, window } => Self::Accept(id, window),
            Frame::Refuse { id, answer } => Self::Refuse(id, answer.to_vec()),
            Frame::Data { id, bytes } => Self::Data(id, bytes.to_vec()),
            Frame::End { id } => Self::End(id),
            Frame::Reset { id, why } => Self::Reset(id, why),
            Frame::Credit { id, more } => Self::Credit(id, more),
            Frame::Starved { id } => Self::Starved(id),
            Frame::Ping(n) => Self::Ping(n),
            Frame::Pong(n) => Self::Pong(n),
            Frame::Leave => Self::Leave,
            Frame::Close { reason } => Self::Close(reason.to_vec()),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let frame = match *self {
            Self::Open(id, window, ref header) => Frame::Open { id, window, header },
            Self::Accept(id, window) => Frame::Accept { id, window },
            Self::Refuse(id, ref answer) => Frame::Refuse { id, answer },
            Self::Data(id, ref bytes) => Frame::Data { id, bytes },
            Self::End(id) => Frame::End { id },
            Self::Reset(id, why) => Frame::Reset { id, why },
            Self::Credit(id, more) => Frame::Credit { id, more },
            Self::Starved(id) => Frame::Starved { id },
            Self::Ping(n) => Frame::Ping(n),
            Self::Pong(n) => Frame::Pong(n),
            Self::Leave => Frame::Leave,
            Self::Close(ref reason) => Frame::Close { reason },
        };
        frame.encode(out);
    }
}

fn frames() -> impl Strategy<Value = Owned> {
    let id = 1..u32::MAX;
    let bytes = |least: usize, most: usize| prop::collection::vec(any::<u8>(), least..most);
    let why = prop_oneof![Just(Reset::Dropped), Just(Reset::Leaving), Just(Reset::Overloaded)];
    prop_oneof![
        (id.clone(), any::<u32>(), bytes(0, 300)).prop_map(|(id, n, header)| Owned::Open(id, n, header)),
        (id.clone(), any::<u32>()).prop_map(|(id, n)| Owned::Accept(id, n)),
        (id.clone(), bytes(0, 200)).prop_map(|(id, answer)| Owned::Refuse(id, answer)),
        (id.clone(), bytes(1, 2000)).prop_map(|(id, bytes)| Owned::Data(id, bytes)),
        id.clone().prop_map(Owned::End),
        (id.clone(), why).prop_map(|(id, why)| Owned::Reset(id, why)),
        (id.clone(), any::<u32>()).prop_map(|(id, n)| Owned::Credit(id, n)),
        id.prop_map(Owned::Starved),
        any::<u64>().prop_map(Owned::Ping),
        any::<u64>().prop_map(Owned::Pong),
        Just(Owned::Leave),
        bytes(0, 100).prop_map(Owned::Close),
    ]
}

/// What comes out of `pieces`, the parts of one data frame put together again.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Owned>, Violation> {
    let mut decoder = Decoder::default();
    let mut came: Vec<Owned> = Vec::new();
    let mut inside = false;
    for mut piece in pieces {
        while let Some(frame) = decoder.next(&mut piece)? {
            let frame = Owned::of(&frame);
            match (&frame, came.last_mut()) {
                (Owned::Data(_, more), Some(Owned::Data(_, bytes))) if inside => bytes.extend(more),
                _ => came.push(frame),
            }
            inside = decoder.data.is_some();
        }
        assert!(piece.is_empty(), "bytes were left over");
    }
    Ok(came)
}

proptest! {
    #[test]
    fn frames_come_out_alike_however_their_bytes_are_split(
        sent in prop::collection::vec(frames(), 1..20),
        cuts in prop::collection::vec(1_usize..700, 1..200),
    ) {
        let mut bytes = Vec::new();
        for frame in &sent {
            frame.encode(&mut bytes);
        }
        let mut rest = &*bytes;
        let mut cuts = cuts.iter().cycle();
        let pieces = std::iter::from_fn(|| {
            let (piece, left) = rest.split_at((*cuts.next()?).min(rest.len()));
            rest = left;
            (!piece.is_empty()).then_some(piece)
        });
        prop_assert_eq!(&decode(pieces).unwrap(), &sent);
        prop_assert_eq!(&decode(bytes.chunks(1)).unwrap(), &sent);
        prop_assert_eq!(&decode(std::iter::once(&*bytes)).unwrap(), &sent);
    }

    #[test]
    fn noise_is_refused_or_waited_for_and_nothing_else(noise in prop::collection::vec(any::<u8>(), 0..4000)) {
        let whole = decode(std::iter::once(&*noise));
        let split = decode(noise.chunks(7));
        prop_assert_eq!(whole.is_err(), split.is_err());
        let mut decoder = Decoder::default();
        let mut input = &*noise;
        while let Ok(Some(_)) = decoder.next(&mut input) {}
        prop_assert!(decoder.held.len() <= HEAD + WINDOW + MAX_FRAME);
    }
}

#[test]
fn what_breaks_the_rules_is_named() {
    let decode = |bytes: &[u8]| decode(std::iter::once(bytes)).unwrap_err().to_string();
    assert_eq!(decode(&[0, 0, 0, 1, 99, 0, 0, 0]), "a frame of unknown kind 99");
    assert_eq!(decode(&[0, 0, 0, 1, DATA, 0x10, 0, 0]), "a frame of kind 3 with 1048576 bytes");
    assert_eq!(decode(&[0, 0, 0, 1, DATA, 0, 0, 0]), "a frame of kind 3 with 0 bytes");
    assert_eq!(decode(&[0, 0, 0, 1, OPEN, 1, 1, 0]), "a frame of kind 0 with 65792 bytes");
    assert_eq!(decode(&[0, 0, 0, 1, OPEN, 0, 0, 3]), "a frame of kind 0 with 3 bytes");
    assert_eq!(decode(&[0, 0, 0, 0, DATA, 0, 0, 1]), "a frame of kind 3 for the wrong stream");
    assert_eq!(decode(&[0, 0, 0, 1, PING, 0, 0, 8]), "a frame of kind 7 for the wrong stream");
}

#[test]
fn words_are_cut_to_what_a_frame_may_have() {
    let mut bytes = Vec::new();
    Owned::Close(vec![b'x'; 10_000]).encode(&mut bytes);
    Owned::Refuse(1, vec![b'x'; 10_000]).encode(&mut bytes);
    let came = decode(std::iter::once(&*bytes)).unwrap();
    assert_eq!(came, [Owned::Close(vec![b'x'; MAX_REASON]), Owned::Refuse(1, vec![b'x'; MAX_REFUSAL])]);
}
