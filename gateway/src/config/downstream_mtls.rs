//! `downstream_mtls` and a route's `tls_downstream_client_ca`: who issues clients' certificates, and what becomes of a
//! client without a valid one.

use std::sync::Arc;

use super::{Enforcement, Route, Severity, section::Section};
use crate::{
    client_authority::{ClientAuthority, Constraints, NameKind, NameRule},
    yaml::Value,
};

const BLOCK: &str = "downstream_mtls";
const CA: &str = "ca";
const CRL: &str = "crl";
const DEPTH: &str = "max_verify_depth";
const NAMES: &str = "match_subject_alt_names";
const ENFORCEMENT: &str = "enforcement";
const ROUTE_CA: &str = "tls_downstream_client_ca";

pub(super) const KEYS: [&str; 7] = [CA, "ca_file", CRL, "crl_file", ENFORCEMENT, NAMES, DEPTH];

pub(super) const KINDS: [(&str, NameKind); 5] = [
    ("dns", NameKind::Dns),
    ("email", NameKind::Email),
    ("ip_address", NameKind::IpAddress),
    ("uri", NameKind::Uri),
    ("user_principal_name", NameKind::UserPrincipalName),
];

/// A certificate directly below an authority is good, and one with another authority in between is not.
const DEPTH_DEFAULT: usize = 1;

/// Authorities for clients' certificates, as routes need them.
pub(super) struct ClientAuthorities {
    pub(super) enforcement: Enforcement,
    /// That of routes that name none of their own.
    pub(super) general: RouteAuthority,
    /// What every certificate must be; `None` where files are not read, or something is wrong.
    constraints: Option<Constraints>,
}

/// The authority from which the clients of a route need a certificate.
#[derive(Clone, Default)]
pub(super) struct RouteAuthority {
    /// Whether one is named; it may not be read.
    pub(super) is_named: bool,
    pub(super) authority: Option<Arc<ClientAuthority>>,
}

impl ClientAuthorities {
    /// Reads the block and the files that it names.
    pub(super) fn read(top: &Section<'_>) -> Self {
        Self::of(top, true)
    }

    /// The same without the files: they need not be at hand to tell what a policy says.
    pub(super) fn without_files(top: &Section<'_>) -> Self {
        Self::of(top, false)
    }

    fn of(top: &Section<'_>, reads_files: bool) -> Self {
        let block = top.node(BLOCK).and_then(|node| Section::of(top.reading, BLOCK.to_owned(), node));
        let Some(block) = block else {
            let constraints = reads_files.then(|| Constraints::new(Vec::new(), Some(DEPTH_DEFAULT)));
            return Self {
                enforcement: Enforcement::default(),
                general: RouteAuthority::default(),
                constraints,
            };
        };
        block.allow_only(&KEYS);
        let constraints = if reads_files { constraints(&block) } else { None };
        let general = RouteAuthority::of(&block, CA, constraints.as_ref());
        Self { enforcement: enforcement(&block).unwrap_or_default(), general, constraints }
    }

    /// The authority of a route: its own, or the general one.
    pub(super) fn of_route(&self, route: &Section<'_>) -> RouteAuthority {
        let own = RouteAuthority::of(route, ROUTE_CA, self.constraints.as_ref());
        if own.is_named { own } else { self.general.clone() }
    }

    /// A block that asks something of certificates from nobody is a mistake that would let everybody in.
    pub(super) fn check_use(&self, top: &Section<'_>, routes: &[Arc<Route>]) {
        let is_used = self.general.is_named || routes.iter().any(|route| route.client_authority.is_some());
        if top.has(BLOCK) && !is_used {
            top.error(BLOCK, "names no authority for clients' certificates: set ca or ca_file in it");
        }
    }
}

impl RouteAuthority {
    fn of(section: &Section<'_>, key: &str, constraints: Option<&Constraints>) -> Self {
        let authority = constraints.and_then(|constraints| {
            ClientAuthority::new(&section.roots(key)?, constraints.clone())
                .map(Arc::new)
                .map_err(|error| section.error(&section.given(key), error.to_string()))
                .ok()
        });
        Self { is_named: is_named(section, key), authority }
    }
}

fn enforcement(block: &Section<'_>) -> Option<Enforcement> {
    let words = [
        ("policy", Enforcement::Policy),
        ("policy_with_default_deny", Enforcement::PolicyWithDefaultDeny),
        ("reject_connection", Enforcement::RejectConnection),
    ];
    block.one_of(ENFORCEMENT, &words)
}

/// What certificates must be, whoever issued them.
fn constraints(block: &Section<'_>) -> Option<Constraints> {
    let (names, depth) = (names(block), depth(block));
    let lists = if is_named(block, CRL) { block.revocation_lists(CRL) } else { Some(Vec::new()) };
    match Constraints::new(names?, depth?).revoke(&lists?) {
        Ok(constraints) => Some(constraints),
        Err(error) => {
            block.error(&block.given(CRL), error.to_string());
            None
        }
    }
}

/// `Some(None)`: no limit.
fn depth(block: &Section<'_>) -> Option<Option<usize>> {
    if !block.has(DEPTH) {
        return Some(Some(DEPTH_DEFAULT));
    }
    let depth = block.whole(DEPTH)?;
    let Some(depth) = u8::try_from(depth).ok() else {
        block.error(DEPTH, "expected how many authorities a chain may have, or 0 for any number");
        return None;
    };
    Some((depth > 0).then_some(usize::from(depth)))
}

/// A list of mappings, each of one kind of name to an expression.
fn names(block: &Section<'_>) -> Option<Vec<NameRule>> {
    let expected = "expected a list such as [{dns: '.*[.]corp[.]example'}]";
    let Some(node) = block.node(NAMES) else { return Some(Vec::new()) };
    let items = match &node.value {
        Value::List(items) if !items.is_empty() => items,
        _ => {
            block.error_at(node.at, NAMES, expected);
            return None;
        }
    };
    let rule = |(index, item)| {
        name_rule(&Section::of(block.reading, block.key(&format!("{NAMES}[{index}]")), item)?)
    };
    items.iter().enumerate().map(rule).collect()
}

fn name_rule(rule: &Section<'_>) -> Option<NameRule> {
    rule.allow_only(&KINDS.map(|(name, _)| name));
    let mut given = KINDS.iter().filter(|(name, _)| rule.node(name).is_some());
    let (Some((name, kind)), None) = (given.next(), given.next()) else {
        let message = format!("expected one of {}", KINDS.map(|(name, _)| name).join(", "));
        rule.reading.say(Severity::Error, Some(rule.at), rule.path.clone(), message);
        return None;
    };
    let refuse = |error| rule.error(name, format!("this is no valid expression: {error}"));
    NameRule::new(*kind, rule.text(name)?).map_err(refuse).ok()
}

fn is_named(section: &Section<'_>, key: &str) -> bool {
    section.has(key) || section.has(&format!("{key}_file"))
}
