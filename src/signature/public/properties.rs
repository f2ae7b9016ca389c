//! What holds of every signature and every text, whatever is in it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::context::percent_encoded;
use crate::digest::algorithm::{HashAlgorithm, HashState};
use crate::signature::minisign::{check_comment, default_comment};
use crate::trust::key_file::KeyFile;
use crate::trust::minisign_key::KeyNumber;
use crate::trust::{PublicKey, SigningAlgorithm, ecdsa};

/// A public key of each type that SSH has.
static KEYS: LazyLock<Vec<(PublicKey, SigningAlgorithm)>> = LazyLock::new(|| {
    let read = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/public").join(name);
        let file = KeyFile::parse(&fs::read(path).unwrap()).unwrap();
        let KeyFile::Ssh(keys) = file else { panic!("{name}: {file:?}") };
        keys.into_iter().next().unwrap()
    };
    [
        ("ssh-ed25519.pub", SigningAlgorithm::Ed25519),
        ("ssh-ecdsa-256.pub", SigningAlgorithm::EcdsaSha256),
        ("ssh-ecdsa-384.pub", SigningAlgorithm::EcdsaSha384),
        ("ssh-ecdsa-521.pub", SigningAlgorithm::EcdsaSha512),
        ("ssh-rsa-3072.pub", SigningAlgorithm::RsaPkcs1Sha256),
        ("ssh-rsa-3072.pub", SigningAlgorithm::RsaPkcs1Sha512),
    ]
    .map(|(name, algorithm)| (read(name), algorithm))
    .into()
});

/// The beginnings by which a format is known, so that bytes come past them.
const BEGINNINGS: [&str; 6] = [
    "",
    "-----BEGIN SSH SIGNATURE-----\nU1NIU0lHAAAAAQ",
    "untrusted comment: a\nRUQ",
    "-----BEGIN PGP SIGNATURE-----\n\nwn",
    "{\"mediaType\":\"application/vnd.dev.sigstore.bundle.v0.3+json\",",
    "0F\u{2}!",
];

fn number() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 1..67).prop_filter("zero", |number| number.iter().any(|b| *b != 0))
}

proptest! {
    #[test]
    fn an_ssh_signature_is_read_as_it_is_written(
        which in 0..KEYS.len(), namespace in "[^\\p{Cc}]{1,60}", r in number(), s in number()
    ) {
        let (key, algorithm) = &KEYS[which];
        let is_ecdsa = key.ec_point().is_some();
        let answer = if is_ecdsa { ecdsa::to_der(&r, &s) } else { [r, s].concat() };
        let made = SshSignature::new(key.clone(), &namespace, *algorithm, answer);
        let text = made.to_armor().unwrap();
        prop_assert!(text.lines().all(|line| line.len() <= 70) && text.ends_with("-----\n"));
        prop_assert_eq!(SshSignature::parse(text.as_bytes()), Ok(made));
    }

    #[test]
    fn a_minisign_signature_is_read_as_it_is_written(
        id in any::<[u8; 8]>(), first in any::<[u8; 32]>(), comment in "[^\\p{Cc}]{0,80}\t?[a-z]?"
    ) {
        prop_assume!(check_comment(&comment).is_ok());
        let signature: [u8; 64] = [first, first].concat().try_into().unwrap();
        let made = MinisignSignature::new(KeyNumber(id), signature, &comment, signature);
        let text = made.to_text();
        prop_assert_eq!(text.lines().count(), 4);
        prop_assert_eq!(MinisignSignature::parse(text.as_bytes()), Ok(made));
    }

    /// Whatever the name: the comment is one that can be signed, and says this name alone.
    #[test]
    fn a_default_comment_is_a_comment_of_three_fields(
        now in any::<u64>(), name in prop::collection::vec(any::<u8>(), 1..256)
    ) {
        let name = OsStr::from_bytes(&name);
        let comment = default_comment(now, Some(name));
        prop_assert_eq!(check_comment(&comment), Ok(()));
        prop_assert_eq!(comment.split('\t').count(), 3);
        let made = MinisignSignature::new(KeyNumber([0; 8]), [0; 64], &comment, [0; 64]);
        let encoded = percent_encoded(name);
        prop_assert_eq!(made.file(), Some(encoded.as_str()));
    }

    #[test]
    fn a_bundle_is_read_as_it_is_written(signature in prop::collection::vec(any::<u8>(), 0..600)) {
        let digest = HashState::new(HashAlgorithm::Sha256).and(&signature).finish();
        for (key, _) in &*KEYS {
            let made = Bundle::new(key, &digest, &signature);
            let text = made.to_json().unwrap();
            prop_assert_eq!(text.lines().count(), 1);
            prop_assert_eq!(Bundle::parse(text.as_bytes()), Ok(made));
        }
    }

    /// P9: errors may quote what they are about, and act on no terminal.
    #[test]
    fn p9_any_bytes_are_read_and_what_is_said_of_them_can_be_printed(
        which in 0..BEGINNINGS.len(), bytes in prop::collection::vec(any::<u8>(), 0..300), text in ".{0,200}"
    ) {
        for more in [bytes.as_slice(), text.as_bytes()] {
            let bytes = [BEGINNINGS[which].as_bytes(), more].concat();
            for told in [
                PublicSignature::parse(&bytes).err().map(|error| error.to_string()),
                KeyFile::parse(&bytes).err().map(|error| error.to_string()),
            ]
            .into_iter()
            .flatten()
            {
                prop_assert!(!told.is_empty() && !told.contains(char::is_control), "{told:?}");
            }
        }
    }
}
