//! A signature of ECDSA in DER, as KMS answers with it: `ECDSA-Sig-Value` of RFC 3279, section
//! 2.2.3, a sequence of two positive integers. Formats with a form of their own take the numbers.

use super::der::{self, NotDer, Reader, SEQUENCE};
use super::number::without_zeros;

/// The two numbers, big-endian and without leading zeros. `None`: it is not exactly the one DER
/// form of two positive numbers.
pub fn numbers(signature: &[u8]) -> Option<(&[u8], &[u8])> {
    read(signature).ok()
}

fn read(signature: &[u8]) -> Result<(&[u8], &[u8]), NotDer> {
    let mut whole = Reader::new(signature);
    let mut numbers = whole.sequence()?;
    let (r, s) = (numbers.positive()?, numbers.positive()?);
    numbers.end()?;
    whole.end()?;
    Ok((r, s))
}

/// The same the other way round: two positive numbers, big-endian, as DER.
pub fn to_der(r: &[u8], s: &[u8]) -> Vec<u8> {
    let [r, s] = [r, s].map(|number| der::positive(without_zeros(number)));
    der::value(SEQUENCE, &[&r, &s])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn two_numbers_have_one_form(
            r in prop::collection::vec(any::<u8>(), 1..67), s in prop::collection::vec(any::<u8>(), 1..67)
        ) {
            prop_assume!(r.iter().any(|b| *b != 0) && s.iter().any(|b| *b != 0));
            let der = to_der(&r, &s);
            let (read_r, read_s) = numbers(&der).unwrap();
            prop_assert_eq!(to_der(read_r, read_s), der.clone());
            prop_assert!(r.ends_with(read_r) && s.ends_with(read_s));
            for wrong in [[der.as_slice(), &[0]].concat(), der[..der.len() - 1].to_vec()] {
                prop_assert_eq!(numbers(&wrong), None);
            }
        }
    }

    #[test]
    fn other_forms_are_no_signature() {
        assert_eq!(numbers(&[0x30, 6, 2, 1, 1, 2, 1, 1]), Some((&[1][..], &[1][..])));
        for (wrong, why) in [
            (&[0x30, 6, 2, 1, 0, 2, 1, 1][..], "zero"),
            (&[0x30, 6, 2, 1, 0x81, 2, 1, 1], "negative"),
            (&[0x30, 7, 2, 2, 0, 1, 2, 1, 1], "padded"),
            (&[0x30, 0x81, 6, 2, 1, 1, 2, 1, 1], "a longer header"),
            (&[0x30, 7, 2, 1, 1, 2, 1, 1, 0], "more in it"),
            (&[0x31, 6, 2, 1, 1, 2, 1, 1], "another tag"),
            (&[0x30, 3, 2, 1, 1], "one number"),
            (&[], "nothing"),
        ] {
            assert_eq!(numbers(wrong), None, "{why}");
        }
    }
}
