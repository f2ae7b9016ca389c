//! ASCII armor (RFC 9580, section 6.2).

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::trust::lines::base64_lines;

/// Characters of a line, as GnuPG writes them.
const COLUMNS: usize = 64;

/// What is armored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    /// A certificate.
    PublicKey,
    /// A detached signature.
    Signature,
}

impl Block {
    const fn label(self) -> &'static str {
        match self {
            Self::PublicKey => "PGP PUBLIC KEY BLOCK",
            Self::Signature => "PGP SIGNATURE",
        }
    }

    /// Armors packets. The checksum is optional by now, and some verifiers still want it.
    pub fn armor(self, packets: &[u8]) -> String {
        let (label, body) = (self.label(), base64_lines(packets, COLUMNS));
        let checksum = STANDARD.encode(crc24(packets));
        format!("-----BEGIN {label}-----\n\n{body}={checksum}\n-----END {label}-----\n")
    }

    /// The packets in bytes that are armored, as one block of this kind, or not at all. `None`:
    /// they are text with no such block, or with two, or a damaged one.
    pub(super) fn open(self, bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
        // Every packet begins with this bit.
        match bytes.first() {
            Some(0x80..) => Some(bytes.into()),
            Some(_) | None => self.dearmor(std::str::from_utf8(bytes).ok()?).map(Cow::Owned),
        }
    }

    /// What is in the one block of this kind that `text` has; text before and after it is let be.
    /// `None`: there is none, there are two, or it is damaged.
    pub(super) fn dearmor(self, text: &str) -> Option<Vec<u8>> {
        let begin = format!("-----BEGIN {}-----", self.label());
        let end = format!("-----END {}-----", self.label());
        let mut lines = text.lines().map(str::trim_end);
        lines.by_ref().find(|line| *line == begin)?;
        // Headers, and the empty line that ends them.
        lines.by_ref().find(|line| line.is_empty())?;
        let mut body = String::new();
        let mut checksum = None;
        loop {
            match lines.next()? {
                line if line == end => break,
                line if line.starts_with('=') => checksum = line.get(1..),
                line if checksum.is_none() => body.push_str(line),
                _ => return None,
            }
        }
        let packets = STANDARD.decode(&body).ok()?;
        let is_intact = checksum.is_none_or(|sum| sum == STANDARD.encode(crc24(&packets)));
        let is_alone = !lines.any(|line| line == begin);
        (is_intact && is_alone).then_some(packets)
    }
}

/// The checksum of armor (RFC 9580, section 6.1.1).
fn crc24(bytes: &[u8]) -> [u8; 3] {
    let mut crc: u32 = 0x00B7_04CE;
    for byte in bytes {
        crc ^= u32::from(*byte) << 16;
        for _ in 0..8 {
            crc <<= 1;
            if crc & 0x0100_0000 != 0 {
                crc ^= 0x0186_4CFB;
            }
        }
    }
    let [_, high, middle, low] = crc.to_be_bytes();
    [high, middle, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_armored_is_found_again() {
        for len in [0, 1, 47, 48, 49, 1000] {
            let packets = vec![0xC2; len];
            let text = Block::Signature.armor(&packets);
            assert_eq!(Block::Signature.dearmor(&text), Some(packets.clone()));
            assert_eq!(Block::PublicKey.dearmor(&text), None);
            let around = format!("before\r\n{}after", text.replace('\n', "\r\n"));
            assert_eq!(Block::Signature.dearmor(&around), Some(packets));
            assert!(text.lines().all(|line| line.len() <= COLUMNS));
        }
    }

    #[test]
    fn damaged_armor_and_two_blocks_are_none() {
        let text = Block::Signature.armor(b"0123456789");
        for wrong in [
            text.replacen("MDEy", "MDEx", 1),
            text.clone() + &text,
            text.replacen("\n\n", "\n", 1),
            text.lines().take(4).collect::<Vec<_>>().join("\n"),
        ] {
            assert_eq!(Block::Signature.dearmor(&wrong), None, "{wrong}");
        }
        let without_checksum: String =
            text.lines().filter(|line| !line.starts_with('=')).map(|line| format!("{line}\n")).collect();
        assert_eq!(Block::Signature.dearmor(&without_checksum).unwrap(), b"0123456789");
    }

    #[test]
    fn the_checksum_is_that_of_the_rfc() {
        // CRC-24/OPENPGP of the catalogue of parametrised CRC algorithms.
        assert_eq!(crc24(b"123456789"), [0x21, 0xCF, 0x02]);
    }
}
