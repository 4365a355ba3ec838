//! The messages of `control`: LXD's protobuf (proto2), by field numbers.

use prost::Message;

use super::LxdError;

/// Version of the chunk stream that a header of ours offers, beside what LXD knows.
pub const CHUNK_STREAM: u32 = 2;
/// Largest message: a header that tells of thousands of snapshots.
pub const MAX_MESSAGE: usize = 16 << 20;
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
    fn anything_else_does_no_harm() {
        for bytes in [&b"\xff\xff\xff"[..], b"\x22\xff\xff\xff\x7fabc", b"\x08"] {
            assert!(decode::<Header>(bytes).is_err());
        }
        // Required fields that are missing read as nothing, which no later step takes for more.
        assert_eq!(decode::<Control>(b"").unwrap(), Control::default());
    }
}
