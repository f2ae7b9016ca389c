//! User names of `allowed_owners`, as this host's `/etc/passwd` knows them.
//!
//! Asks no name service: a policy must mean the same when the network is down. Who lives elsewhere
//! is named by user id.

/// Where user names are looked up.
pub(super) const PASSWD: &str = "/etc/passwd";

/// The user id of `name` in the text of a password file (passwd(5)). As in the C library, the first
/// line counts.
pub(super) fn uid_of(passwd: &[u8], name: &str) -> Option<u32> {
    let fields = |line: &[u8]| -> Option<u32> {
        let mut fields = line.split(|byte| *byte == b':');
        let (login, _password, uid) = (fields.next()?, fields.next()?, fields.next()?);
        if login != name.as_bytes() || login.is_empty() {
            return None;
        }
        // Digits only: `parse` alone would take a sign.
        let uid = std::str::from_utf8(uid).ok().filter(|uid| uid.bytes().all(|b| b.is_ascii_digit()))?;
        uid.parse().ok()
    };
    passwd.split(|byte| *byte == b'\n').find_map(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a28_user_names_become_ids() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\n# comment\n\n+nis\nb\xffd:x:7:7:::\nshort:x\n\
            plus:x:+5:5:::\nbig:x:4294967296:1:::\nbuilder:x:1001:1001:,,,:/home/builder:/bin/sh\nroot:x:9:9:::\n:x:3:3:::";
        for (name, uid) in [
            ("root", Some(0)),
            ("builder", Some(1001)),
            ("build", None),
            ("short", None),
            ("plus", None),
            ("big", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(uid_of(passwd, name), uid, "{name}");
        }
    }
}
