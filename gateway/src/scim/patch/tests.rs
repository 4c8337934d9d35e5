use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// JSON of any shape, with the names that mean something here among its own.
pub(in crate::scim) fn any_json() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        Just("userName"),
        Just("displayName"),
        Just("externalId"),
        Just("members"),
        Just("emails"),
        Just("value"),
        Just("active"),
        Just("name"),
        Just("givenName"),
        Just("type"),
        Just("Operations"),
        Just("op"),
        Just("path"),
        Just("emails[type eq \"work\"].value"),
        Just("name.givenName"),
    ];
    let name = prop_oneof![4 => name.prop_map(str::to_owned), 1 => ".{0,6}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop_oneof![
            Just("add"),
            Just("Remove"),
            Just("replace"),
            Just("True"),
            Just("members[value eq \"a\"]")
        ]
        .prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map(name.clone(), inner, 0..6).prop_map(|map| json!(map)),
        ]
    })
}

fn alice() -> User {
    User {
        user_name: "alice@corp.example".to_owned(),
        external_id: Some("00u1".to_owned()),
        display_name: None,
        name: Name::default(),
        emails: vec![Email {
            value: "alice@corp.example".to_owned(),
            kind: Some("work".to_owned()),
            is_primary: true,
        }],
        is_active: true,
    }
}

fn staff(members: &[&str]) -> Group {
    let members = members.iter().map(|&id| id.to_owned()).collect();
    Group { display_name: "staff".to_owned(), external_id: None, members }
}

fn patch(operations: &Value) -> Patch {
    Patch::parse(
        &json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": operations}),
    )
    .unwrap()
}

#[test]
fn okta_and_entra_deactivate_somebody_each_in_their_way() {
    for operations in [
        json!([{"op": "replace", "value": {"active": false}}]),
        json!([{"op": "Replace", "path": "active", "value": "False"}]),
        json!([{"op": "add", "path": "urn:ietf:params:scim:schemas:core:2.0:User:active", "value": false}]),
        json!([{"op": "replace", "path": "active", "value": true}, {"op": "replace", "path": "ACTIVE", "value": false}]),
    ] {
        assert!(!patch(&operations).user(alice()).unwrap().is_active, "{operations}");
    }
}

#[test]
fn addresses_and_names_are_changed_by_their_kind() {
    let changed = patch(&json!([
        {"op": "Replace", "path": "emails[type eq \"work\"].value", "value": "a.smith@corp.example"},
        {"op": "Add", "path": "emails[type eq \"home\"].value", "value": "alice@home.example"},
        {"op": "Add", "value": {"name.givenName": "Alice", "displayName": "Alice Smith", "id": "ignored"}},
        {"op": "Add", "path": "name", "value": {"familyName": "Smith"}},
        {"op": "Add", "path": "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department", "value": "IT"},
        {"op": "replace", "path": "title", "value": "Boss"},
    ]))
    .user(alice())
    .unwrap();
    let values: Vec<_> = changed.emails.iter().map(|email| email.value.as_str()).collect();
    assert_eq!(values, ["a.smith@corp.example", "alice@home.example"]);
    assert_eq!(changed.name.given.as_deref(), Some("Alice"));
    assert_eq!(changed.name.family.as_deref(), Some("Smith"));
    assert_eq!(changed.display_name.as_deref(), Some("Alice Smith"));
}

#[test]
fn members_come_and_go_in_every_shape() {
    for (operations, members) in [
        (
            json!([{"op": "add", "path": "members", "value": [{"value": "b"}, {"value": "c", "$ref": "x"}]}]),
            "abc",
        ),
        (json!([{"op": "Add", "value": {"members": [{"value": "b"}]}}]), "ab"),
        (json!([{"op": "add", "path": "members", "value": {"value": "b"}}]), "ab"),
        (json!([{"op": "remove", "path": "members[value eq \"a\"]"}]), ""),
        (json!([{"op": "Remove", "path": "members", "value": [{"value": "a"}]}]), ""),
        (json!([{"op": "Remove", "path": "members[value eq \"b\"]"}]), "a"),
        (json!([{"op": "remove", "path": "members"}]), ""),
        (json!([{"op": "replace", "path": "members", "value": [{"value": "c"}]}]), "c"),
        (json!([{"op": "replace", "value": {"id": "g1", "displayName": "staff"}}]), "a"),
    ] {
        let changed = patch(&operations).group(staff(&["a"])).unwrap();
        assert_eq!(changed.members.into_iter().collect::<String>(), members, "{operations}");
    }
}

#[test]
fn what_leads_nowhere_is_refused_and_changes_nothing() {
    for (operation, error) in [
        (json!({"op": "replace", "path": "actve", "value": false}), "invalidPath"),
        (json!({"op": "replace", "path": "active", "value": "no"}), "invalidValue"),
        (json!({"op": "remove", "path": "active"}), "invalidValue"),
        (json!({"op": "remove", "path": "userName"}), "invalidValue"),
        (json!({"op": "replace", "path": "id", "value": "x"}), "mutability"),
        (json!({"op": "add", "path": "groups", "value": [{"value": "admins"}]}), "mutability"),
        (json!({"op": "remove", "value": {"active": true}}), "noTarget"),
        (json!({"op": "replace", "value": 7}), "noTarget"),
        (json!({"op": "replace", "path": "emails[value eq \"x\"].value", "value": "y"}), "noTarget"),
        (json!({"op": "replace", "path": "emails[", "value": "y"}), "invalidPath"),
        (json!({"op": "replace", "path": "emails[type eq \"work\"]value", "value": "y"}), "invalidPath"),
    ] {
        let refused = patch(&json!([operation])).user(alice()).unwrap_err();
        assert_eq!(refused.document()["scimType"], error, "{operation}");
    }
    let group = patch(&json!([{"op": "add", "path": "members[value eq \"b\"]", "value": "x"}]));
    assert!(group.group(staff(&["a"])).is_err());
    for body in [json!({}), json!([]), json!({"Operations": 1}), json!({"Operations": [{"op": "move"}]})] {
        assert!(Patch::parse(&body).is_err(), "{body}");
    }
    let many = vec![json!({"op": "add", "path": "active", "value": true}); OPERATIONS_MAX + 1];
    assert!(Patch::parse(&json!({"Operations": many})).is_err());
}

/// One change of members as a directory might say it, and what a set makes of it.
#[derive(Debug, Clone)]
enum Change {
    Add(BTreeSet<String>),
    Replace(BTreeSet<String>),
    Remove(BTreeSet<String>),
    RemoveOne(String),
    Clear,
}

impl Change {
    fn operation(&self, has_path: bool) -> Value {
        let list = |ids: &BTreeSet<String>| ids.iter().map(|id| json!({"value": id})).collect::<Value>();
        let with = |op: &str, ids| match has_path {
            true => json!({"op": op, "path": "members", "value": list(ids)}),
            false => json!({"op": op, "value": {"Members": list(ids)}}),
        };
        match self {
            Self::Add(ids) => with("Add", ids),
            Self::Replace(ids) => with("replace", ids),
            Self::Remove(ids) => json!({"op": "remove", "path": "members", "value": list(ids)}),
            Self::RemoveOne(id) => {
                json!({"op": "Remove", "path": format!("members[value eq {}]", Value::from(id.as_str()))})
            }
            Self::Clear => json!({"op": "remove", "path": "members"}),
        }
    }

    fn apply(&self, members: &mut BTreeSet<String>) {
        match self {
            Self::Add(ids) => members.extend(ids.iter().cloned()),
            Self::Replace(ids) => members.clone_from(ids),
            Self::Remove(ids) => *members = members.difference(ids).cloned().collect(),
            Self::RemoveOne(id) => _ = members.remove(id),
            Self::Clear => members.clear(),
        }
    }
}

fn any_change() -> impl Strategy<Value = Change> {
    let id = || prop_oneof![Just("a"), Just("b"), Just("c"), Just("\"]"), Just("ü")].prop_map(str::to_owned);
    let ids = move || proptest::collection::btree_set(id(), 0..4);
    prop_oneof![
        ids().prop_map(Change::Add),
        ids().prop_map(Change::Replace),
        ids().prop_map(Change::Remove),
        id().prop_map(Change::RemoveOne),
        Just(Change::Clear),
    ]
}

proptest! {
    #[test]
    fn members_are_what_a_plain_set_would_hold(changes in proptest::collection::vec((any_change(), any::<bool>()), 0..12)) {
        let mut expected = BTreeSet::from(["a".to_owned()]);
        let operations: Vec<Value> = changes.iter().map(|(change, has_path)| change.operation(*has_path)).collect();
        for (change, _) in &changes {
            change.apply(&mut expected);
        }
        prop_assert_eq!(patch(&json!(operations)).group(staff(&["a"])).unwrap().members, expected);
    }

    #[test]
    fn any_patch_is_applied_or_refused(
        value in any_json(), path in proptest::option::of(".{0,20}|(emails|members|name)(\\[[a-z]{1,6} eq \"?.{0,3}\"?\\])?(\\.[a-z]{1,6})?"),
    ) {
        for op in ["add", "replace", "remove"] {
            let operation = match &path {
                Some(path) => json!({"op": op, "path": path, "value": value}),
                None => json!({"op": op, "value": value}),
            };
            // A path may be blank or hold control characters: that is refused when it is read.
            let Ok(patch) = Patch::parse(&json!({"Operations": [operation]})) else { continue };
            if let Ok(user) = patch.user(alice()) {
                prop_assert!(!user.user_name.is_empty() && user.emails.len() <= EMAILS_MAX);
            }
            let _ = patch.group(staff(&["a"]));
        }
        let _ = Patch::parse(&value);
    }

    #[test]
    fn only_what_says_so_in_so_many_words_activates_somebody(value in any_json()) {
        let inactive = User { is_active: false, ..alice() };
        let changed = patch(&json!([{"op": "replace", "path": "active", "value": value}])).user(inactive);
        let says_so = value == json!(true) || value.as_str().is_some_and(|text| text.eq_ignore_ascii_case("true"));
        prop_assert_eq!(changed.is_ok_and(|user| user.is_active), says_so);
    }
}
