//! The form of the record: what a row is, and the hash that binds it to all the rows before it.
//!
//! Pure. `docs/formats.md` describes this form for others to recompute, so it is fixed: another
//! form gets another number in `GENESIS` and `ROW`. Knows no database, and never decides whether a
//! chain holds; that is `audit`'s.

use super::reason::DecisionReason;
use super::{Decision, Outcome};
use crate::digest::{Digest, Hasher};
use crate::signing::Reason;
use std::fmt;
use std::str::FromStr;

/// Bytes of a link. SHA-512 cut in half: 128 bits against collisions, half the room in every row,
/// and a head that fits on a line.
pub(crate) const LEN: usize = 32;

/// What the beginning of a chain is hashed with, so that it can pass for nothing else.
const GENESIS: &[u8] = b"kms-sig history 1: genesis\0";

/// What each row is hashed with.
const ROW: &[u8] = b"kms-sig history 1: row\0";

/// A hash of the chain: that of its beginning, which is the chain's id, or that of a row.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Link([u8; LEN]);

/// Where a chain stands: the link of its row `seq`, or of its beginning for 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// The row's number.
    pub(crate) seq: i64,
    /// Its link.
    pub(crate) link: Link,
}

/// A point, and the chain it is on: all that need be kept elsewhere to notice a record that was
/// rolled back, rewritten or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The chain's id.
    pub(crate) chain: Link,
    /// Its last row.
    pub(crate) point: Point,
}

/// How a chain began. Random, so that no two begin alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Genesis {
    /// Random bytes.
    pub(crate) nonce: [u8; LEN],
    /// When, as RFC 3339 in UTC.
    pub(crate) begun: String,
}

/// A row of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// Its number, from 1.
    pub(crate) seq: i64,
    /// When it was written, as RFC 3339 in UTC.
    pub(crate) at: String,
    /// The rule's name.
    pub(crate) rule: String,
    /// The payload, below the rule's root, byte for byte.
    pub(crate) path: Vec<u8>,
    /// What became of it; one of [`Outcome::words`].
    pub(crate) outcome: String,
    /// Why, where that says more: the text of [`DecisionReason::to_record`], or of an earlier
    /// version's sentence.
    pub(crate) reason: Option<String>,
    /// SHA-512 of the payload, in hexadecimal.
    pub(crate) digest: Option<String>,
    /// SHA-512 of the signature, in hexadecimal.
    pub(crate) signature_digest: Option<String>,
    /// The key that signed or vouched.
    pub(crate) key: Option<String>,
    /// The folder in the quarantine store.
    pub(crate) item: Option<String>,
}

/// What a row says about a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    /// Valid.
    Valid,
    /// Invalid, and why.
    Invalid(Reason),
}

impl Link {
    /// Of these bytes.
    pub(crate) const fn new(bytes: [u8; LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub(crate) const fn as_bytes(&self) -> &[u8; LEN] {
        &self.0
    }
}

/// 64 lower-case hexadecimal digits.
impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({self})")
    }
}

impl FromStr for Link {
    type Err = NoLink;

    fn from_str(text: &str) -> Result<Self, NoLink> {
        let mut link = [0; LEN];
        hex::decode_to_slice(text, &mut link).map(|()| Self(link)).map_err(|_| NoLink)
    }
}

/// Text that is no link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no hash of the record; one has 64 hexadecimal digits")]
pub(crate) struct NoLink;

impl Genesis {
    /// The chain's id, which is what its first row follows.
    pub(crate) fn link(&self) -> Link {
        let mut hash = Hashed::new(GENESIS);
        hash.bytes(&self.nonce);
        hash.field(self.begun.as_bytes());
        hash.finish()
    }
}

impl Row {
    /// The row that a decision becomes.
    pub(crate) fn new(seq: i64, at: String, decision: &Decision) -> Self {
        Self {
            seq,
            at,
            rule: decision.rule.clone(),
            path: decision.path.as_bytes().to_vec(),
            outcome: decision.outcome.as_str().to_owned(),
            reason: decision.reason.as_ref().map(DecisionReason::to_record),
            digest: decision.digest.as_ref().map(Digest::to_string),
            signature_digest: decision.signature_digest.as_ref().map(Digest::to_string),
            key: decision.key.clone(),
            item: decision.item.clone(),
        }
    }

    /// Its link on `chain`, after a row whose link is `before`: SHA-512, cut to 32 bytes, of a
    /// prefix, the chain's id, the link before, the row's number in eight bytes, and each field in
    /// the order of this type. A field is a byte 1, its length in eight bytes and itself; a field
    /// that is absent is a byte 0. Numbers are big endian. So no two different rows, at no two
    /// different places, are hashed alike.
    pub(crate) fn link(&self, chain: &Link, before: &Link) -> Link {
        let mut hash = Hashed::new(ROW);
        hash.bytes(&chain.0);
        hash.bytes(&before.0);
        hash.bytes(&self.seq.to_be_bytes());
        for field in [
            Some(self.at.as_bytes()),
            Some(self.rule.as_bytes()),
            Some(&self.path),
            Some(self.outcome.as_bytes()),
            self.reason.as_deref().map(str::as_bytes),
            self.digest.as_deref().map(str::as_bytes),
            self.signature_digest.as_deref().map(str::as_bytes),
            self.key.as_deref().map(str::as_bytes),
            self.item.as_deref().map(str::as_bytes),
        ] {
            match field {
                Some(field) => hash.field(field),
                None => hash.bytes(&[0]),
            }
        }
        hash.finish()
    }

    /// The verdict it tells of, if it tells of one. Signing and refusing are none.
    pub(crate) fn judged(&self) -> Option<Judged> {
        match Outcome::parse(&self.outcome)? {
            Outcome::Adopted | Outcome::Valid | Outcome::Delivered => Some(Judged::Valid),
            // A signature of ours that is out of date can be quarantined too; that is no verdict.
            Outcome::Invalid | Outcome::Quarantined => {
                Reason::parse(self.reason.as_deref()?).map(Judged::Invalid)
            }
            Outcome::Signing | Outcome::Signed | Outcome::Refused => None,
        }
    }
}

/// A hash under construction.
struct Hashed(Hasher);

impl Hashed {
    fn new(prefix: &[u8]) -> Self {
        let mut hash = Self(Hasher::default());
        hash.bytes(prefix);
        hash
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn field(&mut self, bytes: &[u8]) {
        self.bytes(&[1]);
        self.bytes(&(bytes.len() as u64).to_be_bytes());
        self.bytes(bytes);
    }

    fn finish(self) -> Link {
        let digest = self.0.finish();
        let mut link = [0; LEN];
        for (to, from) in link.iter_mut().zip(digest.as_bytes()) {
            *to = *from;
        }
        Link(link)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashSet;

    use super::*;

    /// A row with every field.
    pub(in crate::state) fn full(seq: i64) -> Row {
        let text = |s: &str| Some(format!("{s}{seq}"));
        Row {
            seq,
            at: format!("2026-11-24T01:02:{:02}.000Z", seq % 60),
            rule: "downloads".into(),
            path: format!("file{seq}\u{7f}").into_bytes(),
            outcome: "quarantined".into(),
            reason: Some("mismatch".into()),
            digest: text("d"),
            signature_digest: text("s"),
            key: text("local:k"),
            item: text("i"),
        }
    }

    #[test]
    fn known_answers_keep_the_form_as_it_is() {
        // Computed once by hashlib; tests/it/history.rs recomputes whole exports with it.
        let genesis = Genesis { nonce: [7; LEN], begun: "2026-11-24T01:02:03.004Z".into() };
        let chain = genesis.link();
        assert_eq!(chain.to_string(), "90b690833f228ecd5684cb89e19117a45303ebcd5ea052c919e0a240cfc20f05");
        let mut row = full(1);
        row.key = None;
        assert_eq!(
            row.link(&chain, &chain).to_string(),
            "ab9040ab753f87296c1f558e8e3664a6db47500333faea50fc1285e794c6a11b"
        );
    }

    #[test]
    fn moving_a_value_to_another_field_changes_the_link() {
        let zero = Link([0; LEN]);
        let mut rows = vec![full(1), full(2)];
        for reason in [None, Some(String::new()), Some("mismatchd".into()), Some("mismatc".into())] {
            rows.push(Row { reason, ..full(1) });
        }
        rows.push(Row { reason: Some("mismatchd1".into()), digest: None, ..full(1) });
        rows.push(Row { reason: None, digest: Some("mismatch".into()), ..full(1) });
        rows.push(Row { rule: "downloadsf".into(), path: b"ile1\x7f".to_vec(), ..full(1) });
        let links: HashSet<_> = rows.iter().map(|row| row.link(&zero, &zero)).collect();
        assert_eq!(links.len(), rows.len());
        let elsewhere = full(1).link(&Link([1; LEN]), &zero);
        assert!(!links.contains(&elsewhere) && elsewhere != full(1).link(&zero, &Link([1; LEN])));
    }

    #[test]
    fn links_are_read_as_they_are_written() {
        let link = full(3).link(&Link([0; LEN]), &Link([9; LEN]));
        assert_eq!(link.to_string().parse(), Ok(link));
        assert_eq!(link.to_string().to_uppercase().parse(), Ok(link));
        let text = link.to_string();
        for bad in ["", "00", &text[1..], &format!("{text}0"), &format!("{text}00"), &text.replace('0', "g")]
        {
            assert_eq!(bad.parse::<Link>(), Err(NoLink), "{bad}");
        }
    }

    #[test]
    fn only_rows_about_verdicts_have_one() {
        let row = |outcome: Outcome, reason: Option<&str>| {
            Row { outcome: outcome.as_str().into(), reason: reason.map(Into::into), ..full(1) }.judged()
        };
        assert_eq!(row(Outcome::Delivered, None), Some(Judged::Valid));
        assert_eq!(row(Outcome::Quarantined, Some("missing")), Some(Judged::Invalid(Reason::Missing)));
        assert_eq!(row(Outcome::Quarantined, Some("out of date")), None);
        assert_eq!(row(Outcome::Signed, None), None);
        assert_eq!(Row { outcome: "praised".into(), ..full(1) }.judged(), None);
    }
}
