//! The messages of `control`: LXD's protobuf (proto2), by field numbers.

use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::LxdError;

/// Version of the chunk stream that a header of ours offers, beside what LXD knows.
pub const CHUNK_STREAM: u32 = 2;
/// Largest message: a header that tells of [`MOST_SNAPSHOTS`] with some kilobytes of configuration each.
pub const MAX_MESSAGE: usize = 4 << 20;
/// Largest message that tells how it went.
pub const MAX_VERDICT: usize = 64 << 10;
/// Most snapshots of a header.
pub const MOST_SNAPSHOTS: usize = 4096;
/// Most fields of a header at all depths. An empty one takes two bytes there and up to 200 here.
const MOST_FIELDS: usize = 128 << 10;
/// The version of the index header that is understood: 1 is what every LXD since 5.0 can send.
pub const INDEX_VERSION: u32 = 1;

/// How files go over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Type {
    Rsync = 0,
    Btrfs = 1,
    Zfs = 2,
    Rbd = 3,
    BlockAndRsync = 4,
    RbdAndRsync = 5,
}

#[derive(Clone, PartialEq, Message)]
pub struct Header {
    #[prost(enumeration = "Type", required, tag = "1")]
    pub fs: i32,
    #[prost(int32, optional, tag = "2")]
    pub criu: Option<i32>,
    #[prost(message, repeated, tag = "3")]
    pub idmap: Vec<IdMap>,
    #[prost(string, repeated, tag = "4")]
    pub snapshot_names: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    pub snapshots: Vec<Snapshot>,
    #[prost(bool, optional, tag = "7")]
    pub predump: Option<bool>,
    #[prost(message, optional, tag = "8")]
    pub rsync_features: Option<RsyncFeatures>,
    #[prost(bool, optional, tag = "9")]
    pub refresh: Option<bool>,
    #[prost(int64, optional, tag = "11")]
    pub volume_size: Option<i64>,
    #[prost(uint32, optional, tag = "13")]
    pub index_header_version: Option<u32>,
    /// Ours: the version of the chunk stream that is offered, and in an answer taken.
    #[prost(uint32, optional, tag = "6201")]
    pub chunk_stream: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub struct IdMap {
    #[prost(bool, required, tag = "1")]
    pub is_uid: bool,
    #[prost(bool, required, tag = "2")]
    pub is_gid: bool,
    #[prost(int32, required, tag = "3")]
    pub host_id: i32,
    #[prost(int32, required, tag = "4")]
    pub ns_id: i32,
    #[prost(int32, required, tag = "5")]
    pub range: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Snapshot {
    #[prost(string, required, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub config: Vec<Config>,
    #[prost(string, repeated, tag = "3")]
    pub profiles: Vec<String>,
    #[prost(bool, required, tag = "4")]
    pub ephemeral: bool,
    #[prost(message, repeated, tag = "5")]
    pub devices: Vec<Device>,
    #[prost(int32, required, tag = "6")]
    pub architecture: i32,
    #[prost(bool, required, tag = "7")]
    pub stateful: bool,
    /// Seconds since 1970.
    #[prost(int64, optional, tag = "8")]
    pub creation_date: Option<i64>,
    #[prost(int64, optional, tag = "9")]
    pub last_used_date: Option<i64>,
    #[prost(int64, optional, tag = "10")]
    pub expiry_date: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Config {
    #[prost(string, required, tag = "1")]
    pub key: String,
    #[prost(string, required, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Device {
    #[prost(string, required, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub config: Vec<Config>,
}

/// What both rsyncs must be told alike.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct RsyncFeatures {
    #[prost(bool, optional, tag = "1")]
    pub xattrs: Option<bool>,
    #[prost(bool, optional, tag = "2")]
    pub delete: Option<bool>,
    #[prost(bool, optional, tag = "3")]
    pub compress: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    pub bidirectional: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Control {
    #[prost(bool, required, tag = "1")]
    pub success: bool,
    #[prost(string, optional, tag = "2")]
    pub message: Option<String>,
}

impl RsyncFeatures {
    /// What this side can do.
    pub const OURS: Self =
        Self { xattrs: Some(true), delete: Some(true), compress: Some(true), bidirectional: Some(true) };

    /// What both can do.
    #[must_use]
    pub fn common(self, other: Self) -> Self {
        let both = |a: Option<bool>, b: Option<bool>| Some(a.unwrap_or(false) && b.unwrap_or(false));
        Self {
            xattrs: both(self.xattrs, other.xattrs),
            delete: both(self.delete, other.delete),
            compress: both(self.compress, other.compress),
            bidirectional: both(self.bidirectional, other.bidirectional),
        }
    }
}

/// Reads a header. What it would become here is counted before any of it is made.
pub fn decode_header(bytes: &[u8]) -> Result<Header, LxdError> {
    let mut left = MOST_FIELDS;
    count(bytes, &[SNAPSHOTS, DEVICES], &mut left)?;
    let header: Header = decode(bytes)?;
    if header.snapshots.len().max(header.snapshot_names.len()) > MOST_SNAPSHOTS {
        return Err(LxdError::Malformed("a header with too many snapshots"));
    }
    Ok(header)
}

/// Where a header has snapshots, and these have devices: what can be repeated within what is repeated.
const SNAPSHOTS: u32 = 5;
const DEVICES: u32 = 5;

/// Takes the fields of a message off `left`, and those of the messages at `within`, one number for each depth.
fn count(bytes: &[u8], within: &[u32], left: &mut usize) -> Result<(), LxdError> {
    let malformed = |_| LxdError::Malformed("a control message of another kind");
    let mut rest = bytes;
    while !rest.is_empty() {
        *left = left.checked_sub(1).ok_or(LxdError::Malformed("a header with too many fields"))?;
        let (tag, wire_type) = decode_key(&mut rest).map_err(malformed)?;
        match within.split_first() {
            Some((inner, deeper)) if *inner == tag && wire_type == WireType::LengthDelimited => {
                let len = decode_varint(&mut rest).map_err(malformed)?;
                let inside = usize::try_from(len).ok().and_then(|len| rest.split_at_checked(len));
                let (inside, behind) = inside.ok_or(LxdError::Malformed("a control message cut short"))?;
                count(inside, deeper, left)?;
                rest = behind;
            }
            _ => skip_field(wire_type, tag, &mut rest, DecodeContext::default()).map_err(malformed)?,
        }
    }
    Ok(())
}

/// Reads one message; what is not of its kind is the other side's fault.
pub fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, LxdError> {
    M::decode(bytes).map_err(|_| LxdError::Malformed("a control message of another kind"))
}

/// As LXD names it.
pub fn type_name(number: i32) -> String {
    match Type::try_from(number) {
        Ok(Type::Rsync) => "rsync".to_owned(),
        Ok(Type::Btrfs) => "btrfs".to_owned(),
        Ok(Type::Zfs) => "zfs".to_owned(),
        Ok(Type::Rbd) => "rbd".to_owned(),
        Ok(Type::BlockAndRsync) => "block and rsync".to_owned(),
        Ok(Type::RbdAndRsync) => "rbd and rsync".to_owned(),
        Err(_) => format!("unknown ({number})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lxd_writes_is_read_and_read_back() {
        // fs = RSYNC, one snapshot name, features xattrs and bidirectional, index header version 1: as LXD's Go writes it.
        let bytes = b"\x08\x00\x22\x02s0\x42\x08\x08\x01\x10\x00\x18\x00\x20\x01\x68\x01";
        let header: Header = decode(bytes).unwrap();
        assert_eq!((header.fs, header.snapshot_names.as_slice()), (0, ["s0".to_owned()].as_slice()));
        let common = RsyncFeatures::OURS.common(header.rsync_features.unwrap());
        assert_eq!(
            (common.xattrs, common.compress, common.bidirectional),
            (Some(true), Some(false), Some(true))
        );
        assert_eq!((header.index_header_version, header.chunk_stream), (Some(1), None));
        assert_eq!(header.encode_to_vec(), bytes);
    }

    #[test]
    fn a_header_that_would_grow_is_refused_before_it_does() {
        let named = |name: &str| Snapshot { name: name.to_owned(), ..Snapshot::default() };
        let mut header = Header { snapshots: vec![named("s0"), named("s1")], ..Header::default() };
        header.snapshots[0].devices = vec![Device { name: "root".to_owned(), config: Vec::new() }];
        assert_eq!(decode_header(&header.encode_to_vec()).unwrap(), header);
        // Empty snapshots; empty entries of one snapshot; empty entries of one device of it.
        let nest = |inside: &[u8]| {
            let mut outer = vec![0x2a];
            prost::encoding::encode_varint(inside.len() as u64, &mut outer);
            outer.extend_from_slice(inside);
            outer
        };
        let (snapshots, entries) = (b"\x2a\x00".repeat(MOST_FIELDS + 1), b"\x12\x00".repeat(MOST_FIELDS));
        for bytes in [snapshots, nest(&entries), nest(&nest(&entries))] {
            assert!(decode::<Header>(&bytes).is_ok());
            let refused = decode_header(&bytes).unwrap_err().to_string();
            assert!(refused.ends_with("too many fields"), "{refused}");
        }
        assert!(decode_header(&b"\x2a\x00".repeat(MOST_SNAPSHOTS + 1)).is_err());
        assert!(decode_header(b"\x2a\x7f").is_err() && decode_header(b"\x2a\xff").is_err());
    }

    #[test]
    fn anything_else_does_no_harm() {
        for bytes in [&b"\xff\xff\xff"[..], b"\x22\xff\xff\xff\x7fabc", b"\x08"] {
            assert!(decode::<Header>(bytes).is_err());
        }
        // Required fields that are missing read as nothing, which no later step takes for more.
        assert_eq!(decode::<Control>(b"").unwrap(), Control::default());
    }
}
