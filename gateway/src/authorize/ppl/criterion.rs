//! Criteria by name.

use super::{PolicyProblem, Reader, Vocabulary};
use crate::{
    authorize::{
        criterion::{ClaimPath, Criterion},
        matcher::{IpMatcher, parse_network},
    },
    yaml::{Entry, Node, Value},
};

/// What can be written, for the nearest word.
const KNOWN: &[&str] = &[
    "accept",
    "authenticated_user",
    "claim",
    "cors_preflight",
    "domain",
    "email",
    "groups",
    "http_method",
    "http_path",
    "reject",
    "source_ip",
    "user",
];

/// Criteria of the language that nothing here evaluates.
const NOT_BUILT: &[&str] = &[
    "client_certificate",
    "date",
    "day_of_week",
    "device",
    "invalid_client_certificate",
    "mcp_tool",
    "pomerium_routes",
    "record",
    "ssh_ca",
    "ssh_publickey",
    "ssh_username",
    "ssh_username_matches_claim",
    "ssh_username_matches_email",
    "time_of_day",
];

impl Reader {
    pub(super) fn named_criterion(&mut self, entry: &Entry) -> Option<Criterion> {
        let (name, path) = match entry.key.split_once('/') {
            Some((name, path)) => (name, Some(path)),
            None => (entry.key.as_str(), None),
        };
        if let Some(criterion) = NOT_BUILT.iter().copied().find(|known| *known == name) {
            self.fail(entry.at, PolicyProblem::NotBuilt { criterion });
            return None;
        }
        let Some(known) = KNOWN.iter().copied().find(|known| *known == name) else {
            self.fail(entry.at, PolicyProblem::unknown(Vocabulary::Criterion, name, KNOWN));
            return None;
        };
        if path.is_some() && known != "claim" {
            self.fail(entry.at, PolicyProblem::UnexpectedPath { criterion: known });
            return None;
        }
        let value = &entry.value;
        match known {
            "accept" => self.flag(known, value).then_some(Criterion::Accept),
            "reject" => self.flag(known, value).then_some(Criterion::Reject),
            "authenticated_user" => self.flag(known, value).then_some(Criterion::AuthenticatedUser),
            "cors_preflight" => self.flag(known, value).then_some(Criterion::CorsPreflight),
            "email" => self.string_matcher(value).map(Criterion::Email),
            "domain" => self.string_matcher(value).map(Criterion::Domain),
            "user" => self.string_matcher(value).map(Criterion::User),
            "http_method" => self.string_matcher(value).map(Criterion::HttpMethod),
            "http_path" => self.string_matcher(value).map(Criterion::HttpPath),
            "groups" => self.text_list_matcher(value).map(Criterion::Groups),
            "source_ip" => self.networks(value).map(Criterion::SourceIp),
            _ => self.claim(entry, path),
        }
    }

    /// The value says nothing, but one that says "no" was meant to say something.
    fn flag(&mut self, criterion: &'static str, value: &Node) -> bool {
        if value.value == Value::Bool(false) {
            self.fail(value.at, PolicyProblem::FalseFlag { criterion });
            return false;
        }
        true
    }

    fn claim(&mut self, entry: &Entry, path: Option<&str>) -> Option<Criterion> {
        let Some(path) = path.filter(|path| !path.is_empty()) else {
            self.fail(entry.at, PolicyProblem::ClaimWithoutPath);
            return None;
        };
        let matcher = self.list_matcher(&entry.value)?;
        Some(Criterion::Claim(ClaimPath::new(path), matcher))
    }

    fn networks(&mut self, node: &Node) -> Option<IpMatcher> {
        let items = match &node.value {
            Value::List(items) if items.is_empty() => {
                self.fail(node.at, PolicyProblem::EmptyList);
                return None;
            }
            Value::List(items) => self.within(node, items),
            _ => std::slice::from_ref(node),
        };
        let networks: Vec<_> = items.iter().filter_map(|item| self.network(item)).collect();
        (!networks.is_empty()).then_some(IpMatcher { networks })
    }

    fn network(&mut self, node: &Node) -> Option<ipnet::IpNet> {
        let text = self.text(node)?;
        let network = parse_network(text);
        if network.is_none() {
            self.fail(node.at, PolicyProblem::bad_network(text));
        }
        network
    }
}
