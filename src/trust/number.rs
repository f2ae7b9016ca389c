//! Numbers as keys and signatures have them: big-endian.

/// A number without its leading zeros.
pub(super) fn without_zeros(mut number: &[u8]) -> &[u8] {
    while let [0, rest @ ..] = number {
        number = rest;
    }
    number
}
