//! The parts that every file passes, one by one, without KMS: what of the time of a file is whose.
//!
//! `cargo bench --no-default-features --bench parts`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a bench has failed if it panics; its functions are made by a macro"
)]

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kms_sig::context::leaf_keys::LeafKeys;
use kms_sig::context::{Context, ContextTemplate, Filling};
use kms_sig::digest::Digest;
use kms_sig::digest::algorithm::HashAlgorithm;
use kms_sig::digest::set::{DigestRequest, DigestSet};
use kms_sig::fs::copy::Pass;
use kms_sig::fs::flush::Flusher;
use kms_sig::fs::{Dir, Fitness, Staging};
use kms_sig::settle::{Activity, Next, Pair, PairVersion, Sample, Timing, Want};
use kms_sig::signature::Signature;
use kms_sig::signature::batch::{self, Batch};
use kms_sig::signature::merkle::Tree;

/// As in a release folder: small ones are sums and notes, large ones images.
fn hash(c: &mut Criterion) {
    let mut group = c.benchmark_group("hash");
    for (name, size) in [("1 KiB", 1 << 10), ("1 MiB", 1 << 20)] {
        let bytes = vec![7_u8; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(name, |b| b.iter(|| Digest::of(black_box(&bytes))));
    }
    // What a rule's formats ask for, beside the SHA-512 alone: a set costs what its functions do.
    let sha512 = DigestRequest::digest(HashAlgorithm::Sha512);
    let all = HashAlgorithm::ALL.map(DigestRequest::digest).into_iter().fold(sha512, DigestRequest::and);
    for (name, request) in [("1 MiB as a set of SHA-512", sha512), ("1 MiB as a set of all four", all)] {
        let bytes = vec![7_u8; 1 << 20];
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |b| b.iter(|| DigestSet::of(request, black_box(&bytes))));
    }
    let temp = tempfile::tempdir().unwrap();
    for (name, size) in [("file of 1 KiB", 1 << 10), ("file of 64 MiB", 64 << 20)] {
        let path = temp.path().join("payload");
        std::fs::write(&path, vec![7_u8; size]).unwrap();
        group.throughput(Throughput::Bytes(size as u64)).sample_size(20);
        group.bench_function(name, |b| {
            b.iter(|| {
                let file = std::fs::File::open(&path).unwrap();
                Pass::new(&path, size as u64).hash(&file).unwrap()
            });
        });
    }
}

/// From the first look at a pair to its try.
fn settle(c: &mut Criterion) {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("payload"), b"x").unwrap();
    let dir = Dir::open(temp.path()).unwrap();
    let fitness = Fitness { max_size: 1, max_links: 1, owners: None };
    let stat = || dir.open_file("payload".as_ref(), &fitness).unwrap().1;
    let versions = PairVersion { payload: Some(stat().identity), signature: None };
    let timing = Timing {
        settle: Duration::from_secs(1),
        grace_leased: Duration::from_secs(30),
        grace_unleased: Duration::from_secs(600),
        signature_timeout: Duration::from_secs(600),
        never_settles: Duration::from_secs(3600),
    };
    c.bench_function("settle: a file from first sight to its try", |b| {
        b.iter(|| {
            let mut pair = Pair::new(Want::Sign, Duration::ZERO, black_box(versions));
            let sample = Sample { versions, activity: Activity::UNKNOWN, age: Duration::ZERO };
            let first = pair.seen(Duration::ZERO, &sample, &timing);
            let second = pair.seen(timing.settle, &sample, &timing);
            assert!(matches!((first, second), (Next::LookAt(_), Next::Attempt(_))));
            pair
        });
    });
    c.bench_function("settle: one look at a file", |b| b.iter(stat));
}

fn context(c: &mut Criterion) {
    let mut template = ContextTemplate::default();
    template.insert("channel", "stable").unwrap();
    template.insert("file", "{relpath}").unwrap();
    let filling = Filling { relpath: Path::new("2026/app-1.0.tar.gz"), watch: "releases", hostname: "host" };
    c.bench_function("context: two pairs for a file", |b| {
        b.iter(|| template.expand(black_box(filling)).unwrap())
    });
}

fn signatures(c: &mut Criterion) {
    let plain = [7_u8; 184];
    c.bench_function("signature: parse a plain one", |b| {
        b.iter(|| Signature::parse(black_box(&plain)).unwrap())
    });
    let context = Context::parse(&["channel=stable,file=app-1.0.tar.gz"]).unwrap();
    let leaves: Vec<_> =
        (0..1000_u32).map(|n| batch::leaf(&Digest::of(&n.to_be_bytes()), &context)).collect();
    c.bench_function("batch: the tree of 1,000 files", |b| {
        b.iter_batched(|| leaves.clone(), |leaves| Tree::new(leaves).unwrap(), BatchSize::SmallInput);
    });
    let tree = Tree::new(leaves.clone()).unwrap();
    let sign = |index| Batch::new(tree.prove(index).unwrap(), LeafKeys::default(), plain.into()).to_bytes();
    c.bench_function("batch: the signature of one of 1,000", |b| b.iter(|| sign(black_box(500))));
    let bytes = sign(500);
    c.bench_function("batch: one of 1,000, from its bytes to the root", |b| {
        b.iter(|| Batch::parse(black_box(&bytes)).unwrap().proof().root(leaves[500]));
    });
}

/// Sixty-four threads that write and flush, as delivery does, beside as many that flush by
/// themselves.
fn flush(c: &mut Criterion) {
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let dir = Dir::open(temp.path()).unwrap();
    let flusher = Flusher::new(&dir).unwrap();
    let write = || Staging::holding(&dir, &[7; 1024]).unwrap();
    let in_parallel = |flush: &(dyn Fn(&Staging) + Sync)| {
        std::thread::scope(|scope| {
            for _ in 0..64 {
                scope.spawn(|| (0..4).for_each(|_| flush(&write())));
            }
        });
    };
    let mut group = c.benchmark_group("flush 256 files from 64 threads");
    group.sample_size(10);
    group.bench_function("each by itself", |b| {
        b.iter(|| in_parallel(&|file| file.written().flush().unwrap()))
    });
    group.bench_function("together", |b| {
        b.iter(|| in_parallel(&|file| flusher.flush(&[file.written()]).unwrap()))
    });
}

criterion_group!(parts, hash, settle, context, signatures, flush);
criterion_main!(parts);
