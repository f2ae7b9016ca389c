//! The framing of OpenPGP (RFC 9580, sections 3.2, 4.2 and 5.2.3.7): packets, subpackets, numbers.

use crate::trust::number::without_zeros;

/// Tag of a signature.
pub(super) const SIGNATURE: u8 = 2;
/// Tag of a secret key.
pub(super) const SECRET_KEY: u8 = 5;
/// Tag of a primary public key.
pub(super) const PUBLIC_KEY: u8 = 6;
/// Tag of a user id.
pub(super) const USER_ID: u8 = 13;

/// Kinds of subpackets that signatures of every type have.
pub(super) const CREATED: u8 = 2;
pub(super) const ISSUER: u8 = 16;
pub(super) const NOTATION: u8 = 20;
pub(super) const ISSUER_FINGERPRINT: u8 = 33;

/// A packet of this tag around `body`, with a header of the current form.
pub(super) fn packet(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![0xC0 | tag];
    packet.extend(length(body.len()));
    packet.extend_from_slice(body);
    packet
}

/// A subpacket of a signature.
pub(super) fn subpacket(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut subpacket = length(body.len() + 1);
    subpacket.push(kind);
    subpacket.extend_from_slice(body);
    subpacket
}

/// A length in as few bytes as it takes.
fn length(len: usize) -> Vec<u8> {
    let len = u32::try_from(len).unwrap_or(u32::MAX); // nothing here is larger than a megabyte
    match len {
        0..192 => vec![len.to_be_bytes()[3]],
        192..8384 => {
            let [.., high, low] = (len - 192).to_be_bytes();
            vec![high + 192, low]
        }
        _ => [&[255][..], &len.to_be_bytes()].concat(),
    }
}

/// A number that is given big-endian, without its leading zeros.
pub(super) fn mpi(number: &[u8]) -> Vec<u8> {
    let number = without_zeros(number);
    let unused = number.first().map_or(0, |first| first.leading_zeros());
    let bits = u32::try_from(number.len() * 8).unwrap_or(u32::MAX) - unused;
    let [.., high, low] = bits.to_be_bytes();
    [&[high, low][..], number].concat()
}

/// What is read from the front of some bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

/// A packet that was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet<'a> {
    /// What kind it is.
    pub(super) tag: u8,
    /// What is in it.
    pub(super) body: &'a [u8],
    /// All of it, header and body.
    pub(super) whole: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// A number, big-endian and without leading zeros. One that has others bits than it says is
    /// none: a key would have two forms, and two fingerprints.
    pub(super) fn mpi(&mut self) -> Option<&'a [u8]> {
        let bits = self.u16()?;
        let number = self.take(usize::from(bits).div_ceil(8))?;
        let unused = number.first().map_or(0, |first| first.leading_zeros());
        (number.len() * 8 == usize::from(bits) + usize::try_from(unused).ok()? && unused < 8)
            .then_some(number)
    }

    /// The next packet, of either form of header. One of unknown length is none that a certificate
    /// has.
    pub(super) fn packet(&mut self) -> Option<Packet<'a>> {
        let start = self.0;
        let header = self.byte()?;
        let (tag, len) = match header {
            0xC0.. => (header & 0x3F, self.length(223)?),
            0x80..0xC0 => {
                let len = match header & 3 {
                    0 => usize::from(self.byte()?),
                    1 => usize::from(self.u16()?),
                    2 => usize::try_from(self.u32()?).ok()?,
                    _ => return None,
                };
                (header >> 2 & 0xF, len)
            }
            0..0x80 => return None,
        };
        let body = self.take(len)?;
        let whole = start.get(..start.len() - self.0.len())?;
        Some(Packet { tag, body, whole })
    }

    /// The next subpacket: its kind, without the bit that says that it is critical, and its body.
    /// Who reads takes no kind that he does not know, and so need not know what is critical; but a
    /// critical notation asks for more than to be kept.
    pub(super) fn subpacket(&mut self) -> Option<(u8, &'a [u8])> {
        let len = self.length(254)?;
        let (kind, body) = self.take(len)?.split_first()?;
        (*kind != 0x80 | NOTATION).then_some((kind & 0x7F, body))
    }

    /// A length, of which one of two bytes begins with at most `last`.
    fn length(&mut self, last: u8) -> Option<usize> {
        match self.byte()? {
            len @ 0..192 => Some(usize::from(len)),
            255 => usize::try_from(self.u32()?).ok(),
            high if high <= last => Some(((usize::from(high) - 192) << 8) + usize::from(self.byte()?) + 192),
            // A part of a packet, whose whole length nobody knows yet.
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_as_they_are_written() {
        for len in [0, 1, 191, 192, 193, 8383, 8384, 70_000] {
            let written = packet(2, &vec![7; len]);
            let read = Reader::new(&written).packet().unwrap();
            assert_eq!((read.tag, read.body.len(), read.whole.len()), (2, len, written.len()), "{len}");
        }
        // RFC 9580, section 4.2.4: the examples of lengths.
        assert_eq!(length(100), [0x64]);
        assert_eq!(length(1723), [0xC5, 0xFB]);
        assert_eq!(length(100_000), [0xFF, 0x00, 0x01, 0x86, 0xA0]);
    }

    #[test]
    fn packets_with_headers_of_the_old_form_are_read() {
        for bytes in [&[0x99, 0, 2, 7, 8][..], &[0x98, 2, 7, 8], &[0x9A, 0, 0, 0, 2, 7, 8]] {
            let read = Reader::new(bytes).packet().unwrap();
            assert_eq!((read.tag, read.body), (PUBLIC_KEY, &[7, 8][..]));
        }
        for bytes in [&[0x9B, 7, 8][..], &[0x99, 0, 3, 7, 8], &[0x1F], &[], &[0xC6, 0xE1, 7, 8]] {
            assert!(Reader::new(bytes).packet().is_none(), "{bytes:x?}");
        }
    }

    #[test]
    fn a_number_has_one_form() {
        assert_eq!(mpi(&[0, 0, 1, 255]), [0, 9, 1, 255], "RFC 9580, section 3.2");
        assert_eq!(mpi(&[]), [0, 0]);
        assert_eq!(mpi(&[0]), [0, 0]);
        assert_eq!(Reader::new(&[0, 9, 1, 255]).mpi(), Some(&[1, 255][..]));
        for bytes in [&[0, 10, 1, 255][..], &[0], &[0, 17, 1, 255], &[0, 16, 0, 255]] {
            assert_eq!(Reader::new(bytes).mpi(), None, "{bytes:x?}");
        }
    }
}
