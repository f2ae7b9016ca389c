//! As much of DER (X.690) as public keys need: definite, minimal lengths, one byte of tag.
//!
//! Strict, because what is lenient reads two encodings of one value.

use super::number;

/// Tags of X.690 that occur in public keys.
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const NULL: u8 = 0x05;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;

/// What is not DER, or not of the shape that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotDer;

/// Reads one value after another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The content of the next value, which has this tag.
    pub(super) fn take(&mut self, tag: u8) -> Result<&'a [u8], NotDer> {
        let (found, rest) = self.0.split_first().ok_or(NotDer)?;
        if *found != tag {
            return Err(NotDer);
        }
        let (len, rest) = length(rest)?;
        let (content, rest) = rest.split_at_checked(len).ok_or(NotDer)?;
        self.0 = rest;
        Ok(content)
    }

    /// The values within the next one, a sequence.
    pub(super) fn sequence(&mut self) -> Result<Self, NotDer> {
        self.take(SEQUENCE).map(Self)
    }

    /// The next value, a positive integer: big-endian, without leading zeros.
    pub(super) fn positive(&mut self) -> Result<&'a [u8], NotDer> {
        number::positive(self.take(INTEGER)?).ok_or(NotDer)
    }

    /// The next value, a bit string of whole bytes.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], NotDer> {
        match self.take(BIT_STRING)? {
            [0, rest @ ..] => Ok(rest),
            [] | [_, ..] => Err(NotDer),
        }
    }

    /// Nothing may be left.
    pub(super) const fn end(self) -> Result<(), NotDer> {
        if self.0.is_empty() { Ok(()) } else { Err(NotDer) }
    }

    /// Whether nothing is left.
    pub(super) const fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

/// A length, in the fewest bytes that it needs, and what follows it. Keys stay below 64 KiB.
fn length(bytes: &[u8]) -> Result<(usize, &[u8]), NotDer> {
    match bytes {
        [len, rest @ ..] if *len < 0x80 => Ok((usize::from(*len), rest)),
        [0x81, len, rest @ ..] if *len >= 0x80 => Ok((usize::from(*len), rest)),
        [0x82, high, low, rest @ ..] if *high > 0 => {
            Ok((usize::from(u16::from_be_bytes([*high, *low])), rest))
        }
        [] | [_, ..] => Err(NotDer),
    }
}

/// One value of these contents, one after the other: at most 65,535 bytes.
pub(super) fn value(tag: u8, contents: &[&[u8]]) -> Vec<u8> {
    let len = contents.iter().map(|part| part.len()).sum::<usize>();
    let [.., high, low] = len.to_be_bytes();
    let mut bytes = vec![tag];
    match (high, low) {
        (0, 0..0x80) => bytes.push(low),
        (0, 0x80..) => bytes.extend([0x81, low]),
        (1.., _) => bytes.extend([0x82, high, low]),
    }
    contents.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// A positive integer, given big-endian without leading zeros.
pub(super) fn positive(number: &[u8]) -> Vec<u8> {
    value(INTEGER, &[&number::signed(number)])
}

/// An object identifier as people write it: `1.2.840.10045.2.1`. What is none is shown as digits.
pub(super) fn dotted(content: &[u8]) -> String {
    let (mut arcs, mut arc) = (Vec::new(), 0_u64);
    for byte in content {
        arc = (arc << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if arcs.is_empty() {
                let first = (arc / 40).min(2);
                arcs.extend([first, arc - 40 * first]);
            } else {
                arcs.push(arc);
            }
            arc = 0;
        } else if arc >> 56 != 0 {
            return hex::encode(content);
        }
    }
    arcs.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_shortest_length_is_read() {
        for bad in [
            &[][..],
            &[4],
            &[4, 1],
            &[5, 0],
            &[4, 0x80],
            &[4, 0x81, 1, 0],
            &[4, 0x82, 0, 1, 0],
            &[4, 0x83, 0, 0, 1, 0],
        ] {
            assert_eq!(Reader::new(bad).take(4), Err(NotDer), "{bad:?}");
        }
        assert_eq!(Reader::new(&[4, 1, 9]).take(4), Ok(&[9][..]));
    }

    #[test]
    fn integers_are_positive_and_minimal() {
        for bad in [&[][..], &[0], &[0, 0], &[0, 1], &[0x80], &[0xff, 1]] {
            let value = value(INTEGER, &[bad]);
            assert_eq!(Reader::new(&value).positive(), Err(NotDer), "{bad:?}");
        }
        for good in [&[1][..], &[0x80], &[0x7f, 0], &[0xff; 300]] {
            assert_eq!(Reader::new(&positive(good)).positive(), Ok(good));
        }
    }

    #[test]
    fn object_identifiers_are_shown_as_people_write_them() {
        assert_eq!(dotted(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]), "1.2.840.10045.2.1");
        assert_eq!(dotted(&[0x2b, 0x65, 0x70]), "1.3.101.112");
        assert_eq!(dotted(&[0x88, 0x37, 3]), "2.999.3");
        assert_eq!(dotted(&[0xff; 20]), "ff".repeat(20));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(content in prop::collection::vec(any::<u8>(), 0..700)) {
            let bytes = value(BIT_STRING, &[&[0], &content]);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.bytes(), Ok(content.as_slice()));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut reader = Reader::new(&bytes);
            if let Ok(number) = reader.sequence().and_then(|mut inner| inner.positive()) {
                prop_assert!(number.len() < bytes.len());
            }
            prop_assert!(dotted(&bytes).len() <= 4 * bytes.len());
        }
    }
}
