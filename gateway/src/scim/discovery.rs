//! What the gateway tells a directory of itself (RFC 7643, 5 to 7; RFC 7644, 4).

use serde_json::{Value, json};

use super::{
    list,
    resource::{GROUP_SCHEMA, USER_SCHEMA},
};

/// What is understood. `base` is the URL of `/scim/v2`, without a slash at the end.
#[must_use]
pub fn service_provider_config(base: &str, page_max: usize) -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
        "patch": {"supported": true},
        "bulk": {"supported": false, "maxOperations": 0, "maxPayloadSize": 0},
        "filter": {"supported": true, "maxResults": page_max},
        "changePassword": {"supported": false},
        "sort": {"supported": false},
        "etag": {"supported": false},
        "authenticationSchemes": [{
            "type": "oauthbearertoken",
            "name": "Bearer token",
            "description": "The scim_token of the gateway's configuration",
            "primary": true,
        }],
        "meta": {"resourceType": "ServiceProviderConfig", "location": format!("{base}/ServiceProviderConfig")},
    })
}

/// All kinds of resource, or the one of this name.
#[must_use]
pub fn resource_types(base: &str, name: Option<&str>) -> Option<Value> {
    let one = |name: &str, endpoint: &str, schema: &str| {
        json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ResourceType"],
            "id": name,
            "name": name,
            "endpoint": endpoint,
            "schema": schema,
            "meta": {"resourceType": "ResourceType", "location": format!("{base}/ResourceTypes/{name}")},
        })
    };
    pick(name, vec![one("User", "/Users", USER_SCHEMA), one("Group", "/Groups", GROUP_SCHEMA)])
}

/// All schemas, or the one of this id.
#[must_use]
pub fn schemas(base: &str, id: Option<&str>) -> Option<Value> {
    let one = |id: &str, name: &str, attributes: Value| {
        json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Schema"],
            "id": id,
            "name": name,
            "attributes": attributes,
            "meta": {"resourceType": "Schema", "location": format!("{base}/Schemas/{id}")},
        })
    };
    pick(
        id,
        vec![one(USER_SCHEMA, "User", user_attributes()), one(GROUP_SCHEMA, "Group", group_attributes())],
    )
}

fn pick(id: Option<&str>, all: Vec<Value>) -> Option<Value> {
    match id {
        None => Some(list(all.len(), 1, &all)),
        Some(id) => all.into_iter().find(|one| one["id"] == id),
    }
}

fn user_attributes() -> Value {
    json!([
        Attribute { is_required: true, uniqueness: "server", ..Attribute::text("userName") }.document(),
        Attribute { is_case_exact: true, uniqueness: "server", ..Attribute::text("externalId") }.document(),
        Attribute::text("displayName").document(),
        Attribute { kind: "boolean", ..Attribute::text("active") }.document(),
        Attribute::complex("name", &["formatted", "givenName", "familyName"]),
        Attribute::list("emails", &["value", "type", "primary"], "readWrite"),
        Attribute::list("groups", &["value", "display"], "readOnly"),
    ])
}

fn group_attributes() -> Value {
    json!([
        Attribute { is_required: true, uniqueness: "server", ..Attribute::text("displayName") }.document(),
        Attribute { is_case_exact: true, uniqueness: "server", ..Attribute::text("externalId") }.document(),
        Attribute::list("members", &["value", "type"], "readWrite"),
    ])
}

/// One attribute of a schema.
struct Attribute<'a> {
    name: &'a str,
    kind: &'a str,
    is_required: bool,
    is_case_exact: bool,
    is_list: bool,
    mutability: &'a str,
    uniqueness: &'a str,
}

impl<'a> Attribute<'a> {
    fn text(name: &'a str) -> Self {
        Self {
            name,
            kind: if name == "primary" { "boolean" } else { "string" },
            is_required: false,
            is_case_exact: false,
            is_list: false,
            mutability: "readWrite",
            uniqueness: "none",
        }
    }

    fn complex(name: &'a str, parts: &[&str]) -> Value {
        Self { kind: "complex", ..Self::text(name) }.with_parts(parts)
    }

    fn list(name: &'a str, parts: &[&str], mutability: &'a str) -> Value {
        Self { kind: "complex", is_list: true, mutability, ..Self::text(name) }.with_parts(parts)
    }

    fn with_parts(&self, parts: &[&str]) -> Value {
        let mut document = self.document();
        let part =
            |name: &&str| Attribute { mutability: self.mutability, ..Attribute::text(name) }.document();
        document["subAttributes"] = parts.iter().map(part).collect();
        document
    }

    fn document(&self) -> Value {
        json!({
            "name": self.name,
            "type": self.kind,
            "multiValued": self.is_list,
            "required": self.is_required,
            "caseExact": self.is_case_exact,
            "mutability": self.mutability,
            "returned": "default",
            "uniqueness": self.uniqueness,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_found_by_the_id_that_the_list_names() {
        for (all, one) in [
            (schemas("https://x", None), schemas as fn(&str, Option<&str>) -> Option<Value>),
            (resource_types("https://x", None), resource_types),
        ] {
            let all = all.unwrap();
            assert_eq!(all["totalResults"], 2);
            for part in all["Resources"].as_array().unwrap() {
                assert_eq!(one("https://x", part["id"].as_str()).as_ref(), Some(part));
            }
            assert_eq!(one("https://x", Some("Device")), None);
        }
    }
}
