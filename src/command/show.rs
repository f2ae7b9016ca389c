//! `kms-sig show`: what a signature says about itself.
//!
//! Asks neither KMS nor the keyring, so nothing shown is proven; the words say "claims" where a forger
//! could have written it.

use super::{Failure, answer, complain_missing, input};
use crate::cli::Show;
use crate::exit::Exit;
use crate::kms::local;
use crate::signature::{MAX_LEN, Malformed, Signature};

/// Characters of a UUID in its usual form.
const UUID_LEN: usize = 36;

/// The two formats, in words.
const LOCAL_FORMAT: &str = "plain ciphertext of a kms-sig keyring";
const AWS_FORMAT: &str = "plain ciphertext, opaque";

/// Shows one signature.
///
/// # Errors
/// `Read`, `Output`.
pub fn run(arguments: &Show) -> Result<Exit, Failure> {
    let Some(bytes) = input::signature(&arguments.sig)? else {
        complain_missing(&arguments.sig);
        return Ok(Exit::Invalid);
    };
    match Signature::parse(&bytes) {
        Ok(signature) => {
            answer(&describe(&signature))?;
            Ok(Exit::Done)
        }
        Err(malformed) => {
            answer(&describe_malformed(malformed, bytes.len()))?;
            Ok(Exit::Invalid)
        }
    }
}

fn describe(signature: &Signature) -> String {
    let bytes = signature.as_bytes();
    let mut lines = vec![format!("size: {} bytes", bytes.len())];
    if let Some(key) = local::claimed_key(bytes) {
        lines.push(format!("format: {LOCAL_FORMAT}"));
        lines.push("provider: local".to_owned());
        lines.push(format!("claims key: {key}"));
    } else {
        lines.push(format!("format: {AWS_FORMAT}"));
        lines.push("provider: AWS KMS or a service like it".to_owned());
        if let Some(id) = leading_uuid(bytes) {
            lines.push(format!("claims key: {id}"));
        }
    }
    lines.push(format!("sha512: {}", signature.digest()));
    lines.join("\n")
}

fn describe_malformed(malformed: Malformed, len: usize) -> String {
    match malformed {
        Malformed::TooLong => format!("size: more than {MAX_LEN} bytes\nformat: none of ours: {malformed}"),
        Malformed::Empty | Malformed::Foreign(_) => {
            format!("size: {len} bytes\nformat: none of ours: {malformed}")
        }
    }
}

/// Which format a signature is of, and whose key it claims, on one line.
pub(super) fn format_of(signature: &Signature) -> String {
    let bytes = signature.as_bytes();
    match (local::claimed_key(bytes), leading_uuid(bytes)) {
        (Some(key), _) => format!("{LOCAL_FORMAT}, claims key {key}"),
        (None, Some(id)) => format!("{AWS_FORMAT}, claims key {id}"),
        (None, None) => AWS_FORMAT.to_owned(),
    }
}

/// Some services that speak the KMS protocol (moto is one) put the key's id before the ciphertext, as text.
/// AWS does not: its ciphertexts say nothing that is documented.
fn leading_uuid(bytes: &[u8]) -> Option<&str> {
    let id = std::str::from_utf8(bytes.get(..UUID_LEN)?).ok()?;
    let is_uuid = id.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    is_uuid.then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_id_is_told_only_where_it_can_be() {
        let id = "1234abcd-12ab-34cd-56ef-1234567890ab";
        assert_eq!(leading_uuid(format!("{id}\x01\x02").as_bytes()), Some(id));
        for bytes in [b"".as_slice(), b"1234abcd", b"1234abcd-12ab-34cd-56ef_1234567890ab", &[0xff; 40]] {
            assert_eq!(leading_uuid(bytes), None);
        }
    }
}
