//! Addresses are nobody else's and stay; questions get what the table in `dns` says.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::{AddressBook, Addresses, AllocateError, Host, Pools, RestoreError, dns};

fn host(name: &str) -> Host {
    name.parse().unwrap()
}

fn book(names: &[&str]) -> AddressBook {
    let mut book = AddressBook::new(Pools::default(), &["100.64.0.1".parse().unwrap()]);
    for name in names {
        book.allocate(&host(name)).unwrap();
    }
    book
}

fn tiny() -> Pools {
    Pools::new("100.64.0.0/29".parse().unwrap(), "fd00::/112".parse().unwrap()).unwrap()
}

#[test]
fn what_is_no_host_is_refused() {
    for text in [
        "",
        ".",
        "a..b",
        "a b",
        "*.corp.example",
        "10.0.0.1",
        "ä.example",
        &"a".repeat(64),
        &"a.".repeat(127),
    ] {
        let is_long_but_good = text.len() == 254;
        assert_eq!(text.parse::<Host>().is_ok(), is_long_but_good, "{text:?}");
    }
    assert_eq!(host("DB.Corp.Example."), host("db.corp.example"));
}

#[test]
fn a_small_pool_is_used_up_without_its_ends_and_reserved_addresses() {
    let own: IpAddr = "100.64.0.1".parse().unwrap();
    let mut book = AddressBook::new(tiny(), &[own]);
    let mut given: Vec<u8> =
        (0..5).map(|n| book.allocate(&host(&format!("h{n}.example"))).unwrap().v4.octets()[3]).collect();
    given.sort_unstable();
    assert_eq!(given, [2, 3, 4, 5, 6]);
    assert_eq!(book.allocate(&host("h5.example")), Err(AllocateError::Exhausted));
    book.release(&host("h3.example"));
    assert!(book.allocate(&host("h5.example")).is_ok());
}

#[test]
fn kept_entries_come_back_unless_they_cannot() {
    let before = book(&["a.example", "b.example"]);
    let mut after = AddressBook::new(Pools::default(), &[]);
    for (host, addresses) in before.entries() {
        after.restore(host, addresses).unwrap();
    }
    let a = before.addresses_of(&host("a.example")).unwrap();
    assert_eq!(after.allocate(&host("a.example")), Ok(a));
    assert_eq!(after.restore(&host("c.example"), a), Err(RestoreError::Taken));
    assert_eq!(
        after.restore(&host("a.example"), Addresses { v4: Ipv4Addr::new(100, 64, 9, 9), ..a }),
        Err(RestoreError::Taken)
    );
    let outside = Addresses { v4: Ipv4Addr::new(10, 0, 0, 1), ..a };
    assert_eq!(after.restore(&host("c.example"), outside), Err(RestoreError::NotAllocatable));
    let network = Addresses { v4: Ipv4Addr::new(100, 64, 0, 0), ..a };
    assert_eq!(after.restore(&host("c.example"), network), Err(RestoreError::NotAllocatable));
}

#[test]
fn an_address_follows_from_the_name_in_every_version() {
    // Who changes this changes everybody's saved addresses where no store kept them.
    let addresses = book(&["db.corp.example"]).addresses_of(&host("db.corp.example")).unwrap();
    assert_eq!(addresses.v4.to_string(), "100.107.191.246");
    assert_eq!(addresses.v6.to_string(), "fd5a:1f3c:8b0e:0:68b7:9f4c:392b:bff6");
}

fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut query = vec![0xab, 0xcd, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend_from_slice(label.as_bytes());
    }
    query.push(0);
    query.extend_from_slice(&kind.to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    query
}

/// The response code, and the data of the answer.
fn asked(book: &AddressBook, query: &[u8]) -> (u8, Option<Vec<u8>>) {
    let answer = dns::answer(query, book).expect("an answer");
    assert_eq!(answer[..2], query[..2], "the identifier");
    assert_eq!(answer[2] & 0x80, 0x80, "a response");
    let has_question = answer[5] == 1;
    if has_question {
        assert_eq!(answer[12..query.len()], query[12..], "the question, as it came");
    }
    let data = (answer[7] == 1).then(|| {
        let record = &answer[query.len()..];
        assert_eq!(record[..2], [0xc0, 12]);
        assert_eq!(usize::from(u16::from_be_bytes([record[10], record[11]])), record.len() - 12);
        record[12..].to_vec()
    });
    (answer[3] & 0x0f, data)
}

#[test]
fn questions_get_their_answers() {
    let book = book(&["db.corp.example"]);
    let addresses = book.addresses_of(&host("db.corp.example")).unwrap();
    assert_eq!(asked(&book, &query("dB.cOrp.eXample", 1)), (0, Some(addresses.v4.octets().to_vec())));
    assert_eq!(asked(&book, &query("db.corp.example", 28)), (0, Some(addresses.v6.octets().to_vec())));
    for kind in [2, 6, 15, 16, 33, 64, 65, 255] {
        assert_eq!(asked(&book, &query("db.corp.example", kind)), (0, None), "type {kind}");
    }
    for name in ["", "example", "corp.example", "x.db.corp.example", "db.corp.example.evil.test"] {
        assert_eq!(asked(&book, &query(name, 1)), (5, None), "{name}");
    }
    let mut chaos = query("db.corp.example", 1);
    *chaos.last_mut().unwrap() = 3;
    assert_eq!(asked(&book, &chaos), (5, None));
}

#[test]
fn addresses_are_known_by_their_host() {
    let book = book(&["db.corp.example"]);
    let addresses = book.addresses_of(&host("db.corp.example")).unwrap();
    let wire = b"\x02db\x04corp\x07example\x00".to_vec();
    let [a, b, c, d] = addresses.v4.octets();
    assert_eq!(asked(&book, &query(&format!("{d}.{c}.{b}.{a}.in-addr.arpa"), 12)), (0, Some(wire.clone())));
    assert_eq!(asked(&book, &query(&format!("{d}.{c}.{b}.{a}.IN-ADDR.ARPA"), 1)), (0, None));
    let digits: Vec<String> =
        format!("{:032x}", addresses.v6.to_bits()).chars().rev().map(String::from).collect();
    assert_eq!(asked(&book, &query(&format!("{}.ip6.arpa", digits.join(".")), 12)), (0, Some(wire)));
    assert_eq!(asked(&book, &query("1.0.64.100.in-addr.arpa", 12)), (3, None), "ours, and nobody's");
    for name in [
        "8.8.8.8.in-addr.arpa",
        "64.100.in-addr.arpa",
        "1.1.0.64.100.in-addr.arpa",
        "01.0.64.100.in-addr.arpa",
    ] {
        assert_eq!(asked(&book, &query(name, 12)), (5, None), "{name}");
    }
}

#[test]
fn what_is_no_question_gets_an_error_or_silence() {
    let book = book(&["db.corp.example"]);
    let good = query("db.corp.example", 1);
    for len in 0..12 {
        assert_eq!(dns::answer(&good[..len], &book), None);
    }
    for len in 12..good.len() {
        assert_eq!(asked(&book, &good[..len]), (1, None), "{len} octets");
    }
    let mut response = good.clone();
    response[2] |= 0x80;
    assert_eq!(dns::answer(&response, &book), None, "two servers would talk for ever");
    let mut long = good.clone();
    long.resize(1233, 0);
    assert_eq!(dns::answer(&long, &book), None);
    let mut update = good.clone();
    update[2] = 5 << 3;
    assert_eq!(asked(&book, &update), (4, None));
    let mut two = good.clone();
    two[5] = 2;
    assert_eq!(asked(&book, &two), (1, None));
    let mut pointer = good;
    pointer[12] = 0xc0;
    assert_eq!(asked(&book, &pointer), (1, None));
}

proptest! {
    #[test]
    fn nobody_shares_an_address(names in prop::collection::btree_set("[a-z]{1,3}\\.[a-z]{1,2}", 1..200)) {
        let mut book = book(&[]);
        let mut seen = std::collections::HashSet::new();
        for name in &names {
            let addresses = book.allocate(&host(name)).unwrap();
            prop_assert!(seen.insert(IpAddr::from(addresses.v4)) && seen.insert(addresses.v6.into()));
            prop_assert!(book.pools().contains(addresses.v4.into()) && book.pools().contains(addresses.v6.into()));
        }
        for name in &names {
            let addresses = book.addresses_of(&host(name)).unwrap();
            prop_assert_eq!(book.host_of(addresses.v4.into()), Some(&host(name)));
            prop_assert_eq!(book.host_of(addresses.v6.into()), Some(&host(name)));
        }
    }

    #[test]
    fn any_octets_get_a_short_answer_or_none(mut query in prop::collection::vec(any::<u8>(), 0..600), is_plain: bool) {
        if is_plain && query.len() >= 12 {
            query[2..12].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        }
        if let Some(answer) = dns::answer(&query, &book(&["db.corp.example"])) {
            prop_assert!(answer.len() <= 512 && answer.len() >= 12);
            prop_assert_eq!(&answer[..2], &query[..2]);
        }
    }
}
