//! Criteria about where a request comes from, as they are written.

use super::{PolicyProblem, Reader};
use crate::{
    authorize::matcher::{AsnMatcher, IpMatcher, StringMatcher, parse_network},
    yaml::{Node, Value},
};

const COUNTRY: &str = "a country by its two letters (ISO 3166-1), such as CH";
const ASN: &str = "the number of an autonomous system, such as 64500";

impl Reader {
    pub(super) fn networks(&mut self, node: &Node) -> Option<IpMatcher> {
        let networks: Vec<_> = self.one_or_more(node)?.iter().filter_map(|item| self.network(item)).collect();
        (!networks.is_empty()).then_some(IpMatcher { networks })
    }

    fn network(&mut self, node: &Node) -> Option<ipnet::IpNet> {
        self.parsed(node, "an IP address or network, such as 192.0.2.7 or 10.0.0.0/8", parse_network)
    }

    /// A string matcher whose words are countries.
    pub(super) fn country(&mut self, node: &Node) -> Option<StringMatcher> {
        let matcher = self.string_matcher(node)?;
        let is_country = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase());
        if let Some(text) = matcher.whole_texts().find(|text| !is_country(text)) {
            self.fail(node.at, PolicyProblem::malformed(text, COUNTRY));
            return None;
        }
        Some(matcher)
    }

    /// A number or a list of them, or `{in}` or `{not_in}` with either.
    pub(super) fn asn(&mut self, node: &Node) -> Option<AsnMatcher> {
        let (node, is_one_of) = match &node.value {
            Value::Map(_) => match self.fields(node, &["in", "not_in"], ASN)? {
                [Some(wanted), None] => (wanted, true),
                [None, Some(unwanted)] => (unwanted, false),
                _ => {
                    self.expected(node, "either `in` or `not_in`");
                    return None;
                }
            },
            _ => (node, true),
        };
        let items = self.one_or_more(node)?;
        let mut numbers: Vec<u32> = items.iter().filter_map(|item| self.autonomous_system(item)).collect();
        numbers.sort_unstable();
        (!numbers.is_empty()).then_some(AsnMatcher { numbers, is_one_of })
    }

    fn autonomous_system(&mut self, node: &Node) -> Option<u32> {
        let number = match node.value {
            Value::Integer(number) => u32::try_from(number).ok(),
            _ => None,
        };
        if number.is_none() {
            self.expected(node, ASN);
        }
        number
    }
}
