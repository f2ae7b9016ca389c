//! Variables of the environment that must not be there: for others to inherit, or for libraries to
//! misread.
//!
//! Works only while the process has one thread, and does nothing later.

#![expect(unsafe_code, reason = "removing a variable of the environment has no safe form; see `forget`")]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

/// Removes variables from the environment, if nobody else can be reading it.
pub(super) fn forget<S: AsRef<OsStr>>(names: &[S]) {
    let threads = std::fs::read_dir("/proc/self/task").map(Iterator::count);
    if !matches!(threads, Ok(1)) {
        return;
    }
    for name in names {
        // SAFETY: `remove_var` is sound as long as no other thread reads or writes the environment.
        // There is no other thread: the kernel lists this one alone, and only this one could start
        // another.
        unsafe { std::env::remove_var(name) };
    }
}

/// Makes an empty variable of AWS or of a proxy the same as none, as it is to the AWS CLI. The SDK
/// takes an empty `AWS_ENDPOINT_URL_STS` for an endpoint and an empty `AWS_PROFILE` for a profile,
/// and has no setting for that. To be called first in `main`.
pub fn forget_empty() {
    let empty = |value: &OsStr| value.as_bytes().iter().all(u8::is_ascii_whitespace);
    let names: Vec<_> = std::env::vars_os()
        .filter(|(name, value)| is_of_aws_or_a_proxy(name) && empty(value))
        .map(|(name, _)| name)
        .collect();
    forget(&names);
}

fn is_of_aws_or_a_proxy(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(b"AWS_") || name.to_ascii_uppercase().ends_with(b"_PROXY")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_variables_of_aws_and_of_proxies_are_forgotten() {
        for name in ["AWS_PROFILE", "AWS_ENDPOINT_URL_STS", "HTTPS_PROXY", "all_proxy", "No_Proxy"] {
            assert!(is_of_aws_or_a_proxy(name.as_ref()), "{name}");
        }
        for name in ["HOME", "KMS_SIG_KEYRING", "MY_AWS_PROFILE", "PROXY", "aws_profile"] {
            assert!(!is_of_aws_or_a_proxy(name.as_ref()), "{name}");
        }
    }
}
