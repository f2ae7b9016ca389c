//! Numbers as keys and signatures have them: big-endian.

/// A number without its leading zeros.
pub(super) fn without_zeros(mut number: &[u8]) -> &[u8] {
    while let [0, rest @ ..] = number {
        number = rest;
    }
    number
}

/// A positive number in two's complement, without more zeros than its sign takes.
pub(super) fn signed(number: &[u8]) -> Vec<u8> {
    let sign: &[u8] = if number.first().is_some_and(|first| *first >= 0x80) { &[0] } else { &[] };
    [sign, number].concat()
}

/// The positive number that is written so, without leading zeros. `None`: it is zero or negative,
/// or not in its shortest form, and what it is part of would have two.
pub(super) fn positive(signed: &[u8]) -> Option<&[u8]> {
    match signed {
        [0, number @ ..] if number.first().is_some_and(|first| *first >= 0x80) => Some(number),
        [1..=0x7F, ..] => Some(signed),
        _ => None,
    }
}
