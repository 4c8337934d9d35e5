//! The file name of a gateway's token.

use hmac::{Hmac, Mac};
use sha2::Sha512_256;

/// Base 36 of HMAC-SHA-512/256, keyed with `LocalJWTCache`, over the gateway's cache key.
pub(super) fn of(cache_key: &str) -> String {
    let mut mac =
        Hmac::<Sha512_256>::new_from_slice(b"LocalJWTCache").expect("HMAC takes a key of any length");
    mac.update(cache_key.as_bytes());
    base36(&mac.finalize().into_bytes())
}

/// The big-endian number of the bytes in base 36, upper case, without leading zeros.
fn base36(bytes: &[u8]) -> String {
    let mut number: Vec<u8> = bytes.to_vec();
    let mut digits = Vec::new();
    while number.iter().any(|byte| *byte != 0) {
        let mut remainder = 0_u32;
        for byte in &mut number {
            let value = remainder * 256 + u32::from(*byte);
            *byte = u8::try_from(value / 36).expect("a remainder below 36 keeps the quotient below 256");
            remainder = value % 36;
        }
        let digit = char::from_digit(remainder, 36).expect("a remainder of 36 is a digit");
        digits.push(digit.to_ascii_uppercase());
    }
    if digits.is_empty() {
        digits.push('0');
    }
    digits.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_numbers_have_their_digits() {
        assert_eq!(base36(&[]), "0");
        assert_eq!(base36(&[0, 0]), "0");
        assert_eq!(base36(&[35]), "Z");
        assert_eq!(base36(&[36]), "10");
        assert_eq!(base36(&[0x12, 0x34, 0x56]), "PKK6");
    }

    proptest! {
        #[test]
        fn digits_count_as_the_number_does(number: u64) {
            let digits = base36(&number.to_be_bytes());
            prop_assert_eq!(u64::from_str_radix(&digits, 36), Ok(number));
        }

        #[test]
        fn names_are_plain_and_differ_by_gateway(a in "[a-z.:0-9]{1,30}", b in "[a-z.:0-9]{1,30}") {
            prop_assert!(of(&a).bytes().all(|byte| byte.is_ascii_alphanumeric()));
            prop_assert_eq!(a == b, of(&a) == of(&b));
        }
    }
}
