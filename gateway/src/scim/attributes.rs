//! Attributes of JSON objects as SCIM reads them: names without regard to case, `null` for what is not there.

use serde_json::{Map, Value};

use super::ScimError;

/// Bytes of one text at most.
const TEXT_LEN_MAX: usize = 1024;

/// An object whose members are found by name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes<'a>(&'a Map<String, Value>);

impl<'a> Attributes<'a> {
    pub(super) fn of(value: &'a Value) -> Result<Self, ScimError> {
        value.as_object().map(Self).ok_or(ScimError::InvalidSyntax("expected a JSON object"))
    }

    /// The value of an attribute. Two that differ in case only are refused: whoever reads them differently would see
    /// somebody else.
    pub(super) fn find(self, name: &str) -> Result<Option<&'a Value>, ScimError> {
        let mut found = self.0.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(ScimError::InvalidSyntax("an attribute stands twice, in different case")),
            (Some((_, Value::Null)) | None, None) => Ok(None),
            (Some((_, value)), None) => Ok(Some(value)),
        }
    }

    /// A text that need not be there.
    pub(super) fn text(self, name: &str) -> Result<Option<String>, ScimError> {
        self.find(name)?.map(text).transpose()
    }
}

/// A text of this length at most, without control characters; not empty.
pub(super) fn text(value: &Value) -> Result<String, ScimError> {
    let text = value.as_str().ok_or(ScimError::InvalidValue("expected a text"))?;
    if text.len() > TEXT_LEN_MAX {
        return Err(ScimError::InvalidValue("a text is longer than 1024 bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err(ScimError::InvalidValue("a text contains control characters"));
    }
    if text.trim().is_empty() {
        return Err(ScimError::InvalidValue("a text is empty: leave the attribute out"));
    }
    Ok(text.to_owned())
}

/// As [`text`]; empty is none. Directories send empty texts for what somebody does not have.
pub(super) fn optional_text(value: &Value) -> Result<Option<String>, ScimError> {
    match value.as_str() {
        _ if value.is_null() => Ok(None),
        Some(blank) if blank.trim().is_empty() => Ok(None),
        _ => text(value).map(Some),
    }
}

/// `true` or `false`, which one directory (Entra ID) sends as the texts `True` and `False`.
pub(super) fn flag(value: &Value) -> Result<bool, ScimError> {
    match value {
        Value::Bool(flag) => Ok(*flag),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(ScimError::InvalidValue("expected true or false")),
    }
}

/// A list, or the one value in its place.
pub(super) fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        Value::Null => &[],
        one => std::slice::from_ref(one),
    }
}
