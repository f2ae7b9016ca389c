//! The record as lines of JSON, to be kept off the host, and its proof from these lines alone.
//!
//! The first line says how the chain began and what was pruned, each row is a line, and the last
//! line is the head. Everything that goes into a hash is there: bytes of paths in hexadecimal,
//! times and words as they are. `docs/formats.md` describes the form. Never reads the database.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::audit::{Audit, Break, Claims, Unbroken};
use super::link::{Genesis, Head, Link, Point, Row};
use super::reader::Expected;
use crate::escape::Escaped;

/// The number of the form; that in the prefixes of the hashes.
const FORMAT: u32 = 1;

/// The longest line that is read, in bytes. A row has a path of at most 4 KiB, twice, and short
/// words.
const MAX_LINE: u64 = 1 << 20;

/// A line of an export.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Line {
    /// The first.
    Chain { format: u32, chain: String, nonce: String, begun: String, pruned_seq: i64, pruned_hash: String },
    /// One row.
    Row(RowLine),
    /// The last.
    Head { chain: String, seq: i64, hash: String, at: String },
}

/// A row.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RowLine {
    seq: i64,
    at: String,
    rule: String,
    /// For reading; `path_hex` is what is hashed.
    path: String,
    path_hex: String,
    outcome: String,
    reason: Option<String>,
    digest: Option<String>,
    signature_digest: Option<String>,
    key: Option<String>,
    item: Option<String>,
    hash: String,
}

/// Why lines are no export. Says nothing about the record they came from.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The file.
    #[error("cannot read {file}")]
    Read {
        /// The file, as messages show it.
        file: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A line is not what it should be.
    #[error("{file} is no whole export of the record: line {line} {what}")]
    Line {
        /// The file, as messages show it.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
}

/// The first line of an export.
pub(crate) fn first_line(claims: &Claims) -> String {
    json(&Line::Chain {
        format: FORMAT,
        chain: claims.chain.to_string(),
        nonce: hex::encode(claims.genesis.nonce),
        begun: claims.genesis.begun.clone(),
        pruned_seq: claims.checkpoint.seq,
        pruned_hash: claims.checkpoint.link.to_string(),
    })
}

/// The line of a row.
pub(crate) fn row_line(row: &Row, link: &Link) -> String {
    json(&Line::Row(RowLine {
        seq: row.seq,
        at: row.at.clone(),
        rule: row.rule.clone(),
        path: escaped(&row.path),
        path_hex: hex::encode(&row.path),
        outcome: row.outcome.clone(),
        reason: row.reason.clone(),
        digest: row.digest.clone(),
        signature_digest: row.signature_digest.clone(),
        key: row.key.clone(),
        item: row.item.clone(),
        hash: link.to_string(),
    }))
}

/// The line of a row for who follows the record: as in an export, with the cursor to go on from.
pub(crate) fn event_line(row: &Row, link: &Link) -> String {
    let line = row_line(row, link);
    let open = line.strip_suffix('}').unwrap_or(&line);
    format!("{open},\"cursor\":\"{link}:{}\"}}", row.seq)
}

/// The last line of an export, made at `at`.
pub(crate) fn head_line(head: &Head, at: String) -> String {
    let Head { chain, point } = head;
    json(&Line::Head { chain: chain.to_string(), seq: point.seq, hash: point.link.to_string(), at })
}

/// A path as it may be shown.
pub(crate) fn escaped(path: &[u8]) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    Escaped::new(std::ffi::OsStr::from_bytes(path)).to_string()
}

/// One line of JSON in ASCII: whatever a field holds, no terminal acts on it (P9).
pub(crate) fn json(value: &impl Serialize) -> String {
    // Types of this program: string keys, and nothing that refuses to be written.
    let text = serde_json::to_string(value).unwrap_or_default();
    let mut ascii = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() && c != '\x7f' {
            ascii.push(c);
        } else {
            // Outside of strings, JSON is ASCII.
            for unit in c.encode_utf16(&mut [0; 2]) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    ascii
}

/// What an export was found to be.
pub(crate) struct Proven {
    /// The proof, or what is wrong with the rows.
    pub(crate) proof: Result<Unbroken, Break>,
    /// The head on its last line.
    pub(crate) head: Head,
}

/// Proves an export from its lines alone, and that the points in `expected` are on its chain.
///
/// # Errors
/// [`ExportError`]: it is none, or not whole.
pub(crate) fn verify(file: &Path, expected: Vec<Expected>) -> Result<Proven, ExportError> {
    let mut lines = Lines::open(file)?;
    let Some(Line::Chain { format: FORMAT, chain, nonce, begun, pruned_seq, pruned_hash }) = lines.next()?
    else {
        return Err(lines.wrong("does not begin an export of this form"));
    };
    let link = |lines: &Lines, text: &str| text.parse::<Link>().map_err(|e| lines.wrong(&e.to_string()));
    let chain = link(&lines, &chain)?;
    let checkpoint = Point { seq: pruned_seq, link: link(&lines, &pruned_hash)? };
    let genesis = Genesis { nonce: *link(&lines, &nonce)?.as_bytes(), begun };
    // The head is known at the end; what is expected of it is looked at there. Two passes over a
    // file that a person named are cheaper than keeping its rows.
    let head = last_line(file)?;
    let claims = Claims { genesis, chain, checkpoint, head: head.point };
    let mut proof = Audit::begin(claims).and_then(|mut audit| {
        for Expected { chain, point, whose } in expected {
            match chain {
                Some(chain) => audit.expect_head(&Head { chain, point }, whose)?,
                None => audit.expect(point, whose)?,
            }
        }
        Ok(audit)
    });
    loop {
        match lines.next()? {
            Some(Line::Row(row)) => {
                let (row, link) = row.into_row().map_err(|what| lines.wrong(what))?;
                proof = proof.and_then(|mut audit| audit.row(&row, &link).map(|()| audit));
            }
            Some(Line::Head { .. }) => break,
            Some(Line::Chain { .. }) => return Err(lines.wrong("begins another export")),
            None => return Err(lines.wrong("is missing; the last one should be the head")),
        }
    }
    if lines.next()?.is_some() {
        return Err(lines.wrong("comes after the head"));
    }
    let proof = proof.and_then(Audit::end).and_then(|unbroken| match head.chain == chain {
        true => Ok(unbroken),
        false => Err(Break::Head(head.point.seq)),
    });
    Ok(Proven { proof, head })
}

/// The head on the last line of an export, or of a file that has only this line.
///
/// # Errors
/// [`ExportError`].
pub(crate) fn last_line(file: &Path) -> Result<Head, ExportError> {
    let mut lines = Lines::open(file)?;
    let mut head = None;
    while let Some(line) = lines.next()? {
        head = match line {
            Line::Head { chain, seq, hash, .. } => chain
                .parse()
                .ok()
                .zip(hash.parse().ok())
                .map(|(chain, link)| Head { chain, point: Point { seq, link } }),
            Line::Chain { .. } | Line::Row(_) => None,
        };
    }
    head.ok_or_else(|| lines.wrong("is no head; the last one should be"))
}

impl RowLine {
    fn into_row(self) -> Result<(Row, Link), &'static str> {
        let path = hex::decode(&self.path_hex).map_err(|_| "has a path_hex that is no hexadecimal")?;
        // Not hashed, but read by people: it must not say something else.
        if self.path != escaped(&path) {
            return Err("has a path that is not the one in path_hex");
        }
        let link = self.hash.parse().map_err(|_| "has a hash that is none")?;
        let row = Row {
            seq: self.seq,
            at: self.at,
            rule: self.rule,
            path,
            outcome: self.outcome,
            reason: self.reason,
            digest: self.digest,
            signature_digest: self.signature_digest,
            key: self.key,
            item: self.item,
        };
        Ok((row, link))
    }
}

/// The lines of a file, each read with a limit.
struct Lines {
    file: String,
    input: BufReader<File>,
    line: usize,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, ExportError> {
        let file = crate::escape::quoted(path);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(opened) => Ok(Self { file, input: BufReader::new(File::from(opened)), line: 0 }),
            Err(errno) => Err(ExportError::Read { file, source: errno.into() }),
        }
    }

    fn next(&mut self) -> Result<Option<Line>, ExportError> {
        let mut text = Vec::new();
        let read = self.input.by_ref().take(MAX_LINE).read_until(b'\n', &mut text);
        self.line += 1;
        match read {
            Err(source) => Err(ExportError::Read { file: self.file.clone(), source }),
            Ok(0) => Ok(None),
            Ok(_) => match serde_json::from_slice(&text) {
                Ok(line) => Ok(Some(line)),
                Err(error) => Err(self.wrong(&format!("cannot be read ({error})"))),
            },
        }
    }

    fn wrong(&self, what: &str) -> ExportError {
        ExportError::Line { file: self.file.clone(), line: self.line, what: what.to_owned() }
    }
}
