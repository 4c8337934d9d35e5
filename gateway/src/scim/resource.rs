//! Users and groups, parsed: what is kept of a directory's resources, and how they are shown to it again.
//!
//! Attributes that nothing here depends on (titles, telephone numbers, passwords) are taken and not kept.

use std::{collections::BTreeSet, time::SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    ScimError,
    attributes::{Attributes, flag, items, optional_text, text},
};

/// The schema of users.
pub const USER_SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
/// The schema of groups.
pub const GROUP_SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";

/// Addresses of one person at most.
pub(super) const EMAILS_MAX: usize = 20;
/// Members of one group at most.
pub const MEMBERS_MAX: usize = 10_000;

/// A person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// `userName`: unique without regard to case.
    pub user_name: String,
    /// `externalId`: what the directory itself calls the person.
    pub external_id: Option<String>,
    /// `displayName`.
    pub display_name: Option<String>,
    /// `name`.
    pub name: Name,
    /// `emails`.
    pub emails: Vec<Email>,
    /// `active`: whether the person may come in at all.
    pub is_active: bool,
}

/// The parts of a person's name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// `formatted`.
    pub formatted: Option<String>,
    /// `givenName`.
    pub given: Option<String>,
    /// `familyName`.
    pub family: Option<String>,
}

/// An email address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Email {
    /// The address.
    pub value: String,
    /// `work`, `home`, ...
    pub kind: Option<String>,
    /// Whether it is the one to use.
    pub is_primary: bool,
}

/// A group of people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// `displayName`: what policy calls the group; unique without regard to case.
    pub display_name: String,
    /// `externalId`.
    pub external_id: Option<String>,
    /// Ids of users.
    pub members: BTreeSet<String>,
}

/// What the gateway itself says of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Names the resource, for ever.
    pub id: String,
    /// When it was pushed first.
    pub created_at: SystemTime,
    /// When it was changed last.
    pub changed_at: SystemTime,
}

impl User {
    /// Reads a user. One that does not say whether they are active is what `is_active` says: new ones are, and others
    /// stay what they were.
    ///
    /// # Errors
    /// [`ScimError::InvalidSyntax`], [`ScimError::InvalidValue`].
    pub fn parse(value: &Value, is_active: bool) -> Result<Self, ScimError> {
        let attributes = Attributes::of(value)?;
        let optional = |name| attributes.find(name)?.map_or(Ok(None), optional_text);
        Ok(Self {
            user_name: attributes.text("userName")?.ok_or(ScimError::InvalidValue("userName is missing"))?,
            external_id: optional("externalId")?,
            display_name: optional("displayName")?,
            name: attributes.find("name")?.map(Name::parse).transpose()?.unwrap_or_default(),
            emails: attributes.find("emails")?.map(emails).transpose()?.unwrap_or_default(),
            is_active: attributes.find("active")?.map(flag).transpose()?.unwrap_or(is_active),
        })
    }

    /// The user as the directory sees it, in these groups (id and name).
    #[must_use]
    pub fn document(&self, meta: &Meta, groups: &[(String, String)], location: &str) -> Value {
        let name = &self.name;
        let mut document = json!({
            "schemas": [USER_SCHEMA],
            "id": meta.id,
            "userName": self.user_name,
            "active": self.is_active,
            "emails": self.emails.iter().map(Email::document).collect::<Vec<_>>(),
            "groups": groups.iter().map(|(id, name)| json!({"value": id, "display": name})).collect::<Vec<_>>(),
            "meta": meta.document("User", location),
        });
        set(&mut document, "externalId", self.external_id.as_ref());
        set(&mut document, "displayName", self.display_name.as_ref());
        if *name != Name::default() {
            let mut parts = Value::Object(Map::new());
            set(&mut parts, "formatted", name.formatted.as_ref());
            set(&mut parts, "givenName", name.given.as_ref());
            set(&mut parts, "familyName", name.family.as_ref());
            document["name"] = parts;
        }
        document
    }
}

impl Name {
    pub(super) fn parse(value: &Value) -> Result<Self, ScimError> {
        let attributes = Attributes::of(value)?;
        let part = |name| attributes.find(name)?.map_or(Ok(None), optional_text);
        Ok(Self { formatted: part("formatted")?, given: part("givenName")?, family: part("familyName")? })
    }
}

impl Email {
    fn parse(value: &Value) -> Result<Option<Self>, ScimError> {
        // Some send the bare address.
        if value.is_string() {
            return Ok(optional_text(value)?.map(|value| Self { value, kind: None, is_primary: false }));
        }
        let attributes = Attributes::of(value)?;
        let optional = |name| attributes.find(name)?.map_or(Ok(None), optional_text);
        let Some(value) = optional("value")? else { return Ok(None) };
        let is_primary = attributes.find("primary")?.map(flag).transpose()?.unwrap_or(false);
        Ok(Some(Self { value, kind: optional("type")?, is_primary }))
    }

    fn document(&self) -> Value {
        let mut document = json!({"value": self.value, "primary": self.is_primary});
        set(&mut document, "type", self.kind.as_ref());
        document
    }
}

/// Addresses; those without a value are left out.
pub(super) fn emails(value: &Value) -> Result<Vec<Email>, ScimError> {
    let items = items(value);
    if items.len() > EMAILS_MAX {
        return Err(ScimError::InvalidValue("more than 20 emails"));
    }
    items.iter().filter_map(|item| Email::parse(item).transpose()).collect()
}

impl Group {
    /// Reads a group.
    ///
    /// # Errors
    /// [`ScimError::InvalidSyntax`], [`ScimError::InvalidValue`].
    pub fn parse(value: &Value) -> Result<Self, ScimError> {
        let attributes = Attributes::of(value)?;
        Ok(Self {
            display_name: attributes
                .text("displayName")?
                .ok_or(ScimError::InvalidValue("displayName is missing"))?,
            external_id: attributes.find("externalId")?.map_or(Ok(None), optional_text)?,
            members: attributes.find("members")?.map(members).transpose()?.unwrap_or_default(),
        })
    }

    /// The group as the directory sees it.
    #[must_use]
    pub fn document(&self, meta: &Meta, with_members: bool, location: &str) -> Value {
        let mut document = json!({
            "schemas": [GROUP_SCHEMA],
            "id": meta.id,
            "displayName": self.display_name,
            "meta": meta.document("Group", location),
        });
        set(&mut document, "externalId", self.external_id.as_ref());
        if with_members {
            let members = self.members.iter().map(|id| json!({"value": id, "type": "User"}));
            document["members"] = members.collect();
        }
        document
    }
}

/// Ids of members: `[{"value": "..."}]`, or one of them.
pub(super) fn members(value: &Value) -> Result<BTreeSet<String>, ScimError> {
    let items = items(value);
    if items.len() > MEMBERS_MAX {
        return Err(ScimError::InvalidValue("more than 10000 members"));
    }
    let id = |item: &Value| {
        let attributes = Attributes::of(item)?;
        let kind = attributes.find("type")?.and_then(Value::as_str);
        if kind.is_some_and(|kind| !kind.eq_ignore_ascii_case("User")) {
            return Err(ScimError::InvalidValue(
                "a member is not a user: groups within groups are not kept, push the people themselves",
            ));
        }
        text(attributes.find("value")?.ok_or(ScimError::InvalidValue("a member has no value"))?)
    };
    items.iter().map(id).collect()
}

impl Meta {
    fn document(&self, kind: &str, location: &str) -> Value {
        let time = |at| jiff::Timestamp::try_from(at).map(|at| at.to_string()).unwrap_or_default();
        json!({
            "resourceType": kind,
            "created": time(self.created_at),
            "lastModified": time(self.changed_at),
            "location": location,
        })
    }
}

fn set(document: &mut Value, name: &str, value: Option<&String>) {
    if let Some(value) = value {
        document[name] = json!(value);
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;
    use crate::scim::patch::tests::any_json;

    fn meta() -> Meta {
        Meta { id: "1".to_owned(), created_at: UNIX_EPOCH, changed_at: UNIX_EPOCH }
    }

    #[test]
    fn a_user_as_okta_and_entra_send_them_is_read_and_shown_again() {
        let sent = json!({
            "schemas": [USER_SCHEMA, "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"],
            "USERNAME": "alice@corp.example", "externalId": "00u1", "displayName": "Alice", "password": "hunter2",
            "name": {"givenName": "Alice", "familyName": ""}, "active": "True", "title": "Boss",
            "emails": [{"value": "alice@corp.example", "type": "work", "primary": true}, {"type": "home", "value": null}],
        });
        let user = User::parse(&sent, false).unwrap();
        assert!(user.is_active);
        assert_eq!(user.name.family, None);
        assert_eq!(user.emails.len(), 1);
        let shown = user.document(&meta(), &[("g".to_owned(), "staff".to_owned())], "https://x/1");
        assert_eq!(User::parse(&shown, false).unwrap(), user);
        assert_eq!(shown["groups"][0]["display"], "staff");
        assert!(!shown.to_string().contains("hunter2"));
    }

    #[test]
    fn who_says_nothing_of_being_active_stays_what_they_were() {
        let sent = json!({"userName": "a"});
        assert!(User::parse(&sent, true).unwrap().is_active);
        assert!(!User::parse(&sent, false).unwrap().is_active);
        assert!(!User::parse(&json!({"userName": "a", "active": null}), false).unwrap().is_active);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for sent in [
            json!({}),
            json!([]),
            json!({"userName": ""}),
            json!({"userName": "a", "username": "b"}),
            json!({"userName": "a\u{0}"}),
            json!({"userName": 7}),
            json!({"userName": "a", "active": "yes"}),
            json!({"userName": "a", "active": 0}),
            json!({"userName": "a".repeat(1025)}),
            json!({"userName": "a", "emails": vec![json!({"value": "x"}); EMAILS_MAX + 1]}),
        ] {
            assert!(User::parse(&sent, true).is_err(), "{sent}");
        }
        for sent in [
            json!({"displayName": "staff", "members": [{"value": "g", "type": "Group"}]}),
            json!({"displayName": "staff", "members": ["bare"]}),
            json!({"displayName": "staff", "members": [{"display": "Alice"}]}),
            json!({"displayName": "staff", "members": vec![json!({"value": "x"}); MEMBERS_MAX + 1]}),
            json!({"members": []}),
        ] {
            assert!(Group::parse(&sent).is_err(), "refused");
        }
    }

    proptest! {
        #[test]
        fn any_json_is_read_or_refused(value in any_json()) {
            if let Ok(user) = User::parse(&value, true) {
                prop_assert_eq!(User::parse(&user.document(&meta(), &[], ""), false), Ok(user));
            }
            if let Ok(group) = Group::parse(&value) {
                prop_assert_eq!(Group::parse(&group.document(&meta(), true, "")), Ok(group));
            }
        }
    }
}
