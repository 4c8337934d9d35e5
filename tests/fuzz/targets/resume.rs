//! What the other end of a stream that can be resumed says: over a leg, in pieces of any length, and in the header.
#![no_main]

use pomerium_shared::resume::{Offer, Wish, fuzzing::hear};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((how, said)) = input.split_first() else { return };
    let is_later = how % 2 == 1;
    let came = hear(said, usize::from(how / 2), is_later);
    assert!(came <= said.len() as u64);
    let Ok(text) = std::str::from_utf8(said) else { return };
    if let Ok(wish) = text.parse::<Wish>() {
        assert_eq!(wish.to_string().parse(), Ok(wish));
    }
    if let Ok(offer) = text.parse::<Offer>() {
        assert_eq!(offer.to_string().parse(), Ok(offer));
    }
});
