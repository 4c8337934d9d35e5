//! Criteria by name.

use super::{PolicyProblem, Reader, Vocabulary, device::filled};
use crate::{
    authorize::{
        criterion::{ClaimPath, Criterion},
        posture::PostureTest,
        ssh::SshTest,
    },
    yaml::{Entry, Node, Value},
};

/// The names of all criteria, in alphabetical order; `claim` takes a path after a slash.
pub const CRITERIA: &[&str] = &[
    "accept",
    "auth/method",
    "authenticated_user",
    "claim",
    "client_certificate",
    "cors_preflight",
    "date",
    "day_of_week",
    "device",
    "domain",
    "email",
    "groups",
    "http_method",
    "http_path",
    "invalid_client_certificate",
    "mcp_tool",
    "network/asn",
    "network/country",
    "pomerium_routes",
    "posture/age",
    "posture/disk_encryption",
    "posture/firewall",
    "posture/os",
    "posture/os_version",
    "posture/screen_lock",
    "record",
    "reject",
    "session/age",
    "session/bound",
    "source_ip",
    "ssh_ca",
    "ssh_publickey",
    "ssh_username",
    "ssh_username_matches_claim",
    "ssh_username_matches_email",
    "time_of_day",
    "user",
];

impl Reader {
    pub(super) fn named_criterion(&mut self, entry: &Entry) -> Option<Criterion> {
        let known = |name: &str| CRITERIA.iter().copied().find(|known| *known == name);
        let value = &entry.value;
        match known(&entry.key) {
            Some("claim") => self.claim(entry, ""),
            Some(name) => {
                self.flag_criterion(name, value).unwrap_or_else(|| self.valued_criterion(name, value))
            }
            None => {
                let (name, path) = entry.key.split_once('/').unwrap_or((&entry.key, ""));
                match known(name) {
                    Some("claim") => return self.claim(entry, path),
                    Some(criterion) => self.fail(entry.at, PolicyProblem::UnexpectedPath { criterion }),
                    None => {
                        let problem = PolicyProblem::unknown(Vocabulary::Criterion, &entry.key, CRITERIA);
                        self.fail(entry.at, problem);
                    }
                }
                None
            }
        }
    }

    /// A criterion whose value says nothing; the outer `None` means that it is none of those.
    #[expect(
        clippy::option_option,
        reason = "the outer says whether it is such a criterion, the inner whether it could be read"
    )]
    fn flag_criterion(&mut self, name: &'static str, value: &Node) -> Option<Option<Criterion>> {
        let criterion = match name {
            "accept" => Criterion::Accept,
            "reject" => Criterion::Reject,
            "authenticated_user" => Criterion::AuthenticatedUser,
            "cors_preflight" => Criterion::CorsPreflight,
            "pomerium_routes" => Criterion::PomeriumRoutes,
            "invalid_client_certificate" => Criterion::InvalidClientCertificate,
            "session/bound" => Criterion::SessionBound,
            "posture/disk_encryption" => Criterion::Posture(PostureTest::DiskEncryption),
            "posture/firewall" => Criterion::Posture(PostureTest::Firewall),
            "posture/screen_lock" => Criterion::Posture(PostureTest::ScreenLock),
            "ssh_username_matches_email" => Criterion::Ssh(SshTest::UsernameMatchesEmail),
            _ => return None,
        };
        // One that says "no" was meant to say something.
        if value.value == Value::Bool(false) {
            self.fail(value.at, PolicyProblem::FalseFlag { criterion: name });
            return Some(None);
        }
        Some(Some(criterion))
    }

    fn valued_criterion(&mut self, name: &'static str, value: &Node) -> Option<Criterion> {
        match name {
            "email" => self.string_matcher(value).map(Criterion::Email),
            "domain" => self.string_matcher(value).map(Criterion::Domain),
            "user" => self.string_matcher(value).map(Criterion::User),
            "http_method" => self.string_matcher(value).map(Criterion::HttpMethod),
            "http_path" => self.string_matcher(value).map(Criterion::HttpPath),
            "groups" => self.text_list_matcher(value).map(Criterion::Groups),
            "source_ip" => self.networks(value).map(Criterion::SourceIp),
            "network/country" => self.country(value).map(Criterion::Country),
            "network/asn" => self.asn(value).map(Criterion::Asn),
            "date" => self.date(value).map(Criterion::Clock),
            "day_of_week" => self.day_of_week(value).map(Criterion::Clock),
            "time_of_day" => self.time_of_day(value).map(Criterion::Clock),
            "session/age" => self.age(value).map(Criterion::SessionAge),
            "auth/method" => self.text_list_matcher(value).map(Criterion::AuthMethod),
            "device" => self.device(value).map(Criterion::Device),
            "posture/os" => self.operating_system(value).map(PostureTest::Os).map(Criterion::Posture),
            "posture/os_version" => self.version(value).map(PostureTest::OsVersion).map(Criterion::Posture),
            "posture/age" => self.age(value).map(PostureTest::Age).map(Criterion::Posture),
            "record" => self.record(value).map(Criterion::Record),
            "client_certificate" => self.client_certificates(value).map(Criterion::ClientCertificate),
            "mcp_tool" => self.string_matcher(value).map(Criterion::McpTool),
            "ssh_publickey" => self.ssh_keys(value).map(SshTest::PublicKey).map(Criterion::Ssh),
            "ssh_ca" => self.ssh_keys(value).map(SshTest::Ca).map(Criterion::Ssh),
            "ssh_username" => self.string_matcher(value).map(SshTest::Username).map(Criterion::Ssh),
            "ssh_username_matches_claim" => {
                let path = self.parsed(value, "a claim's name", filled)?;
                Some(Criterion::Ssh(SshTest::UsernameMatchesClaim(ClaimPath::new(&path))))
            }
            word => {
                self.fail(value.at, PolicyProblem::unknown(Vocabulary::Criterion, word, CRITERIA));
                None
            }
        }
    }

    fn claim(&mut self, entry: &Entry, path: &str) -> Option<Criterion> {
        if path.is_empty() {
            self.fail(entry.at, PolicyProblem::ClaimWithoutPath);
            return None;
        }
        let matcher = self.list_matcher(&entry.value)?;
        Some(Criterion::Claim(ClaimPath::new(path), matcher))
    }
}
