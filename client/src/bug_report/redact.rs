//! Takes out of a text what is personal or secret: tokens and keys, people, hosts, public addresses, and the folder of the person.
//! Pure.
//!
//! What was the same stays the same (`[host-1]`), so that a fault can still be followed. In doubt a word goes: a report that says
//! too little can be asked about, one that said too much cannot be taken back.

use std::{collections::HashMap, net::IpAddr};

/// A run of letters and digits of this length is a key, a signature or a thumbprint.
const SECRET_LEN: usize = 32;
/// What ends the names of files and of our own modules, and no host's.
const FILE_ENDS: [&str; 14] = [
    "sock", "yaml", "yml", "conf", "rs", "json", "service", "socket", "log", "txt", "pem", "jwt", "lock",
    "gz",
];

/// Redacts the parts of one report: the same word gets the same name in all of them.
#[derive(Debug, Default)]
pub(crate) struct Redactor {
    home: String,
    user: String,
    names: HashMap<String, String>,
    counts: HashMap<&'static str, usize>,
}

impl Redactor {
    /// For somebody with this home folder and user name; either may be empty.
    pub(crate) fn of(home: &str, user: &str) -> Self {
        Self { home: home.trim_end_matches('/').to_owned(), user: user.to_owned(), ..Self::default() }
    }

    /// Somebody whose name may be any word.
    pub(crate) fn hide_person(&mut self, name: &str) {
        if !name.is_empty() {
            self.name("person", name);
        }
    }

    /// The text without what is personal or secret.
    pub(crate) fn text(&mut self, text: &str) -> String {
        let text = if self.home.len() > 1 { text.replace(&self.home, "~") } else { text.to_owned() };
        let mut out = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(begin) = rest.find(is_word) {
            let (before, from) = rest.split_at(begin);
            // A query of a URL may hold anything.
            out.push_str(before);
            let end = from.find(|c| !is_word(c)).unwrap_or(from.len());
            let (word, after) = from.split_at(end);
            if before.ends_with('?') && word.contains('=') {
                out.push_str("[query]");
                let end = after
                    .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>'))
                    .unwrap_or(after.len());
                rest = &after[end..];
                continue;
            }
            out.push_str(&self.word(word));
            rest = after;
        }
        out.push_str(rest);
        out
    }

    fn word(&mut self, word: &str) -> String {
        if let Ok(address) = word.parse::<IpAddr>() {
            return self.address(address, word);
        }
        if let Some((left, right)) = word.split_once(['=', ':']) {
            let middle = &word[left.len()..word.len() - right.len()];
            return format!("{}{middle}{}", self.word(left), self.word(right));
        }
        // The mark at the end of a sentence is no part of a name.
        let bare = word.trim_end_matches('.');
        let end = &word[bare.len()..];
        let told = if let Some(name) = self.names.get(&bare.to_lowercase()) {
            name.clone()
        } else if bare.contains('@') {
            self.name("person", bare)
        } else if is_secret(bare) {
            "[secret]".to_owned()
        } else if is_host(bare) {
            self.name("host", bare)
        } else if !self.user.is_empty() && bare == self.user {
            "[user]".to_owned()
        } else {
            bare.to_owned()
        };
        format!("{told}{end}")
    }

    fn address(&mut self, address: IpAddr, word: &str) -> String {
        let is_telling = match address {
            IpAddr::V4(ip) => {
                !(ip.is_loopback() || ip.is_unspecified() || ip.is_private() || ip.is_link_local())
            }
            IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unspecified()),
        };
        if is_telling { self.name("address", word) } else { word.to_owned() }
    }

    fn name(&mut self, kind: &'static str, word: &str) -> String {
        let key = word.to_lowercase();
        if let Some(name) = self.names.get(&key) {
            return name.clone();
        }
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        let name = format!("[{kind}-{count}]");
        self.names.insert(key, name.clone());
        name
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '@' | '+' | '=' | ':' | '%')
}

fn is_secret(word: &str) -> bool {
    let is_jwt = word.starts_with("eyJ") || word.starts_with("Pomerium-");
    // An id of a request is what an administrator is asked about.
    let is_id = word.len() == 36 && word.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let longest = word.split(['.', '/']).map(str::len).max().unwrap_or(0);
    // Words that people wrote have no digits in them, or no letters.
    let is_mixed = word.bytes().any(|b| b.is_ascii_digit()) && word.bytes().any(|b| b.is_ascii_alphabetic());
    (is_jwt && word.len() > 20) || (longest >= SECRET_LEN && is_mixed && !is_id)
}

fn is_host(word: &str) -> bool {
    let Some((_, last)) = word.rsplit_once('.') else { return false };
    let is_name = word.split('.').all(|label| {
        !label.is_empty() && label.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
    });
    is_name && last.chars().count() > 1 && last.starts_with(char::is_alphabetic) && !FILE_ENDS.contains(&last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn redacted(text: &str) -> String {
        Redactor::of("/home/alice", "alice").text(text)
    }

    #[test]
    fn what_names_or_opens_something_goes_and_the_rest_stays() {
        for (text, left) in [
            ("signed in as alice@corp.example.", "signed in as [person-1]."),
            ("gateway=https://gate.corp.example:8443/x", "gateway=https://[host-1]:8443/x"),
            ("db.corp.example:5432 and DB.corp.example:22", "[host-1]:5432 and [host-1]:22"),
            (
                "Authorization: Pomerium eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl",
                "Authorization: Pomerium [secret]",
            ),
            ("token=Pomerium-eyJhbGciOiJIUzI1NiJ9.e30.c2ln", "token=[secret]"),
            ("device dYrV0i51X7VAWMBMxPh4pbtfvLt8R0ojsNi0p6gsdmA", "device [secret]"),
            (
                "request-id 258d9534-a4cb-48cd-b329-441ee890d0ea",
                "request-id 258d9534-a4cb-48cd-b329-441ee890d0ea",
            ),
            (
                "peer=203.0.113.7:443 via 10.0.0.1, 127.0.0.53",
                "peer=[address-1]:443 via 10.0.0.1, 127.0.0.53",
            ),
            ("[2001:db8::1]:443 and ::1", "[[address-1]]:443 and ::1"),
            ("/home/alice/.config/pomerium/forwards.yaml", "~/.config/pomerium/forwards.yaml"),
            ("open https://a.example/x?state=abc&code=def now", "open https://[host-1]/x?[query] now"),
            (
                "user alice, version 0.1.0, pomerium_cli::daemon",
                "user [user], version 0.1.0, pomerium_cli::daemon",
            ),
            (
                "2026-11-27T21:26:38.078036Z  INFO took 12.5 ms",
                "2026-11-27T21:26:38.078036Z  INFO took 12.5 ms",
            ),
        ] {
            assert_eq!(redacted(text), left);
        }
    }

    #[test]
    fn the_same_word_has_the_same_name_in_each_part() {
        let mut redactor = Redactor::default();
        assert_eq!(redactor.text("a.example b.example"), "[host-1] [host-2]");
        assert_eq!(redactor.text("b.example"), "[host-2]");
        redactor.hide_person("bob");
        assert_eq!(redactor.text("as Bob: bobsled"), "as [person-1]: bobsled");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _any = redacted(&text);
        }

        #[test]
        fn no_token_and_no_person_survives(
            before in "[ -~]{0,30}", token in "eyJ[A-Za-z0-9_-]{20,60}", person in "[a-z]{1,8}@[a-z]{1,8}\\.example", after in "[ -~]{0,30}",
        ) {
            let told = redacted(&format!("{before} {token} {person} {after}"));
            prop_assert!(!told.contains(&token) && !told.contains(&person), "{}", told);
        }
    }
}
