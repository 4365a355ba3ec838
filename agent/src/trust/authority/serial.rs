//! Serial numbers: random, 128 bits long, written in hexadecimal as OpenSSL has them.

use std::fmt;
use std::str::FromStr;

use rcgen::SerialNumber;
use uuid::Uuid;

/// The longest that RFC 5280 lets there be, in bytes.
const LONGEST: usize = 20;

/// A certificate's number: big endian, without zeros in front.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Vec<u8>);

/// A text that is no serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a serial number is 1 to 40 hexadecimal digits, with or without colons between")]
pub struct SerialError;

impl Serial {
    /// A new one. The highest bits are 01, so that it is positive and always of one length; the others are random, from
    /// two version 4 UUIDs, which have 122 random bits each.
    pub fn random() -> Self {
        let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
        let mut bytes = Vec::with_capacity(16);
        // The halves of a UUID that hold no version and no variant: bytes 0 to 5 and 9 to 15.
        for uuid in [one.as_bytes(), other.as_bytes()] {
            bytes.extend_from_slice(&uuid[0..6]);
            bytes.extend_from_slice(&uuid[9..11]);
        }
        bytes[0] = (bytes[0] & 0x3f) | 0x40;
        Self(bytes)
    }

    /// Of the bytes in a certificate.
    pub fn of(bytes: &[u8]) -> Self {
        let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
        Self(bytes[zeros..].to_vec())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Serial> for SerialNumber {
    fn from(serial: Serial) -> Self {
        SerialNumber::from(serial.0)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("00");
        }
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Serial {
    type Err = SerialError;
    fn from_str(text: &str) -> Result<Self, SerialError> {
        let text = text.strip_prefix("0x").unwrap_or(text);
        let mut digits: String = text.chars().filter(|&c| c != ':').collect();
        if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(SerialError);
        }
        if digits.len() % 2 == 1 {
            digits.insert(0, '0');
        }
        let mut bytes = Vec::with_capacity(digits.len() / 2);
        for pair in digits.as_bytes().chunks(2) {
            let pair = std::str::from_utf8(pair).map_err(|_| SerialError)?;
            bytes.push(u8::from_str_radix(pair, 16).map_err(|_| SerialError)?);
        }
        let serial = Self::of(&bytes);
        if (1..=LONGEST).contains(&serial.0.len()) { Ok(serial) } else { Err(SerialError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_is_written_and_read_in_one_way() {
        let serial = Serial::random();
        assert_eq!(serial.to_string().len(), 32);
        assert_eq!(serial.to_string().parse(), Ok(serial.clone()));
        assert_ne!(serial, Serial::random());
        assert_eq!("0A:0B".parse(), Ok(Serial::of(&[0, 10, 11])));
        assert_eq!("a0b".parse(), Ok(Serial::of(&[10, 11])));
        assert_eq!(Serial::of(&[0, 1]).to_string(), "01");
        for bad in ["", "0", "00:00", "xyz", "1 2", "-1", &"f".repeat(41)] {
            assert!(bad.parse::<Serial>().is_err(), "{bad:?}");
        }
    }
}
