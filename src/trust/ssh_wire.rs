//! The data types of SSH (RFC 4251, section 5) that keys and signatures are made of.

use super::number;

/// A string: its length and its bytes.
pub(crate) fn string(bytes: &[u8]) -> Vec<u8> {
    // Nothing here is longer than a key.
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [&len.to_be_bytes()[..], bytes].concat()
}

/// A positive number, given big-endian, in its shortest form.
pub(crate) fn mpint(number: &[u8]) -> Vec<u8> {
    string(&number::signed(number::without_zeros(number)))
}

/// What is read from the front of a blob.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }

    pub(crate) fn string(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.u32()?).ok()?;
        let (string, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(string)
    }

    /// A positive number, big-endian and without leading zeros.
    pub(crate) fn mpint(&mut self) -> Option<&'a [u8]> {
        number::positive(self.string()?)
    }
}
