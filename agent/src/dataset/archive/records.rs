//! What a POSIX tar says of an entry beyond its header (pax, POSIX.1-2001): `LENGTH KEY=VALUE\n`, where the length, in
//! decimal, counts all of it. A value may hold anything, line feeds too.

use std::io;

/// The records about one entry, in their order: a later one of a key goes before an earlier one.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    pub fn decode(mut bytes: &[u8]) -> io::Result<Self> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let (record, rest) =
                split(bytes).ok_or_else(|| io::Error::other("a record about an entry is malformed"))?;
            let (key, value) = record;
            all.push((key.to_vec(), value.to_vec()));
            bytes = rest;
        }
        Ok(Self(all))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(key, value)| (&key[..], &value[..]))
    }

    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.0.iter().rev().find(|(other, _)| other == key).map(|(_, value)| &value[..])
    }
}

/// A key and its value.
type Pair<'a> = (&'a [u8], &'a [u8]);

/// The first record, and what is behind it.
fn split(bytes: &[u8]) -> Option<(Pair<'_>, &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some(((&record[..equals], &record[equals + 1..]), &bytes[length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_hold_anything_and_what_is_no_record_is_refused() {
        let records = Records::decode(b"12 path=a\nb\n16 mtime=-1.500\n11 path=\xff\0\n").unwrap();
        assert_eq!(records.get(b"path"), Some(&b"\xff\0"[..]));
        assert_eq!(records.get(b"mtime"), Some(&b"-1.500"[..]));
        assert_eq!(records.iter().count(), 3);
        assert_eq!(Records::decode(b"").unwrap(), Records::default());
        for bad in [
            &b"x"[..],
            b"99 path=a\n",
            b"8 path=a\n",
            b" path=a\n",
            b"0 a=b\n",
            b"3 \n",
            b"9 path:a\n\n",
            b"18446744073709551616 a=b\n",
        ] {
            assert!(Records::decode(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
