//! Hashing what is read, while more of it is read: the processor hashes one piece as the next one
//! comes in.
//!
//! Reading a file takes a fifth of the time of hashing it, from the page cache, and far more from a
//! disk. Memory is a few pieces, whatever the size (P10). Small inputs are hashed where they are
//! read; a thread would cost more than it saves.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::set::{DigestRequest, DigestSet, SetHasher};

/// Bytes of a piece, in which inputs are read: large enough that system calls and hand-overs do not
/// show, small enough to stay in the cache.
pub const PIECE: usize = 256 * 1024;
/// Bytes to begin with, on the stack: most files are smaller. Thousands of large pieces, taken and
/// given back between what stays for long, would leave the heap full of holes.
const FIRST: usize = 8 * 1024;
/// Pieces under way: one being read, one being hashed, one waiting each way.
const PIECES: usize = 4;

/// Hashes a stream, with every function that is asked for. `read` fills a piece from its beginning
/// and says how many bytes it has; none is the end.
///
/// # Errors
/// Those of `read`; what was read before is hashed for nothing.
pub fn hash<E: Send>(
    request: DigestRequest,
    mut read: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<DigestSet, E> {
    let mut first = [0; FIRST];
    let mut piece = Vec::new();
    let mut hasher = SetHasher::new(request);
    let mut whole = 0;
    while whole < PIECE {
        if whole == FIRST && piece.is_empty() {
            piece.reserve_exact(PIECE);
            piece.extend_from_slice(&first);
            piece.resize(PIECE, 0);
        }
        let into = if piece.is_empty() { &mut first[..] } else { &mut piece[..] };
        match read(into.get_mut(whole..).unwrap_or_default())? {
            0 => {
                hasher.update(into.get(..whole).unwrap_or_default());
                return Ok(hasher.finish());
            }
            len => whole += len,
        }
    }
    thread::scope(|scope| {
        let (full, to_hash) = sync_channel::<(Vec<u8>, usize)>(PIECES);
        let (empty, to_fill) = sync_channel::<Vec<u8>>(PIECES);
        let worker = thread::Builder::new().name("hash".to_owned());
        let spawned =
            worker.spawn_scoped(scope, move || hash_pieces(SetHasher::new(request), &to_hash, &empty));
        let Ok(worker) = spawned else {
            // No thread is to be had: one after the other, then.
            hasher.update(&piece);
            return in_turn(hasher, piece, read);
        };
        let filled = fill(piece, whole, &full, &to_fill, read);
        drop(full);
        match worker.join() {
            Ok(digests) => filled.map(|()| digests),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Reads pieces and hands them over, beginning with one that is full already.
fn fill<E>(
    first: Vec<u8>,
    len: usize,
    full: &SyncSender<(Vec<u8>, usize)>,
    to_fill: &Receiver<Vec<u8>>,
    mut read: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), E> {
    let mut made = 1;
    let mut next = (first, len);
    loop {
        if full.send(next).is_err() {
            return Ok(()); // the worker has panicked; whoever joins it sees that
        }
        let mut piece = match to_fill.try_recv() {
            Ok(piece) => piece,
            Err(_) if made < PIECES => {
                made += 1;
                vec![0; PIECE]
            }
            Err(_) => match to_fill.recv() {
                Ok(piece) => piece,
                Err(_) => return Ok(()),
            },
        };
        match read(&mut piece)? {
            0 => return Ok(()),
            len => next = (piece, len),
        }
    }
}

fn hash_pieces(
    mut hasher: SetHasher,
    to_hash: &Receiver<(Vec<u8>, usize)>,
    empty: &SyncSender<Vec<u8>>,
) -> DigestSet {
    while let Ok((piece, len)) = to_hash.recv() {
        // `read` never says more than it was given room for.
        hasher.update(piece.get(..len).unwrap_or_default());
        // The reader may have come to its end.
        empty.send(piece).unwrap_or_default();
    }
    hasher.finish()
}

fn in_turn<E>(
    mut hasher: SetHasher,
    mut piece: Vec<u8>,
    mut read: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<DigestSet, E> {
    loop {
        match read(&mut piece)? {
            0 => return Ok(hasher.finish()),
            len => hasher.update(piece.get(..len).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::digest::algorithm::{HashAlgorithm, HashState};

    const SHA512: DigestRequest = DigestRequest::digest(HashAlgorithm::Sha512);

    /// The SHA-512 of what this reads.
    fn sha512(read: impl FnMut(&mut [u8]) -> Result<usize, ()>) -> String {
        hash(SHA512, read).unwrap().sha512().unwrap().to_string()
    }

    /// Reads `content` in bites of at most this many bytes.
    fn reader(content: &[u8], bite: usize) -> impl FnMut(&mut [u8]) -> Result<usize, ()> {
        let mut rest = content;
        move |piece| {
            let len = rest.len().min(piece.len()).min(bite);
            let (now, later) = rest.split_at(len);
            piece[..len].copy_from_slice(now);
            rest = later;
            Ok(len)
        }
    }

    #[test]
    fn p3_any_size_in_any_pieces_has_the_digest_of_the_whole() {
        let content: Vec<u8> = (0..PIECE * 6 + 17).map(|i| (i * 31 % 251) as u8).collect();
        for size in [
            0,
            1,
            127,
            128,
            FIRST - 1,
            FIRST,
            FIRST + 1,
            PIECE - 1,
            PIECE,
            PIECE + 1,
            PIECE * 2,
            PIECE * 6 + 17,
        ] {
            let content = &content[..size];
            let whole = Digest::of(content).to_string();
            for bite in [4_097, PIECE, usize::MAX] {
                assert_eq!(sha512(reader(content, bite)), whole, "{size} in bites of {bite}");
            }
        }
        assert_eq!(sha512(reader(&content[..200], 1)), Digest::of(&content[..200]).to_string());
    }

    #[test]
    fn what_cannot_be_read_is_an_error_wherever_it_comes() {
        for good in [0, 1, 2, 7] {
            let mut reads = 0;
            let failed = hash(SHA512, |piece| {
                reads += 1;
                if reads > good { Err("no") } else { Ok(piece.len()) }
            });
            assert_eq!(failed.map(|_| ()), Err("no"), "after {good} pieces");
        }
    }

    #[test]
    fn without_a_thread_it_is_the_same() {
        let content: Vec<u8> = (0..PIECE * 2 + 5).map(|i| (i % 7) as u8).collect();
        let digests = in_turn(SetHasher::new(SHA512), vec![0; PIECE], reader(&content, usize::MAX)).unwrap();
        assert_eq!(digests.sha512().unwrap().to_string(), Digest::of(&content).to_string());
    }

    #[test]
    fn p3_one_read_gives_every_digest_and_state_that_is_asked_for() {
        let content: Vec<u8> = (0..PIECE * 3 + 11).map(|i| (i * 7 % 253) as u8).collect();
        let all = HashAlgorithm::ALL.into_iter().fold(DigestRequest::NONE, |all, algorithm| {
            all.and(DigestRequest::digest(algorithm)).and(DigestRequest::state(algorithm))
        });
        for size in [0, 1, FIRST, PIECE, PIECE * 3 + 11] {
            let content = &content[..size];
            let digests = hash(all, reader(content, 10_007)).unwrap();
            for algorithm in HashAlgorithm::ALL {
                let alone = HashState::new(algorithm).and(content);
                let trailed = alone.clone().and(b"trailer").finish();
                assert!(digests.value(algorithm).unwrap().matches(alone.finish().as_bytes()), "{algorithm}");
                let state = digests.state(algorithm).unwrap().clone();
                assert!(state.and(b"trailer").finish().matches(trailed.as_bytes()), "{algorithm}");
            }
        }
    }
}
