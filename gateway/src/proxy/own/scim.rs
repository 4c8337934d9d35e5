//! Where a directory pushes people and groups: `/scim/v2/` on the sign-in host, for whoever shows `scim_token`.

use std::{borrow::Cow, collections::HashMap, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use pomerium_shared::clock::Now;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::{
    body::{self, Body},
    config::Services,
    proxy::{Live, Proxy, gate::Whereto, respond},
    scim::{
        self, MEDIA_TYPE, ScimError, discovery,
        filter::Filter,
        patch::Patch,
        resource::{Group, Meta, User},
    },
    secret::Secret,
    store::{DirectoryError, KeptUser, Window},
};

/// Below this everything is the directory's.
const BASE_PATH: &str = "/scim/v2";
/// Bytes of a body at most: a group of as many members as there may be, with their names.
const BODY_LEN_MAX: usize = 2 * 1024 * 1024;
/// For such a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Resources in one answer at most.
const PAGE_MAX: usize = 100;
/// Groups with their members in one answer at most: each may have ten thousand.
const FULL_GROUPS_MAX: usize = 10;

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target<'a> {
    Config,
    ResourceTypes(Option<&'a str>),
    Schemas(Option<&'a str>),
    Users(Option<&'a str>),
    Groups(Option<&'a str>),
}

/// What a request gets: a status, a body and perhaps the place of what is new.
struct Answer {
    status: StatusCode,
    document: Option<Value>,
    location: Option<String>,
}

impl Answer {
    const GONE: Self = Self { status: StatusCode::NO_CONTENT, document: None, location: None };

    fn ok(document: Value) -> Self {
        Self { status: StatusCode::OK, document: Some(document), location: None }
    }

    fn created(document: Value) -> Self {
        let location = document["meta"]["location"].as_str().map(str::to_owned);
        Self { status: StatusCode::CREATED, document: Some(document), location }
    }
}

/// Whether a path of the sign-in host is the directory's, where there is one.
pub(super) fn is_ours(live: &Live, path: &str) -> bool {
    live.settings.scim_token.is_some()
        && live.settings.services == Services::All
        && path.strip_prefix(BASE_PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Proxy {
    /// Answers the directory. Without the secret nothing is said, and no body is read.
    pub(super) async fn scim(
        &self,
        live: &Live,
        whereto: &Whereto,
        request: Request<Body>,
    ) -> Response<Body> {
        let base = live.settings.authenticate_url.join(BASE_PATH).map(String::from).unwrap_or_default();
        let answer = if is_authorized(live.settings.scim_token.as_ref(), request.headers()) {
            self.scim_answer(&base, whereto.path.as_str(), request).await
        } else {
            Err(ScimError::Unauthorized.into())
        };
        respond(answer.unwrap_or_else(|error| refusal(&error)))
    }

    async fn scim_answer(
        &self,
        base: &str,
        path: &str,
        request: Request<Body>,
    ) -> Result<Answer, DirectoryError> {
        let target = target(path).ok_or(ScimError::NotFound)?;
        let (method, query) = (request.method().clone(), query(request.uri()));
        let is_read = method == Method::GET;
        match target {
            Target::Users(id) => self.scim_users(base, id, &method, &query, request).await,
            Target::Groups(id) => self.scim_groups(base, id, &method, &query, request).await,
            _ if !is_read => Err(ScimError::MethodNotAllowed.into()),
            Target::Config => Ok(Answer::ok(discovery::service_provider_config(base, PAGE_MAX))),
            Target::ResourceTypes(name) => {
                Ok(Answer::ok(discovery::resource_types(base, name).ok_or(ScimError::NotFound)?))
            }
            Target::Schemas(id) => Ok(Answer::ok(discovery::schemas(base, id).ok_or(ScimError::NotFound)?)),
        }
    }

    async fn scim_users(
        &self,
        base: &str,
        id: Option<&str>,
        method: &Method,
        query: &Query,
        request: Request<Body>,
    ) -> Result<Answer, DirectoryError> {
        let (store, now) = (&self.store, Now::read().wall);
        let shown = |kept: &KeptUser| {
            let location = format!("{base}/Users/{}", kept.meta.id);
            kept.user.document(&kept.meta, &kept.groups, &location)
        };
        match (method, id) {
            (&Method::GET, None) => {
                let filter = query.get("filter").map_or(Ok(Filter::none()), |text| Filter::of_users(text))?;
                let window = window(query, PAGE_MAX)?;
                let page = store.directory_users(&filter, window).await?;
                let users: Vec<Value> = page.items.iter().map(shown).collect();
                Ok(Answer::ok(scim::list(page.total, window.skip + 1, &users)))
            }
            (&Method::GET, Some(id)) => Ok(Answer::ok(shown(&store.directory_user(id).await?))),
            (&Method::POST, None) => {
                let user = User::parse(&json(request).await?, true)?;
                let kept = store.add_directory_user(&user, now).await?;
                tracing::info!(id = kept.meta.id, "the directory added somebody");
                Ok(Answer::created(shown(&kept)))
            }
            (&Method::PUT, Some(id)) => {
                let sent = json(request).await?;
                let replace = |old: User| User::parse(&sent, old.is_active);
                let kept = store.change_directory_user(id, replace, now).await?;
                tracing::info!(id, active = kept.user.is_active, "the directory replaced somebody");
                Ok(Answer::ok(shown(&kept)))
            }
            (&Method::PATCH, Some(id)) => {
                let patch = Patch::parse(&json(request).await?)?;
                let kept = store.change_directory_user(id, |old| patch.user(old), now).await?;
                tracing::info!(id, active = kept.user.is_active, "the directory changed somebody");
                Ok(Answer::ok(shown(&kept)))
            }
            (&Method::DELETE, Some(id)) => {
                store.remove_directory_user(id, now).await?;
                tracing::info!(id, "the directory removed somebody");
                Ok(Answer::GONE)
            }
            _ => Err(ScimError::MethodNotAllowed.into()),
        }
    }

    async fn scim_groups(
        &self,
        base: &str,
        id: Option<&str>,
        method: &Method,
        query: &Query,
        request: Request<Body>,
    ) -> Result<Answer, DirectoryError> {
        let (store, now) = (&self.store, Now::read().wall);
        let is_full = !query.get("excludedAttributes").is_some_and(|names| names.contains("members"));
        let shown = |(meta, group): &(Meta, Group)| {
            group.document(meta, is_full, &format!("{base}/Groups/{}", meta.id))
        };
        match (method, id) {
            (&Method::GET, None) => {
                let filter =
                    query.get("filter").map_or(Ok(Filter::none()), |text| Filter::of_groups(text))?;
                let window = window(query, if is_full { FULL_GROUPS_MAX } else { PAGE_MAX })?;
                let page = store.directory_groups(&filter, window).await?;
                let groups: Vec<Value> = page.items.iter().map(shown).collect();
                Ok(Answer::ok(scim::list(page.total, window.skip + 1, &groups)))
            }
            (&Method::GET, Some(id)) => Ok(Answer::ok(shown(&store.directory_group(id).await?))),
            (&Method::POST, None) => {
                let group = Group::parse(&json(request).await?)?;
                let kept = store.add_directory_group(&group, now).await?;
                tracing::info!(id = kept.0.id, "the directory added a group");
                Ok(Answer::created(shown(&kept)))
            }
            (&Method::PUT, Some(id)) => {
                let new = Group::parse(&json(request).await?)?;
                let kept = store.change_directory_group(id, |_| Ok(new), now).await?;
                tracing::info!(id, members = kept.1.members.len(), "the directory replaced a group");
                Ok(Answer::ok(shown(&kept)))
            }
            (&Method::PATCH, Some(id)) => {
                let patch = Patch::parse(&json(request).await?)?;
                let kept = store.change_directory_group(id, |old| patch.group(old), now).await?;
                tracing::info!(id, members = kept.1.members.len(), "the directory changed a group");
                // Not the group itself: one member more is no reason to send ten thousand back.
                Ok(Answer::GONE)
            }
            (&Method::DELETE, Some(id)) => {
                store.remove_directory_group(id).await?;
                tracing::info!(id, "the directory removed a group");
                Ok(Answer::GONE)
            }
            _ => Err(ScimError::MethodNotAllowed.into()),
        }
    }
}

/// Whether the one `Authorization` header is the secret. Digests are compared: neither the time nor the length of a
/// comparison tells of it.
fn is_authorized(token: Option<&Secret<String>>, headers: &HeaderMap) -> bool {
    let mut sent = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(token), Some(value), None) = (token, sent.next(), sent.next()) else { return false };
    let Some((scheme, credential)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else {
        return false;
    };
    let same = Sha256::digest(credential.trim()).ct_eq(&Sha256::digest(token.expose()));
    scheme.eq_ignore_ascii_case("Bearer") && bool::from(same)
}

fn target(path: &str) -> Option<Target<'_>> {
    let rest = path.strip_prefix(BASE_PATH)?.strip_prefix('/')?;
    let (kind, id) = match rest.split_once('/') {
        None | Some((_, "")) => (rest.trim_end_matches('/'), None),
        Some((_, id)) if id.contains('/') => return None,
        Some((kind, id)) => (kind, Some(id)),
    };
    match kind {
        "ServiceProviderConfig" if id.is_none() => Some(Target::Config),
        "ResourceTypes" => Some(Target::ResourceTypes(id)),
        "Schemas" => Some(Target::Schemas(id)),
        "Users" => Some(Target::Users(id)),
        "Groups" => Some(Target::Groups(id)),
        _ => None,
    }
}

type Query = HashMap<String, String>;

fn query(uri: &Uri) -> Query {
    let pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    pairs.map(|(name, value): (Cow<'_, str>, Cow<'_, str>)| (name.into_owned(), value.into_owned())).collect()
}

/// `startIndex` and `count`; numbers out of bounds count as the nearest one within (RFC 7644, 3.4.2.4).
fn window(query: &Query, count_max: usize) -> Result<Window, ScimError> {
    let number = |name: &str| {
        let parsed = query.get(name).map(|text| text.parse::<i64>()).transpose();
        parsed.map_err(|_| ScimError::InvalidValue("startIndex and count are numbers"))
    };
    let at_least = |least: i64, number: i64| usize::try_from(number.max(least)).unwrap_or(usize::MAX);
    let start_index = at_least(1, number("startIndex")?.unwrap_or(1));
    let count = number("count")?.map_or(count_max, |count| at_least(0, count).min(count_max));
    Ok(Window { skip: start_index - 1, count })
}

async fn json(request: Request<Body>) -> Result<Value, ScimError> {
    let whole = tokio::time::timeout(BODY_TIMEOUT, body::collect(request.into_body(), BODY_LEN_MAX)).await;
    let bytes = whole.ok().flatten().ok_or(ScimError::TooLarge)?;
    serde_json::from_slice(&bytes).map_err(|_| ScimError::InvalidSyntax("the body is not JSON"))
}

fn refusal(error: &DirectoryError) -> Answer {
    let refused = match error {
        DirectoryError::Refused(refused) => *refused,
        DirectoryError::Store(store) => {
            tracing::error!(
                error = store as &dyn std::error::Error,
                "the directory cannot be read or written"
            );
            ScimError::Unavailable
        }
    };
    Answer { status: refused.status(), document: Some(refused.document()), location: None }
}

fn respond(answer: Answer) -> Response<Body> {
    let mut response = match answer.document {
        Some(document) => respond::plain(MEDIA_TYPE, document.to_string()),
        None => Response::new(body::empty()),
    };
    *response.status_mut() = answer.status;
    let mut set = |name: HeaderName, value: Option<HeaderValue>| {
        value.and_then(|value| response.headers_mut().insert(name, value));
    };
    set(header::CACHE_CONTROL, Some(HeaderValue::from_static("no-store")));
    set(header::LOCATION, answer.location.and_then(|location| location.try_into().ok()));
    let challenge = HeaderValue::from_static("Bearer realm=\"scim\"");
    set(header::WWW_AUTHENTICATE, (answer.status == StatusCode::UNAUTHORIZED).then_some(challenge));
    response
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_secret_in_the_one_header_opens() {
        let token = Secret::new("0123456789abcdef0123456789abcdef".to_owned());
        let is_open = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
            }
            is_authorized(Some(&token), &headers)
        };
        assert!(is_open(&["Bearer 0123456789abcdef0123456789abcdef"]));
        assert!(is_open(&["bearer 0123456789abcdef0123456789abcdef"]));
        for wrong in [
            &[][..],
            &[""],
            &["Bearer"],
            &["Bearer "],
            &["Bearer 0123456789abcdef0123456789abcde"],
            &["Bearer 0123456789abcdef0123456789abcdeg"],
            &["Basic 0123456789abcdef0123456789abcdef"],
            &["Pomerium 0123456789abcdef0123456789abcdef"],
            &["0123456789abcdef0123456789abcdef"],
            &["Bearer x", "Bearer 0123456789abcdef0123456789abcdef"],
            &["Bearer 0123456789abcdef0123456789abcdef", "Bearer x"],
        ] {
            assert!(!is_open(wrong), "{wrong:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer "));
        assert!(!is_authorized(None, &headers), "no secret is nobody's secret");
    }

    #[test]
    fn paths_lead_to_what_they_name() {
        assert_eq!(target("/scim/v2/Users"), Some(Target::Users(None)));
        assert_eq!(target("/scim/v2/Users/"), Some(Target::Users(None)));
        assert_eq!(target("/scim/v2/Groups/g1"), Some(Target::Groups(Some("g1"))));
        assert_eq!(target("/scim/v2/Schemas/urn:x"), Some(Target::Schemas(Some("urn:x"))));
        for path in
            ["/scim/v2", "/scim/v2/", "/scim/v2/Me", "/scim/v2/Bulk", "/scim/v2/users", "/scim/v2/Users/a/b"]
        {
            assert_eq!(target(path), None, "{path}");
        }
    }

    #[test]
    fn a_window_stays_within_its_bounds() {
        let of = |text: &str| window(&query(&format!("/?{text}").parse().unwrap()), 10);
        assert_eq!(of(""), Ok(Window { skip: 0, count: 10 }));
        assert_eq!(of("startIndex=11&count=5"), Ok(Window { skip: 10, count: 5 }));
        assert_eq!(of("startIndex=-3&count=-1"), Ok(Window { skip: 0, count: 0 }));
        assert_eq!(of("count=1000000"), Ok(Window { skip: 0, count: 10 }));
        assert!(of("count=many").is_err());
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_or_no_json_is_refused() {
        let request = |bytes: Vec<u8>| Request::new(body::full(bytes));
        assert_eq!(json(request(vec![b' '; BODY_LEN_MAX + 1])).await, Err(ScimError::TooLarge));
        assert!(matches!(json(request(b"{".to_vec())).await, Err(ScimError::InvalidSyntax(_))));
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert!(matches!(json(request(deep.into_bytes())).await, Err(ScimError::InvalidSyntax(_))));
        assert_eq!(json(request(b"{}".to_vec())).await, Ok(serde_json::json!({})));
    }

    proptest! {
        #[test]
        fn any_path_leads_somewhere_or_nowhere(path in "/scim/v2(/[A-Za-z]{0,6}){0,3}/?|.*") {
            let _ = target(&path);
        }
    }
}
