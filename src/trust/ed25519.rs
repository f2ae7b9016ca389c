//! Which 32 bytes are no Ed25519 key, though most libraries take them.
//!
//! A point of small order as a key verifies signatures that anybody can make, and an encoding of y
//! that is not below the prime is a second name of one key.

use super::error::PublicKeyError;

/// The encodings of y, the sign of x aside, of the points whose order divides 8: orders 4, 1, 8, 8
/// and 2. Those that are not below the prime are not canonical anyway. From "Taming the many
/// EdDSAs" (Chalkias and others, 2020), table 1.
const SMALL_ORDER: [&str; 5] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

/// # Errors
/// [`PublicKeyError::NotCanonical`], [`PublicKeyError::SmallOrder`].
pub(super) fn check(raw: &[u8; 32]) -> Result<(), PublicKeyError> {
    let mut y = *raw;
    let [first, between @ .., last] = &mut y;
    *last &= 0x7f; // the sign of x
    // The prime is 2^255 - 19: little-endian ed ff … ff 7f.
    if *last == 0x7f && between.iter().all(|byte| *byte == 0xff) && *first >= 0xed {
        return Err(PublicKeyError::NotCanonical);
    }
    if SMALL_ORDER.contains(&hex::encode(y).as_str()) {
        return Err(PublicKeyError::SmallOrder);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_of_small_order_are_refused_whatever_the_sign_of_x() {
        for encoded in SMALL_ORDER {
            let mut raw = [0; 32];
            hex::decode_to_slice(encoded, &mut raw).unwrap();
            assert_eq!(check(&raw), Err(PublicKeyError::SmallOrder));
            raw[31] |= 0x80;
            assert_eq!(check(&raw), Err(PublicKeyError::SmallOrder));
            raw[0] ^= 2;
            assert_ne!(check(&raw), Err(PublicKeyError::SmallOrder));
        }
    }

    #[test]
    fn only_what_is_below_the_prime_is_canonical() {
        let mut raw = [0xff; 32];
        for (first, last, expected) in [
            (0xec, 0x7f, Err(PublicKeyError::SmallOrder)),
            (0xeb, 0x7f, Ok(())),
            (0xed, 0x7f, Err(PublicKeyError::NotCanonical)),
            (0xff, 0xff, Err(PublicKeyError::NotCanonical)),
            (0xff, 0x7e, Ok(())),
        ] {
            (raw[0], raw[31]) = (first, last);
            assert_eq!(check(&raw), expected);
        }
    }
}
