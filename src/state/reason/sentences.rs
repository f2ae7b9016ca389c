//! The sentences that versions before state's third stored as reasons of refusals, for its
//! migration.
//!
//! Complete and closed: every wording that was ever written is here, and none is added.

use crate::fs::{Irregular, Unfit};
use crate::state::reason::RefusalReason;

/// The sentences that stand for one reason whatever the file.
const FIXED: [(&str, RefusalReason); 7] = [
    (
        "its signature is of ours and out of date; on_stale = \"report\" leaves it",
        RefusalReason::StaleSignature,
    ),
    (
        "something that is not known to be our signature lies beside it; remove it to have the file signed",
        RefusalReason::ForeignSignature,
    ),
    (
        "a signature without its file; it is kept, and judged when the file comes",
        RefusalReason::OrphanSignature,
    ),
    (".sig is the suffix of signatures, and signatures are not signed", RefusalReason::SignatureOfSignature),
    ("it is a signature, and signatures are not signed", RefusalReason::SignatureOfSignature),
    (
        ".sig is the suffix of signatures, and the file that this would be the signature of is not there",
        RefusalReason::StraySignature,
    ),
    (
        "its name is longer than 251 bytes, which leaves no room for .sig",
        RefusalReason::NameTooLong { max: 251 },
    ),
];

/// The reason that a sentence told. `None` for what no version wrote.
pub(in crate::state) fn parse(sentence: &str) -> Option<RefusalReason> {
    if let Some((_, reason)) = FIXED.into_iter().find(|(fixed, _)| *fixed == sentence) {
        return Some(reason);
    }
    if let Some(size) = between(sentence, "the context has ", CONTEXT_LIMIT) {
        return Some(RefusalReason::ContextTooLong { size: size.parse().ok()? });
    }
    if let Some(rest) = sentence.strip_prefix("its .sig ") {
        return unfit(rest).map(RefusalReason::Signature);
    }
    unfit(sentence.strip_prefix("it ")?).map(RefusalReason::Payload)
}

const CONTEXT_LIMIT: &str = " bytes; KMS takes at most 8192 for keys and values together";

fn unfit(rest: &str) -> Option<Unfit> {
    if rest == "is set-user-id or set-group-id" {
        return Some(Unfit::SetId);
    }
    if let Some(what) = between(rest, "is ", ", and only regular files are handled") {
        return Some(Unfit::NotRegular(match what {
            "a directory" => Irregular::Directory,
            "a symbolic link" => Irregular::Symlink,
            "a mount point" => Irregular::MountPoint,
            "a FIFO, socket or device" => Irregular::Special,
            _ => return None,
        }));
    }
    if let Some(uid) = between(rest, "belongs to user ", ", who is not among allowed_owners") {
        return Some(Unfit::Owner(uid.parse().ok()?));
    }
    let rest = rest.strip_prefix("has ")?;
    if let Some((links, max)) = rest.split_once(" hard links; max_links allows ") {
        return Some(Unfit::Links { links: links.parse().ok()?, max: max.parse().ok()? });
    }
    let (size, max) = rest.split_once(" bytes; max_size allows ")?;
    Some(Unfit::TooLarge { size: size.parse().ok()?, max: max.parse().ok()? })
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.strip_prefix(before)?.strip_suffix(after)
}

#[cfg(test)]
pub(in crate::state) mod tests {
    use super::*;

    /// Every sentence that a version wrote, with what it told. Never to be changed.
    pub(in crate::state) fn every_sentence() -> Vec<(String, RefusalReason)> {
        let unfit = [
            ("is a directory, and only regular files are handled", Unfit::NotRegular(Irregular::Directory)),
            ("is a symbolic link, and only regular files are handled", Unfit::NotRegular(Irregular::Symlink)),
            (
                "is a mount point, and only regular files are handled",
                Unfit::NotRegular(Irregular::MountPoint),
            ),
            (
                "is a FIFO, socket or device, and only regular files are handled",
                Unfit::NotRegular(Irregular::Special),
            ),
            ("has 2 hard links; max_links allows 1", Unfit::Links { links: 2, max: 1 }),
            ("has 7 bytes; max_size allows 3", Unfit::TooLarge { size: 7, max: 3 }),
            ("belongs to user 1000, who is not among allowed_owners", Unfit::Owner(1000)),
            ("is set-user-id or set-group-id", Unfit::SetId),
        ];
        let of_the_payload =
            unfit.iter().map(|(words, unfit)| (format!("it {words}"), RefusalReason::Payload(unfit.clone())));
        let of_the_signature = unfit
            .iter()
            .map(|(words, unfit)| (format!("its .sig {words}"), RefusalReason::Signature(unfit.clone())));
        let fixed = FIXED.into_iter().map(|(sentence, reason)| (sentence.to_owned(), reason));
        let context =
            "the context has 9000 bytes; KMS takes at most 8192 for keys and values together".to_owned();
        of_the_payload
            .chain(of_the_signature)
            .chain(fixed)
            .chain([(context, RefusalReason::ContextTooLong { size: 9000 })])
            .collect()
    }

    #[test]
    fn every_sentence_of_an_earlier_version_is_known_and_no_other() {
        for (sentence, reason) in every_sentence() {
            assert_eq!(parse(&sentence), Some(reason), "{sentence}");
            assert_eq!(parse(&format!("{sentence} ")), None);
        }
        for other in [
            "",
            "it ",
            "it has -1 bytes; max_size allows 3",
            "it is a file, and only regular files are handled",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
