//! Filters: the comparisons by which directories find what they pushed (a part of RFC 7644, 3.4.2.2).
//!
//! Shape: `attribute eq "text"`, up to four of them joined by `and`.

use serde_json::Value;

use super::{
    ScimError,
    resource::{GROUP_SCHEMA, USER_SCHEMA},
};

/// Bytes of a filter at most.
const FILTER_LEN_MAX: usize = 4096;
/// Comparisons of a filter at most.
const COMPARISONS_MAX: usize = 4;

/// All of these must be met; none: everything is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter<A> {
    /// What must have which value.
    pub all: Vec<(A, String)>,
}

/// By what users are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserAttribute {
    /// `id`.
    Id,
    /// `userName`, without regard to case.
    UserName,
    /// `externalId`.
    ExternalId,
    /// `emails.value` (or `emails`), without regard to case.
    Email,
}

/// By what groups are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupAttribute {
    /// `id`.
    Id,
    /// `displayName`, without regard to case.
    DisplayName,
    /// `externalId`.
    ExternalId,
    /// `members.value` (or `members`): the id of a user.
    Member,
}

impl<A> Filter<A> {
    /// The filter that everything meets.
    #[must_use]
    pub const fn none() -> Self {
        Self { all: Vec::new() }
    }

    fn parse(text: &str, attribute: impl Fn(&str) -> Option<A>) -> Result<Self, ScimError> {
        let one = |comparison: Comparison| {
            let attribute = attribute(&comparison.attribute.to_ascii_lowercase())
                .ok_or(ScimError::InvalidFilter("nothing is found by this attribute"))?;
            match comparison.value {
                Value::String(value) => Ok((attribute, value)),
                _ => Err(ScimError::InvalidFilter("expected a text in double quotes after eq")),
            }
        };
        Ok(Self { all: comparisons(text)?.into_iter().map(one).collect::<Result<_, _>>()? })
    }
}

impl Filter<UserAttribute> {
    /// Reads a filter of users.
    ///
    /// # Errors
    /// [`ScimError::InvalidFilter`].
    pub fn of_users(text: &str) -> Result<Self, ScimError> {
        Self::parse(text, |name| match without_schema(name, USER_SCHEMA) {
            "id" => Some(UserAttribute::Id),
            "username" => Some(UserAttribute::UserName),
            "externalid" => Some(UserAttribute::ExternalId),
            "emails" | "emails.value" => Some(UserAttribute::Email),
            _ => None,
        })
    }
}

impl Filter<GroupAttribute> {
    /// Reads a filter of groups.
    ///
    /// # Errors
    /// [`ScimError::InvalidFilter`].
    pub fn of_groups(text: &str) -> Result<Self, ScimError> {
        Self::parse(text, |name| match without_schema(name, GROUP_SCHEMA) {
            "id" => Some(GroupAttribute::Id),
            "displayname" => Some(GroupAttribute::DisplayName),
            "externalid" => Some(GroupAttribute::ExternalId),
            "members" | "members.value" => Some(GroupAttribute::Member),
            _ => None,
        })
    }
}

/// `attribute eq value`, as written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Comparison {
    pub(super) attribute: String,
    pub(super) value: Value,
}

/// Comparisons joined by `and`.
pub(super) fn comparisons(text: &str) -> Result<Vec<Comparison>, ScimError> {
    const SHAPE: ScimError =
        ScimError::InvalidFilter("expected: attribute eq \"text\", or several of these joined by and");
    if text.len() > FILTER_LEN_MAX {
        return Err(ScimError::InvalidFilter("the filter is longer than 4096 bytes"));
    }
    let mut found = Vec::new();
    let mut rest = text.trim();
    loop {
        if found.len() == COMPARISONS_MAX {
            return Err(ScimError::InvalidFilter("the filter has more than four comparisons"));
        }
        let (attribute, after) = rest.split_once(' ').ok_or(SHAPE)?;
        let (operator, after) = after.trim_start().split_once(' ').ok_or(SHAPE)?;
        if !operator.eq_ignore_ascii_case("eq") {
            return Err(ScimError::InvalidFilter("eq is the only comparison that is understood"));
        }
        let mut values = serde_json::Deserializer::from_str(after).into_iter::<Value>();
        let value =
            values.next().and_then(Result::ok).filter(|value| value.is_string() || value.is_boolean());
        found.push(Comparison { attribute: attribute.to_owned(), value: value.ok_or(SHAPE)? });
        let tail = after.get(values.byte_offset()..).ok_or(SHAPE)?;
        if tail.trim().is_empty() {
            return Ok(found);
        }
        let (joint, next) = tail.strip_prefix(' ').ok_or(SHAPE)?.trim_start().split_once(' ').ok_or(SHAPE)?;
        if !joint.eq_ignore_ascii_case("and") {
            return Err(SHAPE);
        }
        rest = next.trim_start();
    }
}

/// A name without the schema that it may begin with; lower case.
pub(super) fn without_schema<'a>(name: &'a str, schema: &str) -> &'a str {
    let is_prefix = |head: &str| head.eq_ignore_ascii_case(schema);
    match name.rsplit_once(':') {
        Some((head, tail)) if is_prefix(head) => tail,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_directories_ask_is_understood() {
        let users = |text| Filter::of_users(text).unwrap().all;
        let alice = || "alice@corp.example".to_owned();
        assert_eq!(users("userName eq \"alice@corp.example\""), [(UserAttribute::UserName, alice())]);
        assert_eq!(
            users(&format!("{USER_SCHEMA}:userName EQ \"alice@corp.example\"")),
            [(UserAttribute::UserName, alice())]
        );
        let groups = |text| Filter::of_groups(text).unwrap().all;
        assert_eq!(
            groups(r#"id eq "g1" and members eq "u\"1""#),
            [(GroupAttribute::Id, "g1".to_owned()), (GroupAttribute::Member, "u\"1".to_owned())]
        );
        assert_eq!(
            groups("displayName eq \"a and b\""),
            [(GroupAttribute::DisplayName, "a and b".to_owned())]
        );
    }

    #[test]
    fn what_is_not_understood_is_refused_rather_than_met_by_all() {
        for text in [
            "",
            " ",
            "userName",
            "userName eq",
            "userName eq alice",
            "userName sw \"a\"",
            "userName eq \"a\" or userName eq \"b\"",
            "userName eq \"a\"and id eq \"b\"",
            "not (userName eq \"a\")",
            "password eq \"a\"",
            "userName eq true",
            "userName eq \"a\" and",
        ] {
            assert!(Filter::of_users(text).is_err(), "{text}");
        }
        let many = ["id eq \"a\""; COMPARISONS_MAX + 1].join(" and ");
        assert!(Filter::of_users(&many).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".*|([a-z.:\\[\\]]{1,8} (eq|and|or) \"?[^\"]{0,4}\"? ?){0,6}") {
            let _ = Filter::of_users(&text);
            let _ = Filter::of_groups(&text);
        }

        #[test]
        fn a_text_means_itself(value in ".{0,40}") {
            let quoted = serde_json::to_string(&value).unwrap();
            let filter = Filter::of_groups(&format!("displayName eq {quoted}"));
            prop_assert_eq!(filter, Ok(Filter { all: vec![(GroupAttribute::DisplayName, value)] }));
        }
    }
}
