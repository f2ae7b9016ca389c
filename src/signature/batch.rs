//! A batch signature: one ciphertext for many files, and what shows that this file is one of them.
//!
//! ```text
//! kms-sig batch 1
//! size 1000
//! index 17
//! leaf-context [file]
//! ciphertext 200
//! (an empty line; then, without anything between or after them,
//!  the path, 64 bytes for each hash, and so many bytes of ciphertext)
//! ```
//!
//! Every signature has exactly one such form, and anything else that begins so is malformed. What
//! KMS encrypts is not 64 bytes long, so no root passes for the digest of a file, nor a digest for
//! a root: a file whose SHA-512 is the root of a tree is easily made, it is the content of the
//! tree's topmost node.

use crate::context::Context;
use crate::context::leaf_keys::{LeafKeys, MAX_TEXT};
use crate::digest::algorithm::HashAlgorithm;
use crate::digest::set::DigestRequest;
use crate::digest::{Digest, LEN};
use crate::signature::merkle::{Node, Proof, path_len};

use super::limits::MAX_CIPHERTEXT;

/// What a leaf is made of, beside the context.
pub(super) const DIGESTS: DigestRequest = DigestRequest::digest(HashAlgorithm::Sha512);

/// What every version of a batch signature begins with. No ciphertext of KMS does.
pub const MAGIC: &[u8] = b"kms-sig batch ";

/// The magic and the version, as a line.
const FIRST_LINE: &str = "kms-sig batch 1\n";

/// The most files of one batch.
pub const MAX_SIZE: u64 = 65_536;

/// The longest path of a leaf in a tree of [`MAX_SIZE`].
const MAX_PATH: usize = MAX_SIZE.ilog2() as usize;

/// The longest batch signature, in bytes: each line at its longest, the path and the ciphertext.
pub const MAX_LEN: usize = FIRST_LINE.len()
    + "size 65536\nindex 65535\nleaf-context \nciphertext 6144\n\n".len()
    + MAX_TEXT
    + MAX_PATH * LEN
    + MAX_CIPHERTEXT;

/// What is encrypted begins with this, and with nothing else that this program encrypts.
const PREFIX: &[u8; 14] = b"kms-sig:batch:";

/// Bytes of what is encrypted: prefix, tree size, root.
pub const PLAINTEXT_LEN: usize = PREFIX.len() + size_of::<u64>() + LEN;

/// What the header and the path of a batch signature say. Nothing of it is proven.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Batch {
    proof: Proof,
    leaf_keys: LeafKeys,
    ciphertext: Box<[u8]>,
}

/// Why bytes that begin with [`MAGIC`] are no batch signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Of a later version, or none.
    #[error("its version is not 1")]
    Version,
    /// A line is missing, or there is one that no batch signature has, or it is in another place.
    #[error(
        "its header has other lines than size, index, leaf-context, ciphertext and an empty one, in this order"
    )]
    Lines,
    /// No tree is so large, or it is not written as a number is.
    #[error("its size is no number from 1 to {MAX_SIZE}")]
    Size,
    /// No leaf of that tree.
    #[error("its index is no number below its size")]
    Index,
    /// Not the one text of a list of names.
    #[error("its leaf-context is no sorted list of names in brackets")]
    LeafContext,
    /// Not what KMS makes.
    #[error("its ciphertext is no number of bytes from 1 to {MAX_CIPHERTEXT}")]
    Ciphertext,
    /// Cut short, or with something after it.
    #[error("it is not as long as its header says")]
    Length,
}

impl Batch {
    /// The signature of one leaf. `ciphertext` is that of [`plaintext`]; 1 to [`MAX_CIPHERTEXT`]
    /// bytes.
    pub fn new(proof: Proof, leaf_keys: LeafKeys, ciphertext: Box<[u8]>) -> Self {
        Self { proof, leaf_keys, ciphertext }
    }

    /// Takes a signature apart. `bytes` begin with [`MAGIC`].
    ///
    /// # Errors
    /// [`Flaw`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Flaw> {
        let rest = bytes.strip_prefix(FIRST_LINE.as_bytes()).ok_or(Flaw::Version)?;
        let number = |text: &str| text.parse::<u64>().ok().filter(|n| n.to_string() == text);
        let (size, rest) = line(rest, "size ", Flaw::Size)?;
        let size = number(size).filter(|size| (1..=MAX_SIZE).contains(size)).ok_or(Flaw::Size)?;
        let (index, rest) = line(rest, "index ", Flaw::Index)?;
        let index = number(index).ok_or(Flaw::Index)?;
        let path_len = path_len(size, index).ok_or(Flaw::Index)?;
        let (names, rest) = line(rest, "leaf-context ", Flaw::LeafContext)?;
        let leaf_keys = LeafKeys::parse(names).ok_or(Flaw::LeafContext)?;
        let (len, rest) = line(rest, "ciphertext ", Flaw::Ciphertext)?;
        let len = number(len).and_then(|len| usize::try_from(len).ok()).ok_or(Flaw::Ciphertext)?;
        if !(1..=MAX_CIPHERTEXT).contains(&len) {
            return Err(Flaw::Ciphertext);
        }
        let body = rest.strip_prefix(b"\n").ok_or(Flaw::Lines)?;
        let (path, ciphertext) = body.split_at_checked(path_len * LEN).ok_or(Flaw::Length)?;
        if ciphertext.len() != len {
            return Err(Flaw::Length);
        }
        let nodes = path.as_chunks().0.iter().copied().map(Node::new);
        let proof = Proof::new(size, index, nodes.collect()).ok_or(Flaw::Length)?;
        Ok(Self::new(proof, leaf_keys, ciphertext.into()))
    }

    /// Its bytes, as they lie in a `.sig`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = format!(
            "{FIRST_LINE}size {}\nindex {}\nleaf-context {}\nciphertext {}\n\n",
            self.proof.size(),
            self.proof.index(),
            self.leaf_keys,
            self.ciphertext.len()
        )
        .into_bytes();
        self.proof.path().iter().for_each(|node| bytes.extend_from_slice(node.as_bytes()));
        bytes.extend_from_slice(&self.ciphertext);
        bytes
    }

    /// The way from its leaf to the root.
    pub const fn proof(&self) -> &Proof {
        &self.proof
    }

    /// Which keys of the context live only in its leaf, as it says itself.
    pub const fn leaf_keys(&self) -> &LeafKeys {
        &self.leaf_keys
    }

    /// What KMS made of the root.
    pub const fn ciphertext(&self) -> &[u8] {
        &self.ciphertext
    }
}

/// The leaf of a file: its digest, and its whole context in canonical form. The digest always has
/// 64 bytes, so that there is no other way to read it.
pub fn leaf(digest: &Digest, context: &Context) -> Node {
    Node::leaf(&[digest.as_bytes(), &context.canonical()])
}

/// What is encrypted for a batch: the prefix, the tree's size in eight bytes (big endian), and its
/// root.
pub fn plaintext(size: u64, root: Node) -> Vec<u8> {
    [PREFIX.as_slice(), &size.to_be_bytes(), root.as_bytes()].concat()
}

/// The rest of a line that begins so, and what follows the line. No line is longer than a split can
/// be; `flaw` is what it has that does not end.
fn line<'a>(bytes: &'a [u8], name: &str, flaw: Flaw) -> Result<(&'a str, &'a [u8]), Flaw> {
    let rest = bytes.strip_prefix(name.as_bytes()).ok_or(Flaw::Lines)?;
    let end = rest.iter().take(MAX_TEXT + 1).position(|byte| *byte == b'\n').ok_or(flaw)?;
    let (text, rest) = rest.split_at_checked(end).ok_or(flaw)?;
    Ok((std::str::from_utf8(text).map_err(|_| flaw)?, rest.get(1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::signature::merkle::Tree;

    fn sample(size: u64, index: u64) -> Batch {
        let leaves = (0..size).map(|n| Node::leaf(&[&n.to_be_bytes()])).collect();
        let proof = Tree::new(leaves).unwrap().prove(index).unwrap();
        Batch::new(proof, LeafKeys::parse("[file]").unwrap(), Box::new([7; 20]))
    }

    #[test]
    fn it_is_a_readable_header_a_path_and_a_ciphertext() {
        let batch = sample(3, 0);
        let header = b"kms-sig batch 1\nsize 3\nindex 0\nleaf-context [file]\nciphertext 20\n\n";
        let path = batch.proof().path();
        let whole = [header.as_slice(), path[0].as_bytes(), path[1].as_bytes(), &[7; 20]].concat();
        assert_eq!(batch.to_bytes(), whole);
        assert_eq!(Batch::parse(&whole), Ok(batch));
    }

    #[test]
    fn what_is_signed_is_no_digest() {
        let root = Node::new([9; LEN]);
        let bytes = plaintext(258, root);
        assert_eq!((bytes.len(), PLAINTEXT_LEN), (86, 86));
        assert_eq!(bytes, [b"kms-sig:batch:\0\0\0\0\0\0\x01\x02".as_slice(), &[9; LEN]].concat());
    }

    #[test]
    fn nothing_but_the_one_form_is_read() {
        let good = sample(3, 0).to_bytes();
        let turned = |from: &str, to: &str| {
            let at = good.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
            [&good[..at], to.as_bytes(), &good[at + from.len()..]].concat()
        };
        for (from, to, flaw) in [
            ("batch 1\n", "batch 2\n", Flaw::Version),
            ("batch 1\n", "batch 10\n", Flaw::Version),
            ("batch 1\n", "batch 1\r\n", Flaw::Version),
            ("batch 1\n", "batch 1 \n", Flaw::Version),
            ("size 3", "size 03", Flaw::Size),
            ("size 3", "size +3", Flaw::Size),
            ("size 3", "size  3", Flaw::Size),
            ("size 3", "size 0", Flaw::Size),
            ("size 3", "size 65537", Flaw::Size),
            ("size 3", "size 18446744073709551619", Flaw::Size),
            ("size 3", "size ", Flaw::Size),
            ("size 3\n", "", Flaw::Lines),
            ("size 3\n", "index 0\n", Flaw::Lines),
            ("size 3\n", "size 3\nsize 3\n", Flaw::Lines),
            ("index 0\n", "index 0\nfile f\n", Flaw::Lines),
            ("ciphertext 20\n", "ciphertext 20\nx\n", Flaw::Lines),
            ("size 3\n", "\nsize 3\n", Flaw::Lines),
            ("size 3", "size 5", Flaw::Length),
            ("size 3", "size 4", Flaw::Length),
            ("index 0", "index 3", Flaw::Index),
            ("index 0", "index 2", Flaw::Length),
            ("index 0", "index 00", Flaw::Index),
            ("index 0", "index -0", Flaw::Index),
            ("[file]", "[", Flaw::LeafContext),
            ("[file]", "[b,a]", Flaw::LeafContext),
            ("[file]", "", Flaw::LeafContext),
            ("ciphertext 20", "ciphertext 020", Flaw::Ciphertext),
            ("ciphertext 20", "ciphertext 0", Flaw::Ciphertext),
            ("ciphertext 20", "ciphertext 6145", Flaw::Ciphertext),
            ("ciphertext 20", "ciphertext 19", Flaw::Length),
            ("ciphertext 20", "ciphertext 84", Flaw::Length),
            ("ciphertext 20\n\n", "ciphertext 20\n", Flaw::Lines),
            ("ciphertext 20\n\n", "ciphertext 20\n\n\n", Flaw::Length),
        ] {
            // `size 4` has a path of the same length: only KMS can tell, so it must parse.
            let expected = if to == "size 4" { Ok(()) } else { Err(flaw) };
            assert_eq!(Batch::parse(&turned(from, to)).map(|_| ()), expected, "{from:?} as {to:?}");
        }
        for len in MAGIC.len()..good.len() {
            assert!(Batch::parse(&good[..len]).is_err(), "cut to {len}");
        }
        assert_eq!(Batch::parse(&[good.as_slice(), b"\n"].concat()), Err(Flaw::Length));
    }

    #[test]
    fn a16_the_longest_is_as_long_as_it_says() {
        let name = "x".repeat(MAX_TEXT - 2);
        let leaves = vec![Node::new([1; LEN]); MAX_SIZE as usize];
        let proof = Tree::new(leaves).unwrap().prove(MAX_SIZE - 1).unwrap();
        let keys: LeafKeys = [name.clone()].into_iter().collect();
        let longest = Batch::new(proof.clone(), keys, vec![1; MAX_CIPHERTEXT].into());
        assert_eq!((longest.to_bytes().len(), MAX_LEN), (15_417, 15_417));
        assert_eq!(Batch::parse(&longest.to_bytes()), Ok(longest));
        let keys: LeafKeys = [name + "x"].into_iter().collect();
        let longer = Batch::new(proof, keys, vec![1; 1].into());
        assert_eq!(Batch::parse(&longer.to_bytes()), Err(Flaw::LeafContext));
    }

    proptest! {
        #[test]
        fn what_parses_is_what_would_be_written(
            size in 1_u64..40,
            index: prop::sample::Index,
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 0..3),
        ) {
            let batch = sample(size, index.index(size as usize) as u64);
            let mut bytes = batch.to_bytes();
            prop_assert_eq!(Batch::parse(&bytes), Ok(batch));
            for (at, byte, how) in edits {
                let at = MAGIC.len() + at.index(bytes.len() - MAGIC.len());
                match how {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => drop(bytes.remove(at)),
                }
            }
            if let Ok(read) = Batch::parse(&bytes) {
                prop_assert_eq!(read.to_bytes(), bytes);
            }
        }
    }
}
