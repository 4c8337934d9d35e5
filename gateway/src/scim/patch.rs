//! Patches of users and groups (RFC 7644, 3.5.2), in the shapes that directories send: with a path, with a path that
//! selects (`members[value eq "id"]`, `emails[type eq "work"].value`), and with an object in place of a path.

#[cfg(test)]
pub(super) mod tests;

use serde_json::Value;

use super::{
    ScimError,
    attributes::{Attributes, flag, items, optional_text, text},
    filter::{Comparison, comparisons},
    resource::{
        EMAILS_MAX, Email, GROUP_SCHEMA, Group, MEMBERS_MAX, Name, USER_SCHEMA, User, emails, members,
    },
};

/// Operations of a patch at most.
const OPERATIONS_MAX: usize = 1000;
/// What the schemas of extensions begin with. Nothing here depends on them.
const EXTENSIONS: &str = "urn:ietf:params:scim:schemas:extension:";
/// What the gateway alone says.
const READ_ONLY: [&str; 4] = ["id", "meta", "schemas", "groups"];
/// Attributes of users that are taken and not kept.
const NOT_KEPT: [&str; 15] = [
    "addresses",
    "entitlements",
    "ims",
    "locale",
    "nickname",
    "password",
    "phonenumbers",
    "photos",
    "preferredlanguage",
    "profileurl",
    "roles",
    "timezone",
    "title",
    "usertype",
    "x509certificates",
];

/// What is to be changed, in this order.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch(Vec<Operation>);

#[derive(Debug, Clone, PartialEq)]
struct Operation {
    kind: Kind,
    path: Option<String>,
    /// `null` when none was sent.
    value: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Add,
    Replace,
    Remove,
}

/// A path, parsed; names in lower case.
#[derive(Debug, Clone, PartialEq)]
struct Path {
    attribute: String,
    select: Option<Comparison>,
    part: Option<String>,
}

impl Patch {
    /// Reads the body of a PATCH.
    ///
    /// # Errors
    /// [`ScimError::InvalidSyntax`], [`ScimError::InvalidValue`].
    pub fn parse(value: &Value) -> Result<Self, ScimError> {
        let operations = Attributes::of(value)?
            .find("Operations")?
            .and_then(Value::as_array)
            .ok_or(ScimError::InvalidSyntax("expected a list of Operations"))?;
        if operations.len() > OPERATIONS_MAX {
            return Err(ScimError::InvalidValue("more than 1000 operations: send them in parts"));
        }
        operations.iter().map(Operation::parse).collect::<Result<_, _>>().map(Self)
    }

    /// Changes a user: all of it, or nothing.
    ///
    /// # Errors
    /// Any that a bad request may have.
    pub fn user(&self, mut user: User) -> Result<User, ScimError> {
        for (kind, path, value) in self.changes(USER_SCHEMA) {
            change_user(&mut user, kind, &path?, value)?;
        }
        Ok(user)
    }

    /// Changes a group: all of it, or nothing.
    ///
    /// # Errors
    /// As [`Self::user`].
    pub fn group(&self, mut group: Group) -> Result<Group, ScimError> {
        for (kind, path, value) in self.changes(GROUP_SCHEMA) {
            change_group(&mut group, kind, &path?, value)?;
        }
        if group.members.len() > MEMBERS_MAX {
            return Err(ScimError::InvalidValue("more than 10000 members"));
        }
        Ok(group)
    }

    /// Each change with its path: an operation without one has an object whose names are paths.
    fn changes<'a>(
        &'a self,
        schema: &'a str,
    ) -> impl Iterator<Item = (Kind, Result<Path, ScimError>, &'a Value)> {
        self.0.iter().flat_map(move |operation| {
            let kind = operation.kind;
            match (&operation.path, &operation.value) {
                (Some(path), value) => vec![(kind, Path::parse(path, schema), value)],
                (None, Value::Object(_)) if kind == Kind::Remove => {
                    vec![(kind, Err(ScimError::NoTarget), &Value::Null)]
                }
                (None, Value::Object(values)) => values
                    .iter()
                    .filter(|(name, _)| !READ_ONLY.contains(&&*name.to_ascii_lowercase()))
                    .map(|(name, value)| (kind, Path::parse(name, schema), value))
                    .collect(),
                (None, other) => vec![(kind, Err(ScimError::NoTarget), other)],
            }
        })
    }
}

impl Operation {
    fn parse(value: &Value) -> Result<Self, ScimError> {
        let attributes = Attributes::of(value)?;
        let kind = match attributes.text("op")?.unwrap_or_default().to_ascii_lowercase().as_str() {
            "add" => Kind::Add,
            "replace" => Kind::Replace,
            "remove" => Kind::Remove,
            _ => return Err(ScimError::InvalidSyntax("op is none of add, replace and remove")),
        };
        let path = attributes.find("path")?.map_or(Ok(None), optional_text)?;
        Ok(Self { kind, path, value: attributes.find("value")?.cloned().unwrap_or_default() })
    }
}

impl Path {
    fn parse(text: &str, schema: &str) -> Result<Self, ScimError> {
        const SHAPE: ScimError = ScimError::InvalidPath(
            "expected attribute, attribute.part, attribute[part eq \"text\"] or attribute[part eq \"text\"].part",
        );
        if text.get(..EXTENSIONS.len()).is_some_and(|head| head.eq_ignore_ascii_case(EXTENSIONS)) {
            return Ok(Self { attribute: EXTENSIONS.to_owned(), select: None, part: None });
        }
        let text = match (text.get(..schema.len()), text.get(schema.len()..)) {
            (Some(head), Some(tail)) if head.eq_ignore_ascii_case(schema) => {
                tail.strip_prefix(':').ok_or(SHAPE)?
            }
            _ => text,
        };
        let (attribute, select, part) = match text.split_once('[') {
            Some((attribute, rest)) => {
                let (inner, tail) = rest.rsplit_once(']').ok_or(SHAPE)?;
                let part = if tail.is_empty() { None } else { Some(tail.strip_prefix('.').ok_or(SHAPE)?) };
                let [select] =
                    <[Comparison; 1]>::try_from(comparisons(inner).map_err(|_| SHAPE)?).map_err(|_| SHAPE)?;
                (attribute, Some(select), part)
            }
            None => match text.split_once('.') {
                Some((attribute, part)) => (attribute, None, Some(part)),
                None => (text, None, None),
            },
        };
        let is_name = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'$'))
        };
        if !is_name(attribute) || !part.is_none_or(is_name) {
            return Err(SHAPE);
        }
        let lower = str::to_ascii_lowercase;
        Ok(Self { attribute: lower(attribute), select, part: part.map(lower) })
    }

    /// Whether the path is a bare attribute.
    fn is_plain(&self) -> bool {
        self.select.is_none() && self.part.is_none()
    }
}

fn change_user(user: &mut User, kind: Kind, path: &Path, value: &Value) -> Result<(), ScimError> {
    let optional = || if kind == Kind::Remove { Ok(None) } else { optional_text(value) };
    match path.attribute.as_str() {
        "username" if path.is_plain() => user.user_name = required(kind, value)?,
        "active" if path.is_plain() && kind == Kind::Remove => {
            return Err(ScimError::InvalidValue("active cannot be removed: replace it by true or false"));
        }
        "active" if path.is_plain() => user.is_active = flag(value)?,
        "externalid" if path.is_plain() => user.external_id = optional()?,
        "displayname" if path.is_plain() => user.display_name = optional()?,
        "name" if path.select.is_none() => change_name(&mut user.name, kind, path.part.as_deref(), value)?,
        "emails" => change_emails(&mut user.emails, kind, path, value)?,
        name if READ_ONLY.contains(&name) => return Err(ScimError::Mutability),
        name if name == EXTENSIONS || NOT_KEPT.contains(&name) => {}
        _ => return Err(ScimError::InvalidPath("users have no such attribute")),
    }
    Ok(())
}

fn change_group(group: &mut Group, kind: Kind, path: &Path, value: &Value) -> Result<(), ScimError> {
    match path.attribute.as_str() {
        "displayname" if path.is_plain() => group.display_name = required(kind, value)?,
        "externalid" if path.is_plain() => {
            group.external_id = if kind == Kind::Remove { None } else { optional_text(value)? };
        }
        "members" if path.is_plain() => match kind {
            Kind::Add => group.members.extend(members(value)?),
            Kind::Replace => group.members = members(value)?,
            Kind::Remove if value.is_null() => group.members.clear(),
            Kind::Remove => {
                let gone = members(value)?;
                group.members.retain(|id| !gone.contains(id));
            }
        },
        "members" => match (&path.select, &path.part, kind) {
            (Some(Comparison { attribute, value: Value::String(id) }), None, Kind::Remove)
                if attribute.eq_ignore_ascii_case("value") =>
            {
                group.members.remove(id);
            }
            _ => return Err(ScimError::InvalidPath("members are selected by value, to remove them")),
        },
        name if READ_ONLY.contains(&name) => return Err(ScimError::Mutability),
        EXTENSIONS => {}
        _ => return Err(ScimError::InvalidPath("groups have no such attribute")),
    }
    Ok(())
}

/// A text that must stay.
fn required(kind: Kind, value: &Value) -> Result<String, ScimError> {
    match kind {
        Kind::Remove => Err(ScimError::InvalidValue("this attribute is required and cannot be removed")),
        Kind::Add | Kind::Replace => text(value),
    }
}

fn change_name(name: &mut Name, kind: Kind, part: Option<&str>, value: &Value) -> Result<(), ScimError> {
    let slot = match part {
        None => {
            let new =
                if kind == Kind::Remove || value.is_null() { Name::default() } else { Name::parse(value)? };
            *name = match kind {
                Kind::Add => Name {
                    formatted: new.formatted.or_else(|| name.formatted.take()),
                    given: new.given.or_else(|| name.given.take()),
                    family: new.family.or_else(|| name.family.take()),
                },
                Kind::Replace | Kind::Remove => new,
            };
            return Ok(());
        }
        Some("formatted") => &mut name.formatted,
        Some("givenname") => &mut name.given,
        Some("familyname") => &mut name.family,
        Some("middlename" | "honorificprefix" | "honorificsuffix") => return Ok(()),
        Some(_) => return Err(ScimError::InvalidPath("name has no such part")),
    };
    *slot = if kind == Kind::Remove { None } else { optional_text(value)? };
    Ok(())
}

fn change_emails(list: &mut Vec<Email>, kind: Kind, path: &Path, value: &Value) -> Result<(), ScimError> {
    if !path.is_plain() {
        change_selected_emails(list, kind, path, value)?;
    } else if kind == Kind::Add {
        for email in emails(value)? {
            list.retain(|old| !old.value.eq_ignore_ascii_case(&email.value));
            list.push(email);
        }
    } else if kind == Kind::Remove && !value.is_null() {
        let gone = emails(value)?;
        list.retain(|old| !gone.iter().any(|email| email.value.eq_ignore_ascii_case(&old.value)));
    } else {
        *list = if kind == Kind::Remove { Vec::new() } else { emails(value)? };
    }
    if list.len() > EMAILS_MAX {
        return Err(ScimError::InvalidValue("more than 20 emails"));
    }
    Ok(())
}

fn change_selected_emails(
    list: &mut Vec<Email>,
    kind: Kind,
    path: &Path,
    value: &Value,
) -> Result<(), ScimError> {
    let selected: Vec<bool> =
        list.iter().map(|email| is_selected(email, path.select.as_ref())).collect::<Result<_, _>>()?;
    let mut selection = selected.iter();
    let part = path.part.as_deref().unwrap_or("value");
    match (kind, part) {
        (Kind::Remove, "value") => list.retain(|_| selection.next() != Some(&true)),
        (_, "value") if items(value).len() > 1 => {
            return Err(ScimError::InvalidValue("a selection takes one value"));
        }
        (_, "value") => {
            let new = emails(value)?.pop();
            let Some(new) = new else {
                list.retain(|_| selection.next() != Some(&true));
                return Ok(());
            };
            if selected.contains(&true) {
                for (email, _) in list.iter_mut().zip(&selected).filter(|(_, is_selected)| **is_selected) {
                    email.value.clone_from(&new.value);
                }
            } else {
                // Directories set the address of a kind that somebody does not have yet.
                list.push(Email { kind: Some(selected_kind(path)?), ..new });
            }
        }
        (_, "type" | "primary" | "display") => {
            for (email, _) in list.iter_mut().zip(&selected).filter(|(_, is_selected)| **is_selected) {
                match (part, kind) {
                    ("type", Kind::Remove) => email.kind = None,
                    ("type", _) => email.kind = optional_text(value)?,
                    ("primary", Kind::Remove) => email.is_primary = false,
                    ("primary", _) => email.is_primary = flag(value)?,
                    _ => {}
                }
            }
        }
        _ => return Err(ScimError::InvalidPath("emails have no such part")),
    }
    Ok(())
}

/// The kind that a selection asks for; one by anything else leads to nothing.
fn selected_kind(path: &Path) -> Result<String, ScimError> {
    match &path.select {
        Some(Comparison { attribute, value }) if attribute.eq_ignore_ascii_case("type") => text(value),
        _ => Err(ScimError::NoTarget),
    }
}

fn is_selected(email: &Email, select: Option<&Comparison>) -> Result<bool, ScimError> {
    let Some(Comparison { attribute, value }) = select else { return Ok(true) };
    let same = |text: &str| value.as_str().is_some_and(|wanted| wanted.eq_ignore_ascii_case(text));
    match attribute.to_ascii_lowercase().as_str() {
        "type" => Ok(email.kind.as_deref().is_some_and(same)),
        "value" => Ok(same(&email.value)),
        "primary" => Ok(flag(value)? == email.is_primary),
        _ => Err(ScimError::InvalidPath("emails are selected by type, value or primary")),
    }
}
