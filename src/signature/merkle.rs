//! A Merkle tree of SHA-512 hashes, as RFC 9162 section 2.1 has it: one root stands for many
//! leaves, and a short path shows that a leaf is among them.
//!
//! Pure. Knows no file, no key and no format; what a leaf is made of is the caller's.

use crate::digest::{Hasher, LEN};

/// What leaves are hashed after (RFC 9162 section 2.1.1), so that none passes for an inner node.
const LEAF: u8 = 0x00;
/// What inner nodes are hashed after.
const INNER: u8 = 0x01;

/// The hash of a leaf or of an inner node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Node([u8; LEN]);

impl Node {
    /// A node that somebody else computed.
    pub const fn new(bytes: [u8; LEN]) -> Self {
        Self(bytes)
    }

    /// The hash of a leaf, whose content is these parts one after the other.
    pub fn leaf(parts: &[&[u8]]) -> Self {
        Self::hash(LEAF, parts)
    }

    /// The hash of an inner node.
    fn inner(left: Self, right: Self) -> Self {
        Self::hash(INNER, &[&left.0, &right.0])
    }

    fn hash(prefix: u8, parts: &[&[u8]]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(&[prefix]);
        parts.iter().for_each(|part| hasher.update(part));
        Self(*hasher.finish().as_bytes())
    }

    /// Its 64 bytes.
    pub const fn as_bytes(&self) -> &[u8; LEN] {
        &self.0
    }
}

/// A tree with all its nodes. Has at least one leaf.
#[derive(Debug)]
pub struct Tree {
    /// From the leaves to the root. The last node of a level that has no sibling stands in the next
    /// one as it is: that gives the tree of the RFC, which splits at the largest power of two.
    levels: Vec<Vec<Node>>,
    root: Node,
}

impl Tree {
    /// The tree of these leaves, if there are any. Twice their memory.
    pub fn new(leaves: Vec<Node>) -> Option<Self> {
        let mut levels = Vec::new();
        let mut level = leaves;
        while level.len() > 1 {
            let next = level.chunks(2).filter_map(|pair| match *pair {
                [left, right] => Some(Node::inner(left, right)),
                [alone] => Some(alone),
                _ => None,
            });
            let next = next.collect();
            levels.push(std::mem::replace(&mut level, next));
        }
        let root = *level.first()?;
        levels.push(level);
        Some(Self { levels, root })
    }

    /// How many leaves it has.
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, Vec::len) as u64
    }

    /// What stands for all of them.
    pub const fn root(&self) -> Node {
        self.root
    }

    /// What shows that the leaf of this index, counted from 0, is in the tree; `None` if there is
    /// none.
    pub fn prove(&self, index: u64) -> Option<Proof> {
        let at = usize::try_from(index).ok()?;
        let sibling = |(height, level): (usize, &Vec<Node>)| level.get((at >> height) ^ 1).copied();
        let path = self.levels.iter().enumerate().filter_map(sibling).collect();
        Proof::new(self.size(), index, path)
    }
}

/// An inclusion proof (RFC 9162 section 2.1.3): the way from one leaf to the root. Its path has
/// exactly the length that index and size ask for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Proof {
    size: u64,
    index: u64,
    path: Vec<Node>,
}

impl Proof {
    /// The proof for the leaf of this index in a tree of this size; `None` if the index is not
    /// below the size, or the path is longer or shorter than [`path_len`].
    pub fn new(size: u64, index: u64, path: Vec<Node>) -> Option<Self> {
        (path_len(size, index)? == path.len()).then_some(Self { size, index, path })
    }

    /// How many leaves the tree has.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Which of them it is about, counted from 0.
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// The siblings on the way, from the leaf's own to the one below the root.
    pub fn path(&self) -> &[Node] {
        &self.path
    }

    /// The root of the tree that has this leaf at this place. It is for the caller to say which
    /// root is the right one.
    pub fn root(&self, leaf: Node) -> Node {
        let mut node = leaf;
        let steps = Steps::new(self.size, self.index);
        for (step, sibling) in steps.filter(|step| *step != Step::Alone).zip(&self.path) {
            node = match step {
                Step::Right => Node::inner(*sibling, node),
                Step::Left | Step::Alone => Node::inner(node, *sibling),
            };
        }
        node
    }
}

/// How many hashes the path of this leaf has in a tree of this size; `None` if there is no such
/// leaf.
pub fn path_len(size: u64, index: u64) -> Option<usize> {
    (index < size).then(|| Steps::new(size, index).filter(|step| *step != Step::Alone).count())
}

/// How a node on the way to the root stands to its sibling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It is the left one.
    Left,
    /// It is the right one.
    Right,
    /// It has none.
    Alone,
}

/// The steps from a leaf to the root: `fn` and `sn` of RFC 9162 section 2.1.3.2.
struct Steps {
    at: u64,
    last: u64,
}

impl Steps {
    const fn new(size: u64, index: u64) -> Self {
        Self { at: index, last: size.saturating_sub(1) }
    }
}

impl Iterator for Steps {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.last == 0 {
            return None;
        }
        let step = match self.at % 2 {
            1 => Step::Right,
            _ if self.at < self.last => Step::Left,
            _ => Step::Alone,
        };
        (self.at, self.last) = (self.at / 2, self.last / 2);
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha512};

    use super::*;

    /// MTH of RFC 9162 section 2.1.1, as it is written there.
    fn mth(entries: &[Vec<u8>]) -> Vec<u8> {
        match entries {
            [] => panic!("not used"),
            [one] => Sha512::digest([&[0], one.as_slice()].concat()).to_vec(),
            all => {
                let k = split(all.len());
                Sha512::digest([vec![1], mth(&all[..k]), mth(&all[k..])].concat()).to_vec()
            }
        }
    }

    /// PATH of section 2.1.3.1.
    fn path(m: usize, entries: &[Vec<u8>]) -> Vec<Vec<u8>> {
        if entries.len() == 1 {
            return Vec::new();
        }
        let k = split(entries.len());
        let (mut path, other) = if m < k {
            (path(m, &entries[..k]), mth(&entries[k..]))
        } else {
            (path(m - k, &entries[k..]), mth(&entries[..k]))
        };
        path.push(other);
        path
    }

    /// The largest power of two smaller than `n`.
    fn split(n: usize) -> usize {
        let mut k = 1;
        while k * 2 < n {
            k *= 2;
        }
        k
    }

    /// Section 2.1.3.2, as it is written there.
    fn verifies(size: u64, index: u64, leaf: &[u8], path: &[Vec<u8>], root: &[u8]) -> bool {
        if index >= size {
            return false;
        }
        let (mut fnn, mut sn, mut r) = (index, size - 1, leaf.to_vec());
        for p in path {
            if sn == 0 {
                return false;
            }
            if fnn & 1 == 1 || fnn == sn {
                r = Sha512::digest([&[1], p.as_slice(), &r].concat()).to_vec();
                while fnn & 1 == 0 && fnn != 0 {
                    fnn >>= 1;
                    sn >>= 1;
                }
            } else {
                r = Sha512::digest([&[1], r.as_slice(), p].concat()).to_vec();
            }
            fnn >>= 1;
            sn >>= 1;
        }
        sn == 0 && r == root
    }

    fn entries(n: usize) -> Vec<Vec<u8>> {
        (0..n).map(|i| format!("entry {i}").into_bytes()).collect()
    }

    fn tree(entries: &[Vec<u8>]) -> Tree {
        Tree::new(entries.iter().map(|entry| Node::leaf(&[entry])).collect()).unwrap()
    }

    fn bytes(path: &[Node]) -> Vec<Vec<u8>> {
        path.iter().map(|node| node.as_bytes().to_vec()).collect()
    }

    #[test]
    fn roots_and_paths_are_those_of_the_rfc() {
        for n in 1..70 {
            let entries = entries(n);
            let tree = tree(&entries);
            let root = mth(&entries);
            assert_eq!((tree.size(), tree.root().as_bytes().as_slice()), (n as u64, root.as_slice()));
            for m in 0..n {
                let leaf = Node::leaf(&[&entries[m]]);
                let proof = tree.prove(m as u64).unwrap();
                assert_eq!(bytes(proof.path()), path(m, &entries), "leaf {m} of {n}");
                assert_eq!(proof.root(leaf), tree.root(), "leaf {m} of {n}");
                assert!(verifies(n as u64, m as u64, leaf.as_bytes(), &bytes(proof.path()), &root));
            }
            assert!(tree.prove(n as u64).is_none());
        }
        assert!(Tree::new(Vec::new()).is_none());
    }

    #[test]
    fn a_leaf_is_hashed_in_parts_as_in_one_piece() {
        assert_eq!(Node::leaf(&[b"ab", b"", b"c"]), Node::leaf(&[b"abc"]));
        assert_ne!(Node::leaf(&[b"abc"]), Node::leaf(&[b"abd"]));
    }

    #[test]
    fn no_place_but_its_own_proves_a_leaf() {
        for n in 1..20_u64 {
            let entries = entries(n as usize);
            let tree = tree(&entries);
            for m in 0..n {
                let leaf = Node::leaf(&[&entries[m as usize]]);
                let path = tree.prove(m).unwrap().path().to_vec();
                for (size, index) in (0..24).flat_map(|size| (0..24).map(move |index| (size, index))) {
                    let Some(proof) = Proof::new(size, index, path.clone()) else { continue };
                    // Another size with the same steps gives the same root; so the size is signed
                    // with it.
                    let same_steps = Steps::new(size, index).filter(|s| *s != Step::Alone);
                    let same_steps = same_steps.eq(Steps::new(n, m).filter(|s| *s != Step::Alone));
                    assert_eq!(
                        proof.root(leaf) == tree.root(),
                        same_steps,
                        "{index} of {size} for {m} of {n}"
                    );
                    assert!(size != n || index == m || !same_steps, "{index} passes for {m} of {n}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn anything_changed_gives_another_root(
            n in 1_usize..300,
            at: prop::sample::Index,
            place: prop::sample::Index,
            bit in 0..512_usize,
        ) {
            let entries = entries(n);
            let tree = tree(&entries);
            let index = at.index(n);
            let leaf = Node::leaf(&[&entries[index]]);
            let proof = tree.prove(index as u64).unwrap();
            prop_assert_eq!(proof.root(leaf), tree.root());
            prop_assert!(verifies(n as u64, index as u64, leaf.as_bytes(), &bytes(proof.path()), tree.root().as_bytes()));

            let mut path = proof.path().to_vec();
            let mut flipped = leaf;
            let changed = place.index(path.len() + 1);
            let node = path.get_mut(changed).unwrap_or(&mut flipped);
            node.0[bit / 8] ^= 1 << (bit % 8);
            let (size, index) = (n as u64, index as u64);
            prop_assert_ne!(Proof::new(size, index, path.clone()).unwrap().root(flipped), tree.root());

            path.push(leaf);
            prop_assert!(Proof::new(size, index, path).is_none());
            prop_assert!(Proof::new(size, size, proof.path().to_vec()).is_none());
        }
    }
}
