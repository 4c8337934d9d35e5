//! People, as an administrator names them and is told of them.

use crate::{session::UserId, store::User};

/// Whether somebody is meant by an id or email address; everybody is where none is given.
pub(super) fn is_meant(users: &[User], id: &UserId, person: Option<&str>) -> bool {
    let Some(wanted) = person else { return true };
    id.as_str() == wanted
        || users.iter().any(|user| user.id == *id && user.email.eq_ignore_ascii_case(wanted))
}

/// Somebody's email address; their id where it is not known.
pub(super) fn name(users: &[User], id: &UserId) -> String {
    let user = users.iter().find(|user| user.id == *id);
    user.map(|user| user.email.clone()).filter(|email| !email.is_empty()).unwrap_or_else(|| id.to_string())
}
