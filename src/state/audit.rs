//! Verifies that a record is unbroken: recomputes every link, and names the first row that was
//! changed.
//!
//! Pure: rows come in one after the other, from the database or from an export. The result is a
//! fact about these rows; failures to read them are the reader's errors.

use std::collections::BTreeMap;

use super::link::{Genesis, Head, Link, Point, Row};

/// What a record says about itself, to be proven by its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claims {
    /// How it began.
    pub(crate) genesis: Genesis,
    /// Its id.
    pub(crate) chain: Link,
    /// The last row that retention removed, or the beginning: the chain continues from here.
    pub(crate) checkpoint: Point,
    /// The last row.
    pub(crate) head: Point,
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Break {
    /// The id is not that of the beginning.
    #[error("the beginning was changed: the chain's id is not the hash of its nonce and time")]
    Genesis,
    /// The checkpoint is impossible.
    #[error("the checkpoint was changed: it cannot be row {checkpoint} when the last row is {head}")]
    Checkpoint {
        /// The checkpoint's row.
        checkpoint: i64,
        /// The head's row.
        head: i64,
    },
    /// A row that should be there is not.
    #[error("row {0} is missing")]
    Missing(i64),
    /// A row before the first.
    #[error("row {seq} does not belong here: the record begins with row {first}")]
    Before {
        /// The row.
        seq: i64,
        /// The first.
        first: i64,
    },
    /// A row after the last.
    #[error("row {seq} does not belong here: the record ends with row {head}")]
    After {
        /// The row.
        seq: i64,
        /// The last.
        head: i64,
    },
    /// A row is not what its hash says.
    #[error("row {0} is not what was recorded, or does not follow the row before it as it is now")]
    Changed(i64),
    /// A row has a value that is never written.
    #[error("row {seq} is not what was recorded: its {column} cannot be read")]
    Unreadable {
        /// The row.
        seq: i64,
        /// The column.
        column: &'static str,
    },
    /// The database does not let its rows be read.
    #[error("the database is damaged after row {seq}: {what}")]
    Damaged {
        /// The last row that could be read.
        seq: i64,
        /// What SQLite says.
        what: String,
    },
    /// The head is not the last row's hash.
    #[error("the head was changed: it is not the hash of row {0}")]
    Head(i64),
    /// A head that was kept elsewhere is not on this chain.
    #[error("this is not the chain of {whose}: {how}")]
    Foreign {
        /// Whose head.
        whose: String,
        /// The head's row.
        seq: i64,
        /// How the two differ.
        how: String,
    },
}

impl Break {
    /// The first bad row, where it is one.
    pub(crate) const fn row(&self) -> Option<i64> {
        match self {
            Self::Genesis | Self::Checkpoint { .. } => None,
            Self::Missing(seq)
            | Self::Changed(seq)
            | Self::Head(seq)
            | Self::Before { seq, .. }
            | Self::After { seq, .. }
            | Self::Unreadable { seq, .. }
            | Self::Foreign { seq, .. } => Some(*seq),
            Self::Damaged { seq, .. } => Some(seq.saturating_add(1)),
        }
    }
}

/// A record that was found unbroken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unbroken {
    /// Its rows that are there.
    pub rows: i64,
    /// Where it continues from.
    pub checkpoint: Point,
    /// Its head.
    pub head: Head,
    /// Expected heads that were found on it.
    pub found: usize,
    /// Expected heads that lie before the checkpoint, so that nothing can be said about them:
    /// whose.
    pub pruned: Vec<String>,
}

/// A record being proven.
pub(crate) struct Audit {
    claims: Claims,
    /// The last row that was good.
    last: Point,
    /// Heads that must be met, by row.
    expected: BTreeMap<i64, Vec<(Link, String)>>,
    found: usize,
    pruned: Vec<String>,
}

impl Audit {
    /// Begins with what the record says about itself.
    ///
    /// # Errors
    /// It contradicts itself.
    pub(crate) fn begin(claims: Claims) -> Result<Self, Break> {
        let Claims { genesis, chain, checkpoint, head } = &claims;
        if genesis.link() != *chain {
            return Err(Break::Genesis);
        }
        let is_whole = checkpoint.seq == 0;
        if checkpoint.seq > head.seq || checkpoint.seq < 0 || (is_whole && checkpoint.link != *chain) {
            return Err(Break::Checkpoint { checkpoint: checkpoint.seq, head: head.seq });
        }
        let last = *checkpoint;
        Ok(Self { claims, last, expected: BTreeMap::new(), found: 0, pruned: Vec::new() })
    }

    /// Demands that a point be on the chain. `whose` says for whom, in messages: "the head of row
    /// 7".
    ///
    /// # Errors
    /// The point is known not to be on the chain.
    pub(crate) fn expect(&mut self, point: Point, whose: String) -> Result<(), Break> {
        let Claims { chain, checkpoint, head, .. } = &self.claims;
        let known = match point.seq {
            seq if seq > head.seq => {
                let how = format!("the record ends with row {}; it was rolled back or replaced", head.seq);
                return Err(Break::Foreign { whose, seq, how });
            }
            0 => Some(chain),
            seq if seq == checkpoint.seq => Some(&checkpoint.link),
            seq if seq < checkpoint.seq => None,
            seq => {
                self.expected.entry(seq).or_default().push((point.link, whose));
                return Ok(());
            }
        };
        match known {
            Some(link) if *link == point.link => self.found += 1,
            Some(_) => return Err(foreign(point.seq, whose)),
            None => self.pruned.push(whose),
        }
        Ok(())
    }

    /// [`Audit::expect`], with the chain's id as well.
    ///
    /// # Errors
    /// The point is known not to be on the chain.
    pub(crate) fn expect_head(&mut self, head: &Head, whose: String) -> Result<(), Break> {
        if head.chain != self.claims.chain {
            let how = format!("that chain is {}, this one {}", head.chain, self.claims.chain);
            return Err(Break::Foreign { whose, seq: head.point.seq, how });
        }
        self.expect(head.point, whose)
    }

    /// Takes the next row, with the link that is stored with it.
    ///
    /// # Errors
    /// The row is not the next one, or not what was recorded.
    pub(crate) fn row(&mut self, row: &Row, link: &Link) -> Result<(), Break> {
        let (seq, first) = (row.seq, self.claims.checkpoint.seq + 1);
        let next = self.last.seq + 1;
        if seq < first {
            return Err(Break::Before { seq, first });
        }
        if seq != next && next <= self.claims.head.seq {
            return Err(Break::Missing(next));
        }
        if seq > self.claims.head.seq {
            return Err(Break::After { seq, head: self.claims.head.seq });
        }
        if row.link(&self.claims.chain, &self.last.link) != *link {
            return Err(Break::Changed(seq));
        }
        self.last = Point { seq, link: *link };
        for (expected, whose) in self.expected.remove(&seq).unwrap_or_default() {
            if expected != *link {
                return Err(foreign(seq, whose));
            }
            self.found += 1;
        }
        Ok(())
    }

    /// The last row that was good.
    pub(crate) const fn last(&self) -> Point {
        self.last
    }

    /// Ends after the last row.
    ///
    /// # Errors
    /// The record goes on according to itself, or ends otherwise.
    pub(crate) fn end(self) -> Result<Unbroken, Break> {
        let Claims { chain, checkpoint, head, .. } = self.claims;
        if self.last.seq < head.seq {
            return Err(Break::Missing(self.last.seq + 1));
        }
        if self.last.link != head.link {
            return Err(Break::Head(head.seq));
        }
        Ok(Unbroken {
            rows: head.seq - checkpoint.seq,
            checkpoint,
            head: Head { chain, point: head },
            found: self.found,
            pruned: self.pruned,
        })
    }
}

fn foreign(seq: i64, whose: String) -> Break {
    Break::Foreign { whose, seq, how: format!("row {seq} has another hash here; the record was rewritten") }
}

#[cfg(test)]
mod tests {
    use super::super::link::tests::full;
    use super::*;

    type Rows = Vec<(Row, Link)>;

    /// A record of `rows`, without the first `pruned` of them.
    fn record(rows: i64, pruned: i64) -> (Claims, Rows) {
        let genesis = Genesis { nonce: [1; 32], begun: "2026-11-24T00:00:00.000Z".into() };
        let chain = genesis.link();
        let mut point = Point { seq: 0, link: chain };
        let (mut checkpoint, mut kept) = (point, Vec::new());
        for seq in 1..=rows {
            let row = full(seq);
            point = Point { seq, link: row.link(&chain, &point.link) };
            if seq == pruned {
                checkpoint = point;
            } else if seq > pruned {
                kept.push((row, point.link));
            }
        }
        (Claims { genesis, chain, checkpoint, head: point }, kept)
    }

    fn audit(claims: &Claims, rows: &[(Row, Link)]) -> Result<Unbroken, Break> {
        let mut audit = Audit::begin(claims.clone())?;
        for (row, link) in rows {
            audit.row(row, link)?;
        }
        audit.end()
    }

    #[test]
    fn an_unbroken_record_is_found_so_with_and_without_a_checkpoint() {
        for (rows, pruned) in [(0, 0), (1, 0), (9, 0), (9, 1), (9, 8), (9, 9)] {
            let (claims, kept) = record(rows, pruned);
            let found = audit(&claims, &kept).unwrap();
            assert_eq!((found.rows, found.checkpoint.seq), (rows - pruned, pruned));
            assert_eq!(found.head, Head { chain: claims.chain, point: claims.head });
        }
    }

    #[test]
    fn missing_added_and_moved_rows_are_named() {
        let (claims, rows) = record(9, 2);
        let with = |change: &dyn Fn(&mut Rows)| {
            let mut rows = rows.clone();
            change(&mut rows);
            audit(&claims, &rows).unwrap_err()
        };
        assert_eq!(with(&|rows| drop(rows.remove(3))), Break::Missing(6), "from the middle");
        assert_eq!(with(&|rows| drop(rows.remove(0))), Break::Missing(3), "after the checkpoint");
        assert_eq!(with(&|rows| drop(rows.pop())), Break::Missing(9), "the tail");
        assert_eq!(with(&Vec::clear), Break::Missing(3), "all");
        assert_eq!(with(&|rows| rows.swap(1, 2)), Break::Missing(4), "swapped as they are");
        let swapped = with(&|rows| {
            rows.swap(1, 2);
            (rows[1].0.seq, rows[2].0.seq) = (4, 5);
        });
        assert_eq!(swapped, Break::Changed(4), "swapped and renumbered");
        let again = with(&|rows| rows.push((full(10), rows[6].1)));
        assert_eq!(again, Break::After { seq: 10, head: 9 }, "added at the end");
        for seq in [2, 0, -5] {
            let before = with(&|rows| rows.insert(0, (full(seq), rows[0].1)));
            assert_eq!(before, Break::Before { seq, first: 3 }, "added at the start");
        }
        let inserted = with(&|rows| {
            rows.insert(2, rows[1].clone());
            rows[2..].iter_mut().for_each(|row| row.0.seq += 1);
        });
        assert_eq!(inserted, Break::Changed(5), "inserted, the others renumbered");
        let renumbered = with(&|rows| rows[6].0.seq = 10);
        assert_eq!(renumbered, Break::Missing(9), "renumbered");
        let rehashed = with(&|rows| {
            rows[3].0.rule = "uploads".into();
            rows[3].1 = rows[3].0.link(&claims.chain, &rows[2].1);
        });
        assert_eq!(rehashed, Break::Changed(7), "changed with its hash: the next one tells");
    }

    #[test]
    fn any_byte_changed_in_any_row_is_found_there() {
        let (claims, rows) = record(4, 1);
        let mut tried = 0;
        for at in 0..rows.len() {
            let seq = rows[at].0.seq;
            let mut found = |change: &dyn Fn(&mut (Row, Link))| {
                let mut rows = rows.clone();
                change(&mut rows[at]);
                tried += 1;
                assert_eq!(audit(&claims, &rows), Err(Break::Changed(seq)), "{:?}", rows[at]);
            };
            type Text = fn(&mut Row) -> &mut String;
            let texts: [Text; 8] = [
                |row| &mut row.at,
                |row| &mut row.rule,
                |row| &mut row.outcome,
                |row| row.reason.as_mut().unwrap(),
                |row| row.digest.as_mut().unwrap(),
                |row| row.signature_digest.as_mut().unwrap(),
                |row| row.key.as_mut().unwrap(),
                |row| row.item.as_mut().unwrap(),
            ];
            for text in texts {
                let len = text(&mut rows[at].0.clone()).len();
                for (place, bit) in (0..len).flat_map(|place| (0..7).map(move |bit| (place, bit))) {
                    found(&|row| {
                        let mut bytes = std::mem::take(text(&mut row.0)).into_bytes();
                        bytes[place] ^= 1 << bit;
                        *text(&mut row.0) = String::from_utf8(bytes).unwrap();
                    });
                }
                found(&|row| text(&mut row.0).truncate(len - 1));
                found(&|row| text(&mut row.0).push('\0'));
            }
            for place in 0..rows[at].0.path.len() {
                (0..8).for_each(|bit| found(&|row| row.0.path[place] ^= 1 << bit));
            }
            for place in 0..32 {
                found(&|row| {
                    let mut bytes = *row.1.as_bytes();
                    bytes[place] ^= 0x80;
                    row.1 = Link::new(bytes);
                });
            }
            found(&|row| row.0.key = None);
        }
        assert!(tried > 1000, "{tried}");
    }

    #[test]
    fn a_record_whose_claims_do_not_match_its_rows_is_broken() {
        let (claims, rows) = record(9, 4);
        let other = Link::new([9; 32]);
        let with = |change: &dyn Fn(&mut Claims)| {
            let mut claims = claims.clone();
            change(&mut claims);
            audit(&claims, &rows).unwrap_err()
        };
        assert_eq!(with(&|c| c.chain = other), Break::Genesis);
        assert_eq!(with(&|c| c.genesis.begun.push('0')), Break::Genesis);
        assert_eq!(with(&|c| c.genesis.nonce[31] ^= 1), Break::Genesis);
        assert_eq!(with(&|c| c.checkpoint.link = other), Break::Changed(5));
        assert_eq!(with(&|c| c.checkpoint.seq = 3), Break::Missing(4));
        assert_eq!(with(&|c| c.checkpoint.seq = 5), Break::Before { seq: 5, first: 6 });
        assert_eq!(with(&|c| c.checkpoint.seq = 10), Break::Checkpoint { checkpoint: 10, head: 9 });
        assert_eq!(with(&|c| c.checkpoint.seq = -1), Break::Checkpoint { checkpoint: -1, head: 9 });
        assert_eq!(with(&|c| c.head.link = other), Break::Head(9));
        assert_eq!(with(&|c| c.head.seq = 8), Break::After { seq: 9, head: 8 });
        assert_eq!(with(&|c| c.head.seq = 10), Break::Missing(10));
        // A forged chain is a valid chain; only a head kept elsewhere reveals it.
        let genesis = Genesis { nonce: [2; 32], ..claims.genesis.clone() };
        let chain = genesis.link();
        assert_eq!(with(&|c| (c.genesis, c.chain) = (genesis.clone(), chain)), Break::Changed(5));
    }

    #[test]
    fn a_head_kept_elsewhere_finds_what_was_rolled_back_rewritten_or_replaced() {
        let (now, rows) = record(9, 3);
        let (then, _) = record(6, 0);
        let expect = |claims: &Claims, rows: &[(Row, Link)], seq, link| {
            let mut audit = Audit::begin(claims.clone())?;
            audit.expect_head(&Head { chain: then.chain, point: Point { seq, link } }, "H".into())?;
            for (row, link) in rows {
                audit.row(row, link)?;
            }
            audit.end().map(|unbroken| (unbroken.found, unbroken.pruned))
        };
        let none = Vec::<String>::new;
        assert_eq!(expect(&now, &rows, 6, then.head.link), Ok((1, none())));
        assert_eq!(expect(&now, &rows, 9, now.head.link), Ok((1, none())), "the head itself");
        assert_eq!(expect(&now, &rows, 3, now.checkpoint.link), Ok((1, none())), "the checkpoint");
        assert_eq!(expect(&now, &rows, 0, now.chain), Ok((1, none())), "the beginning");
        assert_eq!(expect(&now, &rows, 2, then.head.link), Ok((0, vec!["H".into()])), "pruned");
        let broken = |claims: &Claims, rows: &[_], seq, link| match expect(claims, rows, seq, link) {
            Err(Break::Foreign { how, .. }) => how,
            other => panic!("{other:?}"),
        };
        let (old, few) = record(5, 3);
        assert!(broken(&old, &few, 6, then.head.link).contains("rolled back"));
        for seq in [0, 3, 5, 9] {
            assert!(broken(&now, &rows, seq, then.head.link).contains("rewritten"), "{seq}");
        }
        let genesis = Genesis { nonce: [2; 32], ..now.genesis.clone() };
        let link = genesis.link();
        let point = Point { seq: 0, link };
        let replaced = Claims { genesis, chain: link, checkpoint: point, head: point };
        assert!(broken(&replaced, &[], 0, then.chain).contains("that chain is"));
    }
}
