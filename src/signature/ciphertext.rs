//! What tells a KMS ciphertext from any other data, without asking anyone.
//!
//! No service documents how its ciphertexts look, and none needs to: only Decrypt decides what one
//! is worth. This is for the opposite question, whether a file may be anything else than one. So
//! only what is known is recognised:
//!
//! | made by | begins with |
//! | --- | --- |
//! | AWS KMS | a version, `01 01`…`03` twice, and `00 78`; those of 2014 and 2015 have `0a 20`, 32 bytes, `12` and a length before it |
//! | moto, LocalStack, ministack | the key's id as text, 36 characters |
//! | local-kms | a length, and the key's ARN as text |
//!
//! and what comes after is no text. A local key's ciphertexts have a magic of their own.

/// Characters of a key id: a UUID, or `mrk-` and 32 hexadecimal digits.
const KEY_ID_LEN: usize = 36;

/// No ciphertext of a digest is shorter: it has the digest's 64 bytes, and what its service needs
/// beside.
const MIN_LEN: usize = 100;

/// How a ciphertext begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form<'a> {
    /// As those of AWS KMS do.
    Aws,
    /// With the id of a key.
    KeyId(&'a str),
    /// With the ARN of a key.
    KeyArn(&'a str),
}

/// The form of a ciphertext that stands for a digest or more. `None`: it may be anything.
pub fn form(bytes: &[u8]) -> Option<Form<'_>> {
    if bytes.len() < MIN_LEN || std::str::from_utf8(bytes).is_ok() {
        return None;
    }
    if is_aws(bytes) {
        return Some(Form::Aws);
    }
    leading_key_id(bytes).map(Form::KeyId).or_else(|| leading_arn(bytes).map(Form::KeyArn))
}

/// Seen in ciphertexts that their owners published, of 2014 to 2026.
fn is_aws(bytes: &[u8]) -> bool {
    match bytes {
        [0x0a, 0x20, rest @ ..] => match rest.get(32..) {
            // The length has one byte or two (a varint), and what follows begins as the later ones.
            Some([0x12, 0x80..=0xff, _, inner @ ..] | [0x12, _, inner @ ..]) => is_version(inner),
            Some(_) | None => false,
        },
        rest => is_version(rest),
    }
}

const fn is_version(bytes: &[u8]) -> bool {
    matches!(bytes, [1, 1..=3, 1..=3, 0, 0x78, ..])
}

/// The key id that a ciphertext begins with, as text. AWS has none there.
pub fn leading_key_id(bytes: &[u8]) -> Option<&str> {
    let id = std::str::from_utf8(bytes.get(..KEY_ID_LEN)?).ok()?;
    let is_uuid = id.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    let is_multi_region =
        id.strip_prefix("mrk-").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    (is_uuid || is_multi_region).then_some(id)
}

/// The key ARN that a ciphertext begins with, after a byte with its length.
fn leading_arn(bytes: &[u8]) -> Option<&str> {
    let (&len, rest) = bytes.split_first()?;
    let arn = std::str::from_utf8(rest.get(..usize::from(len))?).ok()?;
    let is_key = arn.starts_with("arn:") && arn.contains(":kms:") && arn.contains(":key/");
    (is_key && arn.bytes().all(|byte| byte.is_ascii_graphic())).then_some(arn)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";

    /// Enough bytes that are no text.
    fn noise(len: usize) -> Vec<u8> {
        (0..len).map(|at| 0x80 | (at * 37 % 128) as u8).collect()
    }

    fn after(prefix: &[u8]) -> Vec<u8> {
        [prefix, &noise(128)].concat()
    }

    #[test]
    fn each_services_ciphertexts_are_recognised() {
        for prefix in [&[1, 1, 2, 0, 0x78][..], &[1, 2, 2, 0, 0x78], &[1, 1, 3, 0, 0x78], &[1, 2, 3, 0, 0x78]]
        {
            assert_eq!(form(&after(prefix)), Some(Form::Aws), "{prefix:02x?}");
            // Of 2014: a hash of the key, then the rest with its length.
            for len in [&[0x12, 0x7f][..], &[0x12, 0x8f, 0x01]] {
                let old = [&[0x0a, 0x20][..], &noise(32), len, prefix].concat();
                assert_eq!(form(&after(&old)), Some(Form::Aws), "{len:02x?} {prefix:02x?}");
            }
        }
        let multi_region = "mrk-1234abcd12ab34cd56ef1234567890ab";
        for id in [ID, multi_region] {
            assert_eq!(form(&after(id.as_bytes())), Some(Form::KeyId(id)));
        }
        let arn = format!("arn:aws:kms:eu-west-2:111122223333:key/{ID}");
        let with_len = [&[u8::try_from(arn.len()).unwrap()], arn.as_bytes(), &[0; 4]].concat();
        assert_eq!(form(&after(&with_len)), Some(Form::KeyArn(&arn)));
    }

    #[test]
    fn p8_what_may_be_anything_else_is_not_recognised() {
        let text = [ID.as_bytes(), &[b','; 200]].concat(); // a table whose first column is a UUID
        let arn = b"\x40arn:aws:s3:::bucket/and-a-long-name-that-is-no-key-of-any-service";
        for bytes in [
            &b""[..],
            &noise(256), // a key file
            &text,
            "\u{1}\u{2}\u{2}\0x".repeat(40).as_bytes(),
            &[1, 2, 2, 0, 0x78],
            &after(&[1, 2, 2, 0]),
            &after(&[1, 4, 2, 0, 0x78]),
            &after(&[1, 2, 2, 1, 0x78]),
            &after(&[0x0a, 0x20]),
            &after(&[&[0x0a, 0x20][..], &noise(32), &[0x12, 0x7f, 1, 2]].concat()),
            &after(b"\x1f\x8b\x08\0"),
            &after(b"PK\x03\x04"),
            &after(b"\x89PNG\r\n\x1a\n"),
            &after(b"1234abcd-12ab-34cd-56ef_1234567890ab"),
            &after(b"mrk-1234abcd12ab34cd56ef1234567890a_"),
            &after(arn),
        ] {
            assert_eq!(form(bytes), None, "{:02x?}", &bytes[..bytes.len().min(40)]);
        }
    }

    #[test]
    fn a_key_id_is_told_only_where_it_can_be() {
        assert_eq!(leading_key_id(format!("{ID}\x01\x02").as_bytes()), Some(ID));
        for bytes in [b"".as_slice(), b"1234abcd", b"1234abcd-12ab-34cd-56ef_1234567890ab", &[0xff; 40]] {
            assert_eq!(leading_key_id(bytes), None);
        }
    }
}
