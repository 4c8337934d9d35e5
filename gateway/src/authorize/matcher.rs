//! Matchers: what a criterion compares a value with. All comparisons are exact, upper and lower case included.

use std::{fmt, net::IpAddr};

use ipnet::{IpNet, Ipv4Net};
use serde_json::Value as Json;

/// How many entries of a list a trace shows.
const SHOWN_MAX: usize = 5;

/// What a text must be; all tests must hold, and there is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StringMatcher {
    /// Never empty: an empty matcher would match everything.
    pub(super) tests: Vec<StringTest>,
}

/// One key of a string matcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StringTest {
    Is(String),
    Not(String),
    Contains(String),
    StartsWith(String),
    EndsWith(String),
    In(TextSet),
    NotIn(TextSet),
}

/// Texts, sorted for the search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TextSet(Vec<String>);

impl TextSet {
    pub(super) fn new(mut texts: Vec<String>) -> Self {
        texts.sort_unstable();
        texts.dedup();
        Self(texts)
    }

    fn contains(&self, text: &str) -> bool {
        self.0.binary_search_by(|entry| entry.as_str().cmp(text)).is_ok()
    }
}

impl StringMatcher {
    pub(super) fn one(test: StringTest) -> Self {
        Self { tests: vec![test] }
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        !self.tests.is_empty() && self.tests.iter().all(|test| test.matches(text))
    }

    /// Whether `not` or `not_in` names the text.
    pub(super) fn excludes(&self, text: &str) -> bool {
        self.tests.iter().any(|test| test.is_negative() && !test.matches(text))
    }

    /// The texts that must be equal or unequal to something.
    pub(super) fn whole_texts(&self) -> impl Iterator<Item = &str> {
        self.tests
            .iter()
            .flat_map(|test| match test {
                StringTest::Is(text) | StringTest::Not(text) => std::slice::from_ref(text),
                StringTest::In(texts) | StringTest::NotIn(texts) => texts.0.as_slice(),
                StringTest::Contains(_) | StringTest::StartsWith(_) | StringTest::EndsWith(_) => &[],
            })
            .map(String::as_str)
    }
}

impl StringTest {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Is(wanted) => text == wanted,
            Self::Not(unwanted) => text != unwanted,
            Self::Contains(part) => text.contains(part.as_str()),
            Self::StartsWith(start) => text.starts_with(start.as_str()),
            Self::EndsWith(end) => text.ends_with(end.as_str()),
            Self::In(wanted) => wanted.contains(text),
            Self::NotIn(unwanted) => !unwanted.contains(text),
        }
    }

    const fn is_negative(&self) -> bool {
        matches!(self, Self::Not(_) | Self::NotIn(_))
    }
}

/// What a list of values must be; all tests must hold, and there is at least one.
#[derive(Debug, Clone, PartialEq)]
pub struct ListMatcher {
    /// Never empty: an empty matcher would match everything.
    pub(super) tests: Vec<ListTest>,
}

/// One key of a list matcher.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ListTest {
    /// Any element equals.
    Has(Scalar),
    /// There is exactly one element, and it equals.
    Is(Scalar),
    /// No element equals.
    Exclude(Scalar),
}

/// What an element of a list is compared with; a number is never equal to a text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    Text(String),
    Bool(bool),
    Integer(i64),
    Float(f64),
}

/// An element that a list matcher can look at.
pub(super) trait Element {
    fn equals(&self, scalar: &Scalar) -> bool;
}

impl Element for String {
    fn equals(&self, scalar: &Scalar) -> bool {
        matches!(scalar, Scalar::Text(text) if text == self)
    }
}

impl Element for Json {
    fn equals(&self, scalar: &Scalar) -> bool {
        match scalar {
            Scalar::Text(text) => self.as_str() == Some(text),
            Scalar::Bool(value) => self.as_bool() == Some(*value),
            // A claim of `5.0` is the number 5 in JSON, which knows one kind of number only.
            Scalar::Integer(value) => {
                self.as_i64() == Some(*value) || self.is_f64() && self.as_f64() == Some(*value as f64)
            }
            Scalar::Float(value) => self.as_f64() == Some(*value),
        }
    }
}

impl ListMatcher {
    pub(super) fn one(test: ListTest) -> Self {
        Self { tests: vec![test] }
    }

    pub(super) fn matches<'a, E: Element + 'a>(
        &self,
        elements: impl IntoIterator<Item = &'a E> + Clone,
    ) -> bool {
        let any_equals = |scalar| elements.clone().into_iter().any(|element| element.equals(scalar));
        !self.tests.is_empty()
            && self.tests.iter().all(|test| match test {
                ListTest::Has(wanted) => any_equals(wanted),
                ListTest::Is(wanted) => any_equals(wanted) && elements.clone().into_iter().nth(1).is_none(),
                ListTest::Exclude(unwanted) => !any_equals(unwanted),
            })
    }
}

/// Networks, at least one; an address may be in any of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpMatcher {
    pub(super) networks: Vec<IpNet>,
}

impl IpMatcher {
    /// Whether `address` is in one of the networks; an IPv4 address that came mapped into IPv6 is an IPv4 address.
    pub(super) fn matches(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }
}

/// Numbers of autonomous systems, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsnMatcher {
    /// Sorted for the search.
    pub(super) numbers: Vec<u32>,
    /// Whether the number must be one of them, or none of them.
    pub(super) is_one_of: bool,
}

impl AsnMatcher {
    pub(super) fn matches(&self, number: u32) -> bool {
        self.numbers.binary_search(&number).is_ok() == self.is_one_of
    }
}

/// Reads `10.0.0.0/8` or `10.0.0.1`; what is mapped into IPv6 becomes IPv4.
pub(super) fn parse_network(text: &str) -> Option<IpNet> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().ok()?,
    };
    let IpNet::V6(v6) = network else { return Some(network.trunc()) };
    let mapped = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    let v4 = mapped.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok());
    Some(v4.map_or(network, IpNet::V4).trunc())
}

impl fmt::Display for StringMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        and_between(f, &self.tests, |f, test| match test {
            StringTest::Is(text) => write!(f, "is {text:?}"),
            StringTest::Not(text) => write!(f, "not {text:?}"),
            StringTest::Contains(text) => write!(f, "contains {text:?}"),
            StringTest::StartsWith(text) => write!(f, "starts_with {text:?}"),
            StringTest::EndsWith(text) => write!(f, "ends_with {text:?}"),
            StringTest::In(texts) => write!(f, "in {texts}"),
            StringTest::NotIn(texts) => write!(f, "not_in {texts}"),
        })
    }
}

impl fmt::Display for TextSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        shortened(f, &self.0, |f, text| write!(f, "{text:?}"))
    }
}

impl fmt::Display for ListMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        and_between(f, &self.tests, |f, test| match test {
            ListTest::Has(scalar) => write!(f, "has {scalar}"),
            ListTest::Is(scalar) => write!(f, "is {scalar}"),
            ListTest::Exclude(scalar) => write!(f, "exclude {scalar}"),
        })
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
        }
    }
}

impl fmt::Display for IpMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        shortened(f, &self.networks, |f, network| write!(f, "{network}"))
    }
}

impl fmt::Display for AsnMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_one_of { "in " } else { "not_in " })?;
        shortened(f, &self.numbers, |f, number| write!(f, "{number}"))
    }
}

pub(super) fn and_between<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    show: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(" and ")?;
        }
        show(f, item)?;
    }
    Ok(())
}

/// The first few of a list, and how many more.
pub(super) fn shortened<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    show: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    f.write_str("[")?;
    for (index, item) in items.iter().take(SHOWN_MAX).enumerate() {
        if index > 0 {
            f.write_str(", ")?;
        }
        show(f, item)?;
    }
    match items.len().saturating_sub(SHOWN_MAX) {
        0 => f.write_str("]"),
        more => write!(f, ", and {more} more]"),
    }
}
