//! Batch signatures: a second implementation of the format, from its description in
//! `docs/formats.md` and not from the program's code, and what can be wrong with one.

use super::super::format::Content;
use super::super::make::{Case, PAYLOAD, canonical, case, sha512};

/// What most cases are verified with. The file is `f`.
const CONTEXT: &str = "channel=stable,file=f";
/// What most are sealed with.
const SHARED: [(&str, &str); 2] = [("channel", "stable"), ("kms-sig:batch", "[file]")];

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn leaf(payload: &[u8], context: &[(&str, &str)]) -> Vec<u8> {
    sha512(&[&[0], &sha512(payload)[..], &canonical(&pairs(context))].concat())
}

fn inner(left: &[u8], right: &[u8]) -> Vec<u8> {
    sha512(&[&[1], left, right].concat())
}

/// Where a tree of so many leaves splits: at the largest power of two below.
fn split(count: usize) -> usize {
    (0..).map(|n| 1 << n).take_while(|k| *k < count).last().unwrap()
}

fn root(leaves: &[Vec<u8>]) -> Vec<u8> {
    if leaves.len() == 1 {
        return leaves[0].clone();
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    inner(&root(left), &root(right))
}

fn path(index: usize, leaves: &[Vec<u8>]) -> Vec<Vec<u8>> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let k = split(leaves.len());
    let (left, right) = leaves.split_at(k);
    let (mut path, other) =
        if index < k { (path(index, left), root(right)) } else { (path(index - k, right), root(left)) };
    path.push(other);
    path
}

fn plaintext(size: u64, root: &[u8]) -> Vec<u8> {
    [b"kms-sig:batch:", &size.to_be_bytes()[..], root].concat()
}

/// The leaves of a batch of so many files, of which the one at `index` is this.
fn leaves(size: usize, index: usize, this: &[u8]) -> Vec<Vec<u8>> {
    let other = |n: usize| {
        let (payload, name) = (format!("file {n}\n"), format!("f{n}"));
        leaf(payload.as_bytes(), &[("channel", "stable"), ("file", &name)])
    };
    (0..size).map(|n| if n == index { this.to_vec() } else { other(n) }).collect()
}

/// The usual file of a batch.
fn usual() -> Vec<u8> {
    leaf(PAYLOAD, &[("channel", "stable"), ("file", "f")])
}

/// The parts of a batch signature, each as it is written.
struct Parts {
    first: String,
    size: String,
    index: String,
    names: String,
    len: String,
    empty: String,
    path: Vec<Vec<u8>>,
    ciphertext: Vec<u8>,
    after: Vec<u8>,
}

impl Parts {
    fn new(leaves: &[Vec<u8>], index: usize, ciphertext: Vec<u8>) -> Self {
        Self {
            first: "kms-sig batch 1\n".to_owned(),
            size: format!("size {}\n", leaves.len()),
            index: format!("index {index}\n"),
            names: "leaf-context [file]\n".to_owned(),
            len: format!("ciphertext {}\n", ciphertext.len()),
            empty: "\n".to_owned(),
            path: path(index, leaves),
            ciphertext,
            after: Vec::new(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let header =
            [&self.first, &self.size, &self.index, &self.names, &self.len, &self.empty].map(String::as_str);
        [header.concat().into_bytes(), self.path.concat(), self.ciphertext.clone(), self.after.clone()]
            .concat()
    }
}

/// A case about the usual file at this place of a batch of so many. `spoil` may change what is
/// written.
fn placed(
    expect: &str,
    name: &str,
    comment: &str,
    (index, size): (usize, usize),
    spoil: impl FnOnce(&mut Parts),
) -> Case {
    let leaves = leaves(size, index, &usual());
    case(expect, name, comment)
        .made(&SHARED)
        .plaintext(plaintext(size as u64, &root(&leaves)))
        .asks(&[CONTEXT])
        .turn(|good| {
            let mut parts = Parts::new(&leaves, index, good);
            spoil(&mut parts);
            parts.bytes()
        })
}

/// A batch of this leaf alone, with this split, sealed with this and verified with that.
fn alone(case: Case, context: &[(&str, &str)], shared: &[(&str, &str)], names: &str, asks: &str) -> Case {
    let leaves = vec![leaf(PAYLOAD, context)];
    case.made(shared).plaintext(plaintext(1, &leaves[0])).asks(&[asks]).turn(|good| {
        Parts { names: format!("leaf-context {names}\n"), ..Parts::new(&leaves, 0, good) }.bytes()
    })
}

pub(super) fn all() -> Vec<Case> {
    [valid(), elsewhere(), contexts(), sealed(), spelling(), lengths()].into_iter().flatten().collect()
}

fn valid() -> Vec<Case> {
    let at = |name: &str, comment: &str, place| placed("valid", name, comment, place, |_| ());
    vec![
        at("batch-of-one", "a batch of one file: no path", (0, 1)),
        at("batch-of-two-left", "the first of two", (0, 2)),
        at("batch-of-two-right", "the second of two", (1, 2)),
        at("batch-of-three-last", "the last of three has no sibling in the first level", (2, 3)),
        at("batch-of-seven", "inside a tree that is not full", (5, 7)),
        at("batch-of-eight", "inside one that is", (3, 8)),
        at("batch-of-1000", "a larger one", (17, 1000)),
        at("batch-keys-second", "the first key disowns it, the second vouches", (1, 2))
            .keys(&["local:other", "local:demo"]),
        alone(
            case("valid", "batch-no-leaf-context", "the whole context went to KMS"),
            &[("channel", "stable")],
            &[("channel", "stable"), ("kms-sig:batch", "[]")],
            "[]",
            "channel=stable",
        ),
        alone(
            case("valid", "batch-no-context", "there is no context but the split"),
            &[],
            &[("kms-sig:batch", "[]")],
            "[]",
            "",
        ),
        alone(
            case("valid", "batch-names-encoded", "names of keys that have to be encoded, and an empty value"),
            &[("a,b", "1"), ("gr\u{fc}n", ""), ("[%]", "2")],
            &[("kms-sig:batch", "[%5B%25%5D,a%2Cb,gr%C3%BCn]")],
            "[%5B%25%5D,a%2Cb,gr%C3%BCn]",
            "a\\,b=1,gr\u{fc}n=,[%]=2",
        ),
    ]
}

/// Genuine roots and paths, in other places than their own.
fn elsewhere() -> Vec<Case> {
    let moved = |name: &str, comment: &str, place, spoil: fn(&mut Parts)| {
        placed("mismatch", name, comment, place, spoil)
    };
    let other_tree = |parts: &mut Parts| {
        let leaves: Vec<_> = (0..8).map(|n| leaf(&[n], &[("channel", "stable"), ("file", "f")])).collect();
        parts.path = path(3, &leaves);
    };
    vec![
        moved("batch-index-sibling", "the place of the other one", (0, 2), |p| p.index = "index 1\n".into()),
        moved("batch-index-next", "the next place", (3, 8), |p| p.index = "index 4\n".into()),
        moved("batch-index-last", "the last place", (3, 8), |p| p.index = "index 7\n".into()),
        moved("batch-size-larger", "a tree of another size, with a path of the same length", (3, 8), |p| {
            p.size = "size 7\n".into();
        }),
        moved(
            "batch-size-same-path",
            "a size for which the very same path leads to the same root",
            (1, 7),
            |p| {
                p.size = "size 8\n".into();
            },
        ),
        moved("batch-size-largest", "the largest size", (0, 1), |p| {
            (p.size, p.path) = ("size 65536\n".into(), vec![vec![0; 64]; 16]);
        }),
        moved("batch-path-bit", "one bit of the path", (3, 8), |p| p.path[1][63] ^= 1),
        moved("batch-path-first-bit", "the first bit of the path", (3, 8), |p| p.path[0][0] ^= 0x80),
        moved("batch-path-swapped", "two hashes of the path change places", (3, 8), |p| p.path.swap(0, 1)),
        moved("batch-path-zeros", "a path of zeros", (3, 8), |p| p.path = vec![vec![0; 64]; 3]),
        placed(
            "mismatch",
            "batch-path-of-another",
            "the path of the same place in another batch",
            (3, 8),
            other_tree,
        ),
        moved("batch-grown", "an inner node for a leaf: the tree of one more level", (0, 2), |p| {
            (p.size, p.index) = ("size 4\n".into(), "index 0\n".into());
            p.path.insert(0, vec![0; 64]);
        }),
        placed("mismatch", "batch-other-payload", "another file", (3, 8), |_| ()).payload("another\n"),
        placed("mismatch", "batch-empty-payload", "the file was emptied", (3, 8), |_| ()).payload(""),
        // What is hashed for the leaf, and for the node above it.
        placed(
            "mismatch",
            "batch-payload-is-the-leaf",
            "a file that is what the leaf is the hash of",
            (0, 1),
            |_| (),
        )
        .payload(
            [&[0], &sha512(PAYLOAD)[..], &canonical(&pairs(&[("channel", "stable"), ("file", "f")]))]
                .concat(),
        ),
    ]
}

fn contexts() -> Vec<Case> {
    let asked = |expect: &str, name: &str, comment: &str, asks: &str| {
        placed(expect, name, comment, (3, 8), |_| ()).asks(&[asks])
    };
    let resplit = |name: &str, comment: &str, names: &'static str| {
        placed("rejected", name, comment, (3, 8), move |p| p.names = format!("leaf-context {names}\n"))
    };
    vec![
        asked(
            "mismatch",
            "batch-context-other-file",
            "the name of another file of the batch",
            "channel=stable,file=f4",
        ),
        asked("mismatch", "batch-context-empty-value", "no name at all", "channel=stable,file="),
        asked(
            "rejected",
            "batch-context-other-channel",
            "what all files share is another",
            "channel=beta,file=f",
        ),
        asked("rejected", "batch-context-no-channel", "what all files share is missing", "file=f"),
        asked("rejected", "batch-context-no-file", "what is this file's own is missing", "channel=stable"),
        asked("rejected", "batch-context-none", "no context", ""),
        asked("rejected", "batch-context-extra", "a pair too many", "channel=stable,file=f,x=y"),
        resplit("batch-split-none", "the header says that nothing is the file's own", "[]"),
        resplit("batch-split-all", "that everything is", "[channel,file]"),
        resplit("batch-split-other", "that something else is", "[channel]"),
        resplit("batch-split-unknown", "that something is that nobody gave", "[name]"),
        alone(
            case("rejected", "batch-split-not-sealed", "a ciphertext that was not sealed with the split"),
            &[("channel", "stable"), ("file", "f")],
            &[("channel", "stable")],
            "[file]",
            CONTEXT,
        ),
        alone(
            case(
                "rejected",
                "batch-split-whole-sealed",
                "a ciphertext that was sealed with the whole context",
            ),
            &[("channel", "stable"), ("file", "f")],
            &[("channel", "stable"), ("file", "f"), ("kms-sig:batch", "[file]")],
            "[file]",
            CONTEXT,
        ),
        alone(
            case("mismatch", "batch-leaf-without-context", "a leaf of the digest alone"),
            &[],
            &SHARED,
            "[file]",
            CONTEXT,
        ),
        alone(
            case("mismatch", "batch-leaf-own-part-only", "a leaf that has only what is the file's own"),
            &[("file", "f")],
            &SHARED,
            "[file]",
            CONTEXT,
        ),
        case("usage", "batch-context-reserved", "nobody can ask for the split")
            .asks(&["channel=stable,kms-sig:batch=[file]"])
            .says(
                "context key \"kms-sig:batch\" begins with \"kms-sig:\", which is reserved; choose another",
            ),
    ]
}

/// What is sealed is not what it has to be; and the formats, each in the other's clothes.
fn sealed() -> Vec<Case> {
    let seals = |expect: &str, name: &str, comment: &str, bytes: Vec<u8>| {
        let leaves = vec![usual()];
        case(expect, name, comment)
            .made(&SHARED)
            .plaintext(bytes)
            .asks(&[CONTEXT])
            .turn(|good| Parts::new(&leaves, 0, good).bytes())
    };
    let good = plaintext(1, &usual());
    let bit = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let head = [b"kms-sig:head:", &[0; 73][..]].concat();
    vec![
        seals(
            "mismatch",
            "batch-seals-digest",
            "the file's digest, as a plain signature has it",
            sha512(PAYLOAD),
        ),
        seals("mismatch", "batch-seals-bare-root", "the root alone", usual()),
        seals(
            "mismatch",
            "batch-seals-no-size",
            "prefix and root",
            [&b"kms-sig:batch:"[..], &usual()].concat(),
        ),
        seals("mismatch", "batch-seals-other-size", "another size", plaintext(2, &usual())),
        seals(
            "mismatch",
            "batch-seals-little-endian",
            "the size in the other order of bytes",
            plaintext(1 << 56, &usual()),
        ),
        seals("mismatch", "batch-seals-prefix-bit", "one bit of the prefix", bit(0)),
        seals("mismatch", "batch-seals-root-bit", "one bit of the root", bit(good.len() - 1)),
        seals("mismatch", "batch-seals-longer", "a byte more", [good.clone(), vec![0]].concat()),
        seals("mismatch", "batch-seals-shorter", "a byte less", good[..good.len() - 1].to_vec()),
        seals("mismatch", "batch-seals-a-head", "what seals of the record begin with", head),
        case("rejected", "batch-ciphertext-alone", "the ciphertext of a batch, as if it were plain")
            .made(&SHARED)
            .plaintext(good.clone())
            .asks(&[CONTEXT]),
        case("mismatch", "plain-seals-a-root", "a plain signature of what a batch has inside")
            .made(&[("channel", "stable"), ("file", "f")])
            .plaintext(good.clone())
            .asks(&[CONTEXT]),
        case("mismatch", "plain-seals-a-leaf", "a plain signature of a leaf, under the context of its file")
            .made(&[("channel", "stable"), ("file", "f")])
            .plaintext(usual())
            .asks(&[CONTEXT]),
        case("rejected", "batch-around-plain", "a plain signature of the file in a batch's clothes")
            .made(&[("channel", "stable"), ("file", "f")])
            .asks(&[CONTEXT])
            .turn(|good| Parts::new(&[usual()], 0, good).bytes()),
        placed("wrong-key", "batch-wrong-key", "another key made it", (3, 8), |_| ()).keys(&["local:other"]),
        placed("rejected", "batch-ciphertext-bit", "one bit of the ciphertext", (3, 8), |p| {
            *p.ciphertext.last_mut().unwrap() ^= 1;
        }),
        placed("rejected", "batch-ciphertext-noise", "no ciphertext at all", (3, 8), |p| {
            (p.len, p.ciphertext) = ("ciphertext 1\n".into(), vec![0]);
        }),
        placed("hold", "batch-key-unknown", "a key that nobody can ask", (3, 8), |_| ())
            .keys(&["local:nobody"])
            .held("key-not-found", "key-not-found: the keyring has no key local:nobody"),
    ]
}

/// A header that is not written as it has to be.
fn spelling() -> Vec<Case> {
    let (version, size) = ("its version is not 1", "its size is no number from 1 to 65536");
    let index = "its index is no number below its size";
    let names = "its leaf-context is no sorted list of names in brackets";
    let len = "its ciphertext is no number of bytes from 1 to 6144";
    let lines = "its header has other lines than size, index, leaf-context, ciphertext and an empty one, in this order";
    let spelt = |flaw: &str, name: &str, comment: &str, spoil: fn(&mut Parts)| {
        placed("malformed", name, comment, (3, 8), spoil).says(format!("this is no batch signature: {flaw}"))
    };
    vec![
        spelt(version, "batch-version-2", "a later version", |p| p.first = "kms-sig batch 2\n".into()),
        spelt(version, "batch-version-01", "a zero before it", |p| p.first = "kms-sig batch 01\n".into()),
        spelt(version, "batch-crlf", "other line ends", |p| p.first = "kms-sig batch 1\r\n".into()),
        spelt(version, "batch-nothing-else", "the first line without its end", |p| {
            *p = Parts { first: "kms-sig batch 1".into(), ..Parts::new(&[usual()], 0, Vec::new()) };
            for line in [&mut p.size, &mut p.index, &mut p.names, &mut p.len, &mut p.empty] {
                line.clear();
            }
            p.path.clear();
        }),
        spelt(size, "batch-size-zero", "no files", |p| p.size = "size 0\n".into()),
        spelt(size, "batch-size-too-large", "more than there may be", |p| p.size = "size 65537\n".into()),
        spelt(size, "batch-size-leading-zero", "another way to write it", |p| p.size = "size 08\n".into()),
        spelt(size, "batch-size-plus", "another one", |p| p.size = "size +8\n".into()),
        spelt(size, "batch-size-space", "a space after it", |p| p.size = "size 8 \n".into()),
        spelt(size, "batch-size-wraps", "8 and 2 to the 64th", |p| {
            p.size = "size 18446744073709551624\n".into()
        }),
        spelt(lines, "batch-size-missing", "no size", |p| p.size.clear()),
        spelt(lines, "batch-size-after-index", "lines in another order", |p| {
            std::mem::swap(&mut p.size, &mut p.index)
        }),
        spelt(lines, "batch-size-twice", "a line twice", |p| p.size.push_str("size 8\n")),
        spelt(lines, "batch-line-of-its-own", "a line that no header has", |p| p.len.push_str("comment x\n")),
        spelt(lines, "batch-no-empty-line", "no empty line before the path", |p| p.empty.clear()),
        spelt(index, "batch-index-beyond", "no such place", |p| p.index = "index 8\n".into()),
        spelt(index, "batch-index-negative", "nor this", |p| p.index = "index -5\n".into()),
        spelt(index, "batch-index-hex", "another way to write it", |p| p.index = "index 0x3\n".into()),
        spelt(index, "batch-index-twice", "two of them", |p| p.size.push_str("index 03\n")),
        spelt(names, "batch-names-bare", "no brackets", |p| p.names = "leaf-context file\n".into()),
        spelt(names, "batch-names-twice", "a name twice", |p| p.names = "leaf-context [file,file]\n".into()),
        spelt(names, "batch-names-order", "not sorted", |p| p.names = "leaf-context [file,a]\n".into()),
        spelt(names, "batch-names-over-encoded", "encoded without need", |p| {
            p.names = "leaf-context [%66ile]\n".into();
        }),
        spelt(names, "batch-names-reserved", "a name that is this program's own", |p| {
            p.names = "leaf-context [kms-sig%3Abatch]\n".into();
        }),
        spelt(names, "batch-names-terminal", "a name that would clear the terminal", |p| {
            p.names = "leaf-context [\x1b[2J]\n".into();
        }),
        spelt(names, "batch-names-endless", "a line that does not end", |p| {
            p.names = format!("leaf-context [{}]\n", "x".repeat(8178));
        }),
        spelt(len, "batch-ciphertext-none", "no ciphertext", |p| {
            (p.len, p.ciphertext) = ("ciphertext 0\n".into(), Vec::new());
        }),
        spelt(len, "batch-ciphertext-too-long", "more than KMS ever makes", |p| {
            (p.len, p.ciphertext) = ("ciphertext 6145\n".into(), vec![1; 6145]);
        }),
        spelt(len, "batch-ciphertext-leading-zero", "another way to write it", |p| {
            p.len = p.len.replace("ciphertext ", "ciphertext 0");
        }),
    ]
}

/// A body that is longer or shorter than the header says.
fn lengths() -> Vec<Case> {
    let flaw = "this is no batch signature: it is not as long as its header says";
    let long = |name: &str, comment: &str, spoil: fn(&mut Parts)| {
        placed("malformed", name, comment, (3, 8), spoil).says(flaw)
    };
    vec![
        long("batch-newline-after", "a newline after it", |p| p.after = b"\n".to_vec()),
        long("batch-newline-before-path", "another empty line", |p| p.empty = "\n\n".into()),
        long("batch-path-short", "a hash of the path is missing", |p| drop(p.path.pop())),
        long("batch-path-long", "there is one too many", |p| p.path.push(vec![0; 64])),
        long("batch-path-of-more-levels", "a size that asks for a longer path", |p| {
            p.size = "size 9\n".into()
        }),
        long("batch-cut", "the last byte is missing", |p| {
            p.ciphertext.pop();
        }),
        long("batch-header-alone", "nothing after the header", |p| {
            p.path.clear();
            p.ciphertext.clear();
        }),
        long("batch-ciphertext-said-shorter", "the ciphertext is said to be shorter", |p| {
            p.len = format!("ciphertext {}\n", p.ciphertext.len() - 1);
        }),
        placed("malformed", "batch-endless", "far more than is read", (3, 8), |_| ())
            .says(flaw)
            .zeros(1_048_576),
        placed("malformed", "batch-no-keyring", "no key is needed to tell", (3, 8), |p| p.after = vec![0])
            .says(flaw)
            .keyring("absent"),
        case("malformed", "batch-magic-in-front", "a plain signature after the magic")
            .says("this is no batch signature: its version is not 1")
            .turn(|good| [b"kms-sig batch ".to_vec(), good].concat()),
        case("malformed", "batch-magic-alone", "the magic and nothing else")
            .says("this is no batch signature: its version is not 1")
            .content(Content::Text(b"kms-sig batch ".to_vec())),
    ]
}
