//! As much of DER as a revocation list needs: one element after another. A list has a hundred thousand entries, so
//! nothing is copied and nothing is made of what is only passed over.

/// A DER element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'a> {
    pub tag: u8,
    pub content: &'a [u8],
    /// Tag, length and content.
    pub whole: &'a [u8],
}

pub const INTEGER: u8 = 0x02;
pub const BIT_STRING: u8 = 0x03;
pub const UTC_TIME: u8 = 0x17;
pub const GENERALIZED_TIME: u8 = 0x18;
pub const SEQUENCE: u8 = 0x30;
/// `[0]`, constructed.
pub const TAGGED_0: u8 = 0xa0;

/// Bytes that are not the DER they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Reads elements that follow each other.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tag of what comes next.
    pub fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next element.
    pub fn element(&mut self) -> Result<Element<'a>, Malformed> {
        let (&tag, rest) = self.0.split_first().ok_or(Malformed)?;
        let (&first, rest) = rest.split_first().ok_or(Malformed)?;
        // A tag of several bytes is nothing that we know.
        if tag & 0x1f == 0x1f {
            return Err(Malformed);
        }
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f)).ok_or(Malformed)?;
                let length = digits.iter().fold(0_usize, |length, digit| length << 8 | usize::from(*digit));
                // The shortest form is the only one.
                let shortest = digits[0] != 0 && length >= 0x80;
                (if shortest { length } else { return Err(Malformed) }, rest)
            }
            _ => return Err(Malformed),
        };
        let (content, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
        let whole = &self.0[..self.0.len() - rest.len()];
        self.0 = rest;
        Ok(Element { tag, content, whole })
    }

    /// The next element, which has this tag.
    pub fn expect(&mut self, tag: u8) -> Result<Element<'a>, Malformed> {
        self.element().and_then(|element| if element.tag == tag { Ok(element) } else { Err(Malformed) })
    }

    /// The next element, if it has one of these tags.
    pub fn optional(&mut self, tags: &[u8]) -> Result<Option<Element<'a>>, Malformed> {
        if self.peek().is_some_and(|tag| tags.contains(&tag)) { self.element().map(Some) } else { Ok(None) }
    }

    /// That nothing is left.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// The bits of a BIT STRING that is whole bytes.
pub fn bits(content: &[u8]) -> Result<&[u8], Malformed> {
    match content.split_first() {
        Some((0, bits)) => Ok(bits),
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_follow_each_other_and_nothing_reaches_past_the_end() {
        let mut reader = Reader::new(&[0x02, 1, 7, 0x30, 0x81, 0x80]);
        assert_eq!(reader.expect(INTEGER).unwrap().content, [7]);
        assert_eq!(reader.element(), Err(Malformed));
        let mut long = vec![0x30, 0x81, 0x80];
        long.extend([0; 0x80]);
        let mut reader = Reader::new(&long);
        let element = reader.expect(SEQUENCE).unwrap();
        assert_eq!((element.content.len(), element.whole.len()), (0x80, 0x83));
        assert!(reader.end().is_ok());
        for bad in [&[][..], &[0x30], &[0x30, 0x80], &[0x30, 0x81, 5, 0, 0, 0, 0, 0], &[0x1f, 0]] {
            assert_eq!(Reader::new(bad).element(), Err(Malformed), "{bad:?}");
        }
        assert_eq!(bits(&[0, 1, 2]), Ok(&[1, 2][..]));
        assert_eq!(bits(&[1, 2]), Err(Malformed));
    }
}
