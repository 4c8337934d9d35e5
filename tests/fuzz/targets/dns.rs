//! Questions to the DNS server inside a tunnel.
#![no_main]

use pomerium_shared::names::{AddressBook, Pools, dns};

libfuzzer_sys::fuzz_target!(|query: &[u8]| {
    let mut book = AddressBook::new(Pools::default(), &[]);
    if let Ok(host) = "db.corp.example".parse() {
        assert!(book.allocate(&host).is_ok());
    }
    if let Some(answer) = dns::answer(query, &book) {
        assert!((12..=512).contains(&answer.len()), "an answer of {} octets", answer.len());
        assert_eq!(answer[..2], query[..2]);
        assert!(answer[2] & 0x80 != 0, "an answer that is a question");
    }
});
