//! What a criterion's data says of a text or a list.

use std::fmt;

/// Conditions on one text; all must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StringMatcher(pub(super) Vec<StringTest>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StringTest {
    Is(String),
    Not(String),
    Contains(String),
    StartsWith(String),
    EndsWith(String),
    In(Vec<String>),
    NotIn(Vec<String>),
}

/// Conditions on a list of texts; all must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListMatcher(pub(super) Vec<ListTest>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ListTest {
    Has(String),
    Is(String),
    Exclude(String),
}

impl StringMatcher {
    pub(super) fn matches(&self, text: &str) -> bool {
        self.0.iter().all(|test| match test {
            StringTest::Is(value) => text == value,
            StringTest::Not(value) => text != value,
            StringTest::Contains(value) => text.contains(value.as_str()),
            StringTest::StartsWith(value) => text.starts_with(value.as_str()),
            StringTest::EndsWith(value) => text.ends_with(value.as_str()),
            StringTest::In(values) => values.iter().any(|value| value == text),
            StringTest::NotIn(values) => values.iter().all(|value| value != text),
        })
    }
}

impl ListMatcher {
    /// `texts` can be walked again and again, without a copy.
    pub(super) fn matches<'a>(&self, texts: impl Iterator<Item = &'a str> + Clone) -> bool {
        self.0.iter().all(|test| match test {
            ListTest::Has(value) => texts.clone().any(|text| text == value),
            ListTest::Is(value) => {
                let mut texts = texts.clone();
                texts.next() == Some(value.as_str()) && texts.next().is_none()
            }
            ListTest::Exclude(value) => texts.clone().all(|text| text != value),
        })
    }
}

impl fmt::Display for StringMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let test = |test: &StringTest| match test {
            StringTest::Is(value) => format!("is {value:?}"),
            StringTest::Not(value) => format!("not {value:?}"),
            StringTest::Contains(value) => format!("contains {value:?}"),
            StringTest::StartsWith(value) => format!("starts_with {value:?}"),
            StringTest::EndsWith(value) => format!("ends_with {value:?}"),
            StringTest::In(values) => format!("in {values:?}"),
            StringTest::NotIn(values) => format!("not_in {values:?}"),
        };
        f.write_str(&self.0.iter().map(test).collect::<Vec<_>>().join(" and "))
    }
}

impl fmt::Display for ListMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let test = |test: &ListTest| match test {
            ListTest::Has(value) => format!("has {value:?}"),
            ListTest::Is(value) => format!("is {value:?}"),
            ListTest::Exclude(value) => format!("exclude {value:?}"),
        };
        f.write_str(&self.0.iter().map(test).collect::<Vec<_>>().join(" and "))
    }
}
