//! A table of cases as YAML; every error points at the text.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use pomerium_shared::posture::PostureReport;
use serde_json::Value as Json;

use super::{Case, DevicePersona, Expect, Persona};
use crate::{
    authorize::Reason,
    config::{Diagnostic, Severity, nearest},
    device::DeviceKind,
    yaml::{self, Entry, Node, Position, Value},
};

const CASE_KEYS: &[&str] = &[
    "asn",
    "bound",
    "certificate",
    "claims",
    "country",
    "device",
    "email",
    "expect",
    "groups",
    "ip",
    "method",
    "name",
    "path",
    "posture",
    "posture_at",
    "reasons",
    "route",
    "signed_in_at",
    "time",
    "user",
];
const DEVICE_KEYS: &[&str] = &["approved", "id", "kind"];

/// Since 1970, the moment of a case that names none: 2026-01-01T12:00:00Z, a Thursday. The same every day, so that a case
/// that passes today passes on Sunday.
const TIME_DEFAULT: Duration = Duration::from_secs(1_767_268_800);

/// Reads a table of cases; `file` is what messages call it.
///
/// # Errors
/// Everything that is wrong with it, with places.
pub(crate) fn parse(text: &str, file: &str) -> Result<Vec<Case>, Vec<Diagnostic>> {
    let mut reader = Reader { file, said: Vec::new() };
    let mut cases = Vec::new();
    match yaml::parse(text) {
        Ok(Node { value: Value::List(items), .. }) if !items.is_empty() => {
            cases.extend(items.iter().filter_map(|item| reader.case(item)));
        }
        Ok(node) => reader.say(node.at, "", "expected a list of cases"),
        Err(error) => {
            let at = error.at().unwrap_or(Position { line: 1, column: 1 });
            reader.say(at, "", &error.to_string());
        }
    }
    if reader.said.is_empty() { Ok(cases) } else { Err(reader.said) }
}

struct Reader<'a> {
    file: &'a str,
    said: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn say(&mut self, at: Position, key: &str, message: &str) {
        self.said.push(Diagnostic {
            severity: Severity::Error,
            file: self.file.to_owned(),
            at: Some(at),
            key: key.to_owned(),
            message: message.to_owned(),
        });
    }

    fn case(&mut self, node: &Node) -> Option<Case> {
        let entries = self.entries(node, "", CASE_KEYS)?;
        let of = |name: &str| entries.iter().find(|entry| entry.key == name).map(|entry| &entry.value);
        for name in ["expect", "route"] {
            if of(name).is_none() {
                self.say(node.at, name, "is missing");
            }
        }
        let time = of("time").and_then(|node| self.time("time", node)).unwrap_or(UNIX_EPOCH + TIME_DEFAULT);
        let posture = of("posture").and_then(|node| self.posture(node));
        let posture_at = of("posture_at").and_then(|node| self.time("posture_at", node));
        let mut device = of("device").and_then(|node| self.device(node));
        if let Some(report) = posture {
            device.get_or_insert_default().posture = Some((report, posture_at));
        }
        let route = of("route").and_then(|node| self.text("route", node));
        let expect = of("expect").and_then(|node| self.expect(node));
        Some(Case {
            at: node.at,
            name: of("name").and_then(|node| self.text("name", node)).unwrap_or_else(|| "unnamed".to_owned()),
            persona: self.persona(&of),
            device,
            method: of("method").and_then(|node| self.text("method", node)),
            path: of("path").and_then(|node| self.text("path", node)),
            ip: of("ip").and_then(|node| self.ip(node)).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            time,
            country: of("country").and_then(|node| self.text("country", node)),
            asn: of("asn").and_then(|node| self.asn(node)),
            has_valid_certificate: of("certificate").and_then(|node| self.certificate(node)),
            reasons: of("reasons").map(|node| self.reasons(node)).unwrap_or_default(),
            route: route?,
            expect: expect?,
        })
    }

    fn persona<'a>(&mut self, of: &impl Fn(&str) -> Option<&'a Node>) -> Persona {
        let user = of("user").and_then(|node| self.text("user", node));
        let named = user.as_deref().map(Persona::named).unwrap_or_default();
        Persona {
            email: of("email").and_then(|node| self.text("email", node)).or(named.email),
            user: named.user,
            groups: of("groups").and_then(|node| self.texts("groups", node)),
            claims: of("claims").map(|node| self.claims(node)).unwrap_or_default(),
            signed_in_at: of("signed_in_at").and_then(|node| self.time("signed_in_at", node)),
            is_bound: of("bound").and_then(|node| self.flag("bound", node)),
        }
    }

    fn entries<'a>(&mut self, node: &'a Node, key: &str, known: &[&'static str]) -> Option<&'a [Entry]> {
        let Value::Map(entries) = &node.value else {
            let message = format!("expected a mapping of keys to values, found {}", node.value.kind());
            self.say(node.at, key, &message);
            return None;
        };
        for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let message = match nearest(&entry.key, known) {
                Some(near) => format!("unknown key; did you mean \"{near}\"?"),
                None => format!("unknown key; expected one of {}", known.join(", ")),
            };
            self.say(entry.at, &entry.key, &message);
        }
        Some(entries)
    }

    fn text(&mut self, key: &str, node: &Node) -> Option<String> {
        match &node.value {
            Value::String(text) if !text.is_empty() => return Some(text.clone()),
            Value::String(_) => self.say(node.at, key, "is empty"),
            other => self.say(node.at, key, &format!("expected a text, found {}", other.kind())),
        }
        None
    }

    fn texts(&mut self, key: &str, node: &Node) -> Option<Vec<String>> {
        match &node.value {
            Value::List(items) => items.iter().map(|item| self.text(key, item)).collect(),
            _ => self.text(key, node).map(|text| vec![text]),
        }
    }

    fn flag(&mut self, key: &str, node: &Node) -> Option<bool> {
        if let Value::Bool(flag) = node.value {
            return Some(flag);
        }
        self.say(node.at, key, &format!("expected true or false, found {}", node.value.kind()));
        None
    }

    fn time(&mut self, key: &str, node: &Node) -> Option<SystemTime> {
        let text = self.text(key, node)?;
        let time = text.parse::<jiff::Timestamp>().and_then(SystemTime::try_from).ok();
        if time.is_none() {
            self.say(node.at, key, "expected a time with its zone, like 2026-11-23T09:00:00Z");
        }
        time
    }

    fn ip(&mut self, node: &Node) -> Option<IpAddr> {
        let address = self.text("ip", node)?.parse().ok();
        if address.is_none() {
            self.say(node.at, "ip", "expected an address, like 192.0.2.7 or 2001:db8::7");
        }
        address
    }

    fn asn(&mut self, node: &Node) -> Option<u32> {
        let number = match node.value {
            Value::Integer(number) => u32::try_from(number).ok(),
            _ => None,
        };
        if number.is_none() {
            self.say(node.at, "asn", "expected the number of an autonomous system");
        }
        number
    }

    fn expect(&mut self, node: &Node) -> Option<Expect> {
        match self.text("expect", node)?.as_str() {
            "allow" => return Some(Expect::Allow),
            "deny" => return Some(Expect::Deny),
            "sign-in" => return Some(Expect::SignIn),
            _ => self.say(node.at, "expect", "expected allow, deny or sign-in"),
        }
        None
    }

    fn certificate(&mut self, node: &Node) -> Option<bool> {
        match self.text("certificate", node)?.as_str() {
            "valid" => return Some(true),
            "invalid" => return Some(false),
            _ => self.say(node.at, "certificate", "expected valid or invalid"),
        }
        None
    }

    fn reasons(&mut self, node: &Node) -> Vec<Reason> {
        let items =
            if let Value::List(items) = &node.value { items.as_slice() } else { std::slice::from_ref(node) };
        let codes: Vec<&'static str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        let mut reasons = Vec::new();
        for item in items {
            let Some(text) = self.text("reasons", item) else { continue };
            match Reason::ALL.iter().find(|reason| reason.as_str() == text) {
                Some(reason) => reasons.push(*reason),
                None => {
                    let near = codes
                        .iter()
                        .copied()
                        .min_by_key(|code| strsim::damerau_levenshtein(code, &text))
                        .unwrap_or_default();
                    self.say(item.at, "reasons", &format!("unknown reason code; did you mean \"{near}\"?"));
                }
            }
        }
        reasons
    }

    fn claims(&mut self, node: &Node) -> BTreeMap<String, Vec<Json>> {
        let Value::Map(entries) = &node.value else {
            self.say(node.at, "claims", "expected a mapping of claims to values");
            return BTreeMap::new();
        };
        let mut claims = BTreeMap::new();
        for entry in entries {
            let items = match &entry.value.value {
                Value::List(items) => items.as_slice(),
                _ => std::slice::from_ref(&entry.value),
            };
            if items.iter().any(|item| matches!(item.value, Value::Map(_) | Value::List(_) | Value::Null)) {
                let message = "expected a value or a list of values; write a nested claim as outer.inner";
                self.say(entry.value.at, &format!("claims.{}", entry.key), message);
                continue;
            }
            claims.insert(entry.key.clone(), items.iter().map(|item| json(&item.value)).collect());
        }
        claims
    }

    fn device(&mut self, node: &Node) -> Option<DevicePersona> {
        let mut device = DevicePersona::default();
        for entry in self.entries(node, "device", DEVICE_KEYS)? {
            match entry.key.as_str() {
                "approved" => device.is_approved = self.flag("device.approved", &entry.value)?,
                "id" => device.id = self.text("device.id", &entry.value)?,
                "kind" => {
                    let kind = serde_json::from_value::<DeviceKind>(json(&entry.value.value));
                    device.kind = kind
                        .map_err(|_| {
                            let message = "expected client_key, webauthn_any or webauthn_enclave";
                            self.say(entry.value.at, "device.kind", message);
                        })
                        .ok()?;
                }
                _ => {}
            }
        }
        Some(device)
    }

    fn posture(&mut self, node: &Node) -> Option<PostureReport> {
        let report = serde_json::from_value(json(&node.value));
        report.map_err(|error| self.say(node.at, "posture", &error.to_string())).ok()
    }
}

/// The same value as JSON. How deep it goes is bounded by the YAML reader.
fn json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(flag) => Json::from(*flag),
        Value::Integer(number) => Json::from(*number),
        Value::Float(number) => Json::from(*number),
        Value::String(text) => Json::from(text.as_str()),
        Value::List(items) => items.iter().map(|item| json(&item.value)).collect(),
        Value::Map(entries) => {
            entries.iter().map(|entry| (entry.key.clone(), json(&entry.value.value))).collect()
        }
    }
}
