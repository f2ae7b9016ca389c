//! Signatures that were seen to lie without their files of late: halves of pairs that are being
//! moved, perhaps.
//!
//! A hint. Who finds one here looks what lies there now.

use std::collections::HashMap;

use crate::fs::RelPath;
use crate::state::Version;

/// Remembered at most (P10). With more, all are forgotten: then a pair may be signed that was half
/// moved.
const MOST: usize = 4_096;

/// By what a rename leaves of a signature's version, the payload that it would belong to.
#[derive(Debug, Default)]
pub(crate) struct LoneSignatures(HashMap<Vec<u8>, RelPath>);

impl LoneSignatures {
    /// A signature lies there, and no payload.
    pub(crate) fn note(&mut self, signature: &Version, payload: RelPath) {
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0.insert(signature.but_for_its_change().to_owned(), payload);
    }

    /// Where this one was last seen.
    pub(crate) fn seen(&self, signature: &Version) -> Option<RelPath> {
        self.0.get(signature.but_for_its_change()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FileTime;
    use crate::fs::Identity;

    fn version(ino: u64, changed: i64) -> Version {
        let time = |seconds| FileTime { seconds, nanos: 0 };
        Version::from(&Identity { dev: 1, ino, size: 3, mtime: time(7), ctime: time(changed) })
    }

    #[test]
    fn p10_a_renamed_signature_is_found_and_not_all_that_ever_were_are_kept() {
        let mut seen = LoneSignatures::default();
        let path = RelPath::new("f").unwrap();
        seen.note(&version(1, 8), path.clone());
        assert_eq!((seen.seen(&version(1, 9)), seen.seen(&version(2, 8))), (Some(path.clone()), None));
        for ino in 0..3 * MOST as u64 {
            seen.note(&version(ino, 8), path.clone());
        }
        assert!(seen.0.len() <= MOST);
    }
}
