//! Client certificates and SSH keys as they are written.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::Reader;
use crate::{
    authorize::{
        certificate::{CertificateMatcher, NameKind},
        ssh::SshKey,
    },
    yaml::Node,
};

const FINGERPRINT: &str = "the SHA-256 of a certificate: 64 lower-case hexadecimal digits, or 32 upper-case pairs with colons between";
const KEY_HASH: &str = "the SHA-256 of a public key in Base64";
const SSH_KEY: &str = "a public key of SSH, such as `ssh-ed25519 AAAA...`";

impl Reader {
    /// A mapping, or a list of them of which any may match.
    pub(super) fn client_certificates(&mut self, node: &Node) -> Option<Vec<CertificateMatcher>> {
        let items = self.one_or_more(node)?;
        let matchers: Vec<_> = items.iter().filter_map(|item| self.client_certificate(item)).collect();
        (!matchers.is_empty()).then_some(matchers)
    }

    fn client_certificate(&mut self, node: &Node) -> Option<CertificateMatcher> {
        let keys = &["fingerprint", "spki_hash", "san_dns", "san_email", "san_uri"];
        let [fingerprint, key_hash, dns, email, uri] =
            self.fields(node, keys, "a mapping such as `fingerprint: TEXT`")?;
        let mut matcher = CertificateMatcher::default();
        if let Some(node) = fingerprint {
            matcher.fingerprints = self.all_parsed(node, FINGERPRINT, parse_fingerprint)?;
        }
        if let Some(node) = key_hash {
            matcher.key_hashes = self.all_parsed(node, KEY_HASH, parse_key_hash)?;
        }
        for (kind, node) in [(NameKind::Dns, dns), (NameKind::Email, email), (NameKind::Uri, uri)] {
            if let Some(node) = node {
                matcher.names.push((kind, self.string_matcher(node)?));
            }
        }
        Some(matcher)
    }

    pub(super) fn ssh_keys(&mut self, node: &Node) -> Option<Vec<SshKey>> {
        self.all_parsed(node, SSH_KEY, SshKey::parse)
    }

    /// One text or a list of them.
    fn all_parsed<T>(
        &mut self,
        node: &Node,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.one_or_more(node)?.iter().map(|item| self.parsed(item, expected, &parse)).collect()
    }
}

fn parse_fingerprint(text: &str) -> Option<[u8; 32]> {
    let has_colons = text.contains(':');
    let pairs: Vec<&str> = if has_colons {
        text.split(':').collect()
    } else {
        text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or_default()).collect()
    };
    let is_digit = |byte: u8| match byte {
        b'0'..=b'9' => true,
        b'a'..=b'f' => !has_colons,
        b'A'..=b'F' => has_colons,
        _ => false,
    };
    let byte = |pair: &&str| {
        let is_pair = pair.len() == 2 && pair.bytes().all(is_digit);
        is_pair.then(|| u8::from_str_radix(pair, 16).ok())?
    };
    let bytes: Vec<u8> = pairs.iter().map(byte).collect::<Option<_>>()?;
    bytes.try_into().ok()
}

fn parse_key_hash(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}
