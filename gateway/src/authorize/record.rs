//! External data: what an inventory, an on-call plan or a ticket system says of somebody or something.

use std::{cmp::Ordering, collections::BTreeMap, fmt, net::IpAddr};

use serde_json::Value as Json;

use super::{
    CheckRequest,
    matcher::{Element as _, Scalar, and_between, shortened},
};
use crate::yaml::{Node, Position, Value};

/// Records by type and id.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Records(BTreeMap<String, BTreeMap<String, Json>>);

/// Why a tree is no set of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found}")]
pub struct RecordsError {
    /// Where it is in the file.
    pub at: Position,
    expected: &'static str,
    found: &'static str,
}

impl Records {
    /// Reads `TYPE: {ID: {FIELD: VALUE}}`.
    ///
    /// # Errors
    /// The first value that is not of this shape.
    pub fn from_node(node: &Node) -> Result<Self, RecordsError> {
        let mut records = Self::default();
        for (kind, of_kind) in entries(node, "types of records, each with its records by id")? {
            let of_kind = entries(of_kind, "records by id")?
                .map(|(id, record)| {
                    entries(record, "a record: fields with values").map(|_| (id.to_owned(), json(record)))
                })
                .collect::<Result<_, _>>()?;
            records.0.insert(kind.to_owned(), of_kind);
        }
        Ok(records)
    }

    /// All records of one type; `None` when nobody provides that type.
    fn of_kind(&self, kind: &str) -> Option<&BTreeMap<String, Json>> {
        self.0.get(kind)
    }
}

fn entries<'a>(
    node: &'a Node,
    expected: &'static str,
) -> Result<impl Iterator<Item = (&'a str, &'a Node)>, RecordsError> {
    match &node.value {
        Value::Map(entries) => Ok(entries.iter().map(|entry| (entry.key.as_str(), &entry.value))),
        other => Err(RecordsError { at: node.at, expected, found: other.kind() }),
    }
}

fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::from(*value),
        Value::Integer(value) => Json::from(*value),
        Value::Float(value) => Json::from(*value),
        Value::String(text) => Json::from(text.as_str()),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => entries
            .iter()
            .map(|entry| (entry.key.clone(), json(&entry.value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

/// `record`: a question about a field of one record.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordMatcher {
    pub(super) kind: String,
    pub(super) key: RecordKey,
    pub(super) field: FieldPath,
    /// All must hold, and there is at least one.
    pub(super) tests: Vec<FieldTest>,
}

/// Which fact of the request is the record's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordKey {
    UserId,
    Email,
    SessionId,
    DeviceId,
    Host,
    SourceIp,
}

/// A field's name, or the way to it through nested fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FieldPath {
    pub(super) literal: String,
}

/// One test of a field.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum FieldTest {
    Is(Scalar),
    In(Vec<Scalar>),
    Exists(bool),
    Compares(Comparison, Scalar),
}

/// `<` and its kin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl RecordKey {
    /// The words of the language.
    pub(super) const WORDS: &'static [(&'static str, Self)] = &[
        ("user_id", Self::UserId),
        ("email", Self::Email),
        ("session_id", Self::SessionId),
        ("device_id", Self::DeviceId),
        ("host", Self::Host),
        ("source_ip", Self::SourceIp),
    ];

    fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(_, key)| *key == self).map_or("", |(word, _)| word)
    }

    /// Whether the id is that of a person, who must be signed in.
    pub(super) const fn needs_session(self) -> bool {
        match self {
            Self::UserId | Self::Email | Self::SessionId | Self::DeviceId => true,
            Self::Host | Self::SourceIp => false,
        }
    }
}

impl RecordMatcher {
    /// Whether the record is there and as it should be. No data at all satisfies nothing, not even `exists: false`.
    pub(super) fn matches(&self, check: &CheckRequest<'_>) -> bool {
        let Some(records) = check.records.and_then(|records| records.of_kind(&self.kind)) else {
            return false;
        };
        let session = check.live_session();
        let mut buffer = AddressText::EMPTY;
        let id = match self.key {
            RecordKey::UserId => session.map(|session| session.user_id.as_str()),
            RecordKey::Email => session.map(|session| session.email.as_str()),
            RecordKey::SessionId => session.map(|session| session.id.as_str()),
            RecordKey::DeviceId => check.own_device().map(|device| device.id.as_str()),
            RecordKey::Host => Some(check.request.host),
            RecordKey::SourceIp => buffer.write(check.request.source_ip),
        };
        let Some(id) = id.filter(|id| !id.is_empty()) else { return false };
        let field =
            records.get(id).and_then(|record| self.field.find(record)).filter(|value| !value.is_null());
        !self.tests.is_empty() && self.tests.iter().all(|test| test.holds(field))
    }
}

impl FieldPath {
    /// The field as written, else by its segments.
    fn find<'a>(&self, record: &'a Json) -> Option<&'a Json> {
        let literal = record.get(&self.literal);
        literal.or_else(|| self.literal.split('.').try_fold(record, |value, segment| value.get(segment)))
    }
}

impl FieldTest {
    /// A field with a list of values needs one that fits.
    fn holds(&self, field: Option<&Json>) -> bool {
        if let Self::Exists(wanted) = self {
            return field.is_some() == *wanted;
        }
        match field {
            Some(Json::Array(values)) => values.iter().any(|value| self.fits(value)),
            Some(value) => self.fits(value),
            None => false,
        }
    }

    fn fits(&self, value: &Json) -> bool {
        match self {
            Self::Is(wanted) => value.equals(wanted),
            Self::In(wanted) => wanted.iter().any(|wanted| value.equals(wanted)),
            Self::Exists(_) => false,
            Self::Compares(comparison, bound) => {
                order(value, bound).is_some_and(|order| comparison.takes(order))
            }
        }
    }
}

impl Comparison {
    const fn takes(self, order: Ordering) -> bool {
        match self {
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

/// A number with a number, a text with a text (character by character, as fits ISO 8601 dates); nothing else compares.
fn order(value: &Json, bound: &Scalar) -> Option<Ordering> {
    match bound {
        Scalar::Text(bound) => Some(value.as_str()?.cmp(bound)),
        Scalar::Integer(bound) => match value.as_i64() {
            Some(value) => Some(value.cmp(bound)),
            None => value.as_f64()?.partial_cmp(&(*bound as f64)),
        },
        Scalar::Float(bound) => value.as_f64()?.partial_cmp(bound),
        Scalar::Bool(_) => None,
    }
}

/// Room for an address as text, without allocation.
struct AddressText {
    bytes: [u8; 45],
    len: usize,
}

impl AddressText {
    const EMPTY: Self = Self { bytes: [0; 45], len: 0 };

    fn write(&mut self, address: IpAddr) -> Option<&str> {
        fmt::Write::write_fmt(self, format_args!("{}", address.to_canonical())).ok()?;
        std::str::from_utf8(self.bytes.get(..self.len)?).ok()
    }
}

impl fmt::Write for AddressText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

impl fmt::Display for RecordMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "type {:?} by {}: {:?} ", self.kind, self.key.as_str(), self.field.literal)?;
        and_between(f, &self.tests, |f, test| match test {
            FieldTest::Is(scalar) => write!(f, "is {scalar}"),
            FieldTest::In(scalars) => {
                f.write_str("in ")?;
                shortened(f, scalars, |f, scalar| write!(f, "{scalar}"))
            }
            FieldTest::Exists(wanted) => write!(f, "exists {wanted}"),
            FieldTest::Compares(comparison, scalar) => write!(f, "{} {scalar}", comparison.as_str()),
        })
    }
}
