//! Which digests one read of a payload must give, and what it gave.
//!
//! Formats of signatures ask for digests, or for a hash state that a trailer is appended to; a rule
//! asks for what its formats do. What nobody asks for is not computed.

use super::Digest;
use super::algorithm::{HashAlgorithm, HashState, HashValue};

/// What is asked of one read.
///
/// ```
/// use kms_sig::digest::algorithm::HashAlgorithm;
/// use kms_sig::digest::set::{DigestRequest, DigestSet};
///
/// const MINISIGN: DigestRequest = DigestRequest::digest(HashAlgorithm::Blake2b512);
/// const OPENPGP: DigestRequest = DigestRequest::state(HashAlgorithm::Sha256);
/// const BOTH: DigestRequest = MINISIGN.and(OPENPGP);
///
/// let set = DigestSet::of(BOTH, b"a payload");
/// assert!(set.value(HashAlgorithm::Blake2b512).is_some());
/// assert!(set.value(HashAlgorithm::Sha512).is_none(), "nobody asked for it");
/// let state = set.state(HashAlgorithm::Sha256).unwrap();
/// assert_eq!(state.clone().and(b" and a trailer").finish().as_bytes().len(), 32);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DigestRequest {
    /// A bit for each algorithm whose digest is asked for.
    values: u8,
    /// A bit for each algorithm whose state is.
    states: u8,
}

const fn bit(algorithm: HashAlgorithm) -> u8 {
    1 << algorithm as u8
}

impl DigestRequest {
    /// Nothing.
    pub const NONE: Self = Self { values: 0, states: 0 };

    /// The digest of a payload.
    pub const fn digest(algorithm: HashAlgorithm) -> Self {
        Self { values: bit(algorithm), states: 0 }
    }

    /// The state after a payload, which goes on with a trailer.
    pub const fn state(algorithm: HashAlgorithm) -> Self {
        Self { values: 0, states: bit(algorithm) }
    }

    /// Both what this asks for and what `other` does.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self { values: self.values | other.values, states: self.states | other.states }
    }

    /// Whether it asks for the digest of this function.
    pub const fn has_digest(self, algorithm: HashAlgorithm) -> bool {
        self.values & bit(algorithm) != 0
    }

    /// Whether it asks for the state of this function.
    pub const fn has_state(self, algorithm: HashAlgorithm) -> bool {
        self.states & bit(algorithm) != 0
    }
}

/// What one read gave: exactly what was asked of it.
#[derive(Debug, Clone, Default)]
pub struct DigestSet {
    values: Vec<HashValue>,
    states: Vec<HashState>,
}

impl DigestSet {
    /// Of bytes that are already in memory.
    pub fn of(request: DigestRequest, bytes: &[u8]) -> Self {
        let mut hasher = SetHasher::new(request);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The digest of this function, if it was asked for.
    pub fn value(&self, algorithm: HashAlgorithm) -> Option<&HashValue> {
        self.values.iter().find(|value| value.algorithm() == algorithm)
    }

    /// The SHA-512, if it was asked for.
    pub fn sha512(&self) -> Option<Digest> {
        self.value(HashAlgorithm::Sha512)?.sha512()
    }

    /// The state of this function after the payload, if it was asked for.
    pub fn state(&self, algorithm: HashAlgorithm) -> Option<&HashState> {
        self.states.iter().find(|state| state.algorithm() == algorithm)
    }
}

/// A payload of which only the SHA-512 is known.
impl From<Digest> for DigestSet {
    fn from(digest: Digest) -> Self {
        Self { values: vec![digest.into()], states: Vec::new() }
    }
}

/// Hashes a stream piece by piece, with each function that is asked for.
#[derive(Debug, Clone)]
pub struct SetHasher {
    request: DigestRequest,
    states: Vec<HashState>,
}

impl SetHasher {
    /// One that has taken nothing.
    pub fn new(request: DigestRequest) -> Self {
        let is_needed = |algorithm: &_| request.has_digest(*algorithm) || request.has_state(*algorithm);
        let states = HashAlgorithm::ALL.into_iter().filter(is_needed).map(HashState::new).collect();
        Self { request, states }
    }

    /// Takes the next bytes of the stream.
    pub fn update(&mut self, bytes: &[u8]) {
        self.states.iter_mut().for_each(|state| state.update(bytes));
    }

    /// What was asked for, of everything taken.
    pub fn finish(self) -> DigestSet {
        let mut set = DigestSet::default();
        for state in self.states {
            let algorithm = state.algorithm();
            if self.request.has_state(algorithm) {
                set.states.push(state.clone());
            }
            if self.request.has_digest(algorithm) {
                set.values.push(state.finish());
            }
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every request there is.
    fn requests() -> impl Iterator<Item = DigestRequest> {
        (0..16).flat_map(|values| (0..16).map(move |states| DigestRequest { values, states }))
    }

    #[test]
    fn every_request_gives_what_it_asks_for_and_nothing_else() {
        for request in requests() {
            let mut hasher = SetHasher::new(request);
            hasher.update(b"a");
            hasher.update(b"bc");
            for set in [hasher.finish(), DigestSet::of(request, b"abc")] {
                for algorithm in HashAlgorithm::ALL {
                    let alone = HashState::new(algorithm).and(b"abc");
                    let expected = request.has_digest(algorithm).then(|| alone.clone().finish().to_string());
                    assert_eq!(set.value(algorithm).map(ToString::to_string), expected, "{request:?}");
                    let trailed = |state: &HashState| state.clone().and(b"def").finish().to_string();
                    let expected = request.has_state(algorithm).then(|| trailed(&alone));
                    assert_eq!(set.state(algorithm).map(trailed), expected, "{request:?}");
                }
                let sha512 =
                    request.has_digest(HashAlgorithm::Sha512).then(|| Digest::of(b"abc").to_string());
                assert_eq!(set.sha512().map(|digest| digest.to_string()), sha512, "{request:?}");
            }
        }
    }

    #[test]
    fn requests_add_up() {
        let all = requests().fold(DigestRequest::NONE, DigestRequest::and);
        for algorithm in HashAlgorithm::ALL {
            let (digest, state) = (DigestRequest::digest(algorithm), DigestRequest::state(algorithm));
            assert!(all.has_digest(algorithm) && all.has_state(algorithm));
            assert!(digest.has_digest(algorithm) && !digest.has_state(algorithm));
            assert!(!state.has_digest(algorithm) && state.has_state(algorithm));
            assert_eq!(digest.and(digest), digest);
            for other in HashAlgorithm::ALL.into_iter().filter(|other| *other != algorithm) {
                assert!(!digest.and(state).has_digest(other) && !digest.and(state).has_state(other));
            }
        }
    }

    #[test]
    fn a_sha512_alone_is_a_set_of_one() {
        let set = DigestSet::from(Digest::of(b"abc"));
        assert_eq!(set.sha512().map(|digest| digest.to_string()), Some(Digest::of(b"abc").to_string()));
        assert!(set.value(HashAlgorithm::Sha256).is_none() && set.state(HashAlgorithm::Sha512).is_none());
    }
}
