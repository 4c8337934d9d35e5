//! From a raw request to a permit: host, path, route, session, decision, in this order and nowhere else.

use std::sync::Arc;

use http::{HeaderMap, Method, Uri, header};
use pomerium_shared::clock::Now;
use url::Url;

use super::{
    Connection, Live, Proxy, Refusal,
    authority::{Authority, AuthorityError},
    decider::Asked,
    question::Question,
    respond::{Denied, wants_html},
};
use crate::{
    authenticate::InvalidCredential,
    authorize::{Denial, Permit, Verdict},
    config::Route,
    path::CanonicalPath,
    session::{Session, demand::SignInDemand},
};

/// A request that policy allowed, with what the rest of the way needs.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) permit: Permit,
    pub(crate) route: Arc<Route>,
    pub(crate) session: Option<Session>,
    pub(super) question: Question,
}

/// Where an HTTP request wants to go, checked and in canonical form.
#[derive(Debug)]
pub(crate) struct Whereto {
    pub(crate) authority: Authority,
    pub(crate) path: CanonicalPath,
}

impl Whereto {
    pub(crate) fn of(uri: &Uri, headers: &HeaderMap, connection: &Connection) -> Result<Self, Refusal> {
        let authority =
            Authority::of(uri, headers, connection.server_name.as_deref()).map_err(refuse_authority)?;
        let path =
            CanonicalPath::parse(uri.path()).map_err(|error| Refusal::BadRequest(error.to_string()))?;
        Ok(Self { authority, path })
    }

    /// The absolute URL of the request, as the browser has it.
    pub(crate) fn url(&self, query: Option<&str>) -> Result<Url, Refusal> {
        let query = query.map(|q| format!("?{q}")).unwrap_or_default();
        Url::parse(&format!("https://{}{}{query}", self.authority.to_host_port(), self.path.as_str()))
            .map_err(|_| Refusal::BadRequest("the request's URL cannot be read".to_owned()))
    }
}

pub(super) fn refuse_authority(error: AuthorityError) -> Refusal {
    match error {
        AuthorityError::Missing | AuthorityError::Contradiction => Refusal::BadRequest(error.to_string()),
        AuthorityError::Misdirected => Refusal::Misdirected,
    }
}

impl Proxy {
    /// Decides on an HTTP request.
    pub(super) async fn admit_http(
        &self,
        live: &Live,
        whereto: &Whereto,
        parts: &http::request::Parts,
        connection: &Connection,
        request_id: &str,
    ) -> Result<Admitted, Refusal> {
        let now = Now::read();
        let question = Question::request(whereto, parts, connection);
        let route = question.route(&live.router).ok_or(Refusal::NoRoute)?;
        let host = Some(whereto.authority.host());
        let mut caller = self.caller(live, (&parts.headers, &parts.uri), host, connection, now).await?;
        caller.must_be_vouched_for(route.unreachable_grace, now);
        let unmet = caller.must_meet(&route.sign_in, now);
        let asked = Asked { route, caller: &caller, question: &question, request_id };
        match live.check(asked, now).await? {
            Ok(permit) => Ok(Admitted { permit, route: route.clone(), session: caller.session, question }),
            Err(denial) if denial.verdict == Verdict::SignIn => {
                let refusal = sign_in(live, whereto, parts, &route.sign_in, caller.rejected, now)?;
                Err(refusal.unless_browser(unmet))
            }
            Err(denial) if denial.decision.wants_device() && is_navigation(parts) => {
                let session = caller.session.as_ref().filter(|session| session.bound_to.is_none());
                let Some(session) = session else {
                    return Err(denied(denial, route, caller.session.as_ref(), &sign_out_url(live)));
                };
                let back = whereto.url(parts.uri.query())?;
                let redirect = live.authenticate.device_proof_response(&back, session, now.wall);
                Err(Refusal::ShowDevice(Box::new(redirect)))
            }
            Err(denial) => Err(denied(denial, route, caller.session.as_ref(), &sign_out_url(live))),
        }
    }

    /// Decides on a TCP stream or a flow of datagrams.
    pub(super) async fn admit_stream(
        &self,
        live: &Live,
        question: Question,
        parts: &http::request::Parts,
        connection: &Connection,
        request_id: &str,
    ) -> Result<Admitted, Refusal> {
        let now = Now::read();
        let route = question.route(&live.router).ok_or(Refusal::NoRoute)?;
        // The authority of a tunnel is the app; the token was made for the gateway's host that the client speaks to.
        let sign_in_host = live.settings.authenticate_url.host_str();
        let host = connection.server_name.as_deref().or(sign_in_host);
        let mut caller = self.caller(live, (&parts.headers, &parts.uri), host, connection, now).await?;
        caller.must_be_vouched_for(route.unreachable_grace, now);
        let unmet = caller.must_meet(&route.sign_in, now);
        let asked = Asked { route, caller: &caller, question: &question, request_id };
        match live.check(asked, now).await? {
            Ok(permit) => Ok(Admitted { permit, route: route.clone(), session: caller.session, question }),
            Err(denial) if denial.verdict == Verdict::SignIn => {
                Err(Refusal::SignIn { redirect: None, rejected: caller.rejected }.unless_browser(unmet))
            }
            Err(denial) => Err(denied(denial, route, caller.session.as_ref(), &sign_out_url(live))),
        }
    }
}

fn denied(denial: Denial, route: &Route, session: Option<&Session>, sign_out_url: &str) -> Refusal {
    Refusal::Denied(Box::new(Denied {
        denial,
        route_name: route.name.clone(),
        email: session.map(|s| s.email.clone()).unwrap_or_default(),
        sign_out_url: sign_out_url.to_owned(),
        show_traces: route.show_error_details,
    }))
}

fn sign_out_url(live: &Live) -> String {
    live.settings.authenticate_url.join("/.pomerium/sign_out").map(String::from).unwrap_or_default()
}

/// Whether a browser opens a page, and may be sent elsewhere: no program with a token, no script, no form.
fn is_navigation(parts: &http::request::Parts) -> bool {
    let navigates = wants_html(&parts.headers) || !parts.headers.contains_key(header::ACCEPT);
    let has_credential = parts.headers.contains_key(header::AUTHORIZATION)
        || parts.headers.contains_key("x-pomerium-authorization");
    navigates && !has_credential && parts.method == Method::GET
}

/// Sends a browser to sign in; a program gets 401.
pub(super) fn sign_in(
    live: &Live,
    whereto: &Whereto,
    parts: &http::request::Parts,
    demand: &SignInDemand,
    rejected: Option<InvalidCredential>,
    now: Now,
) -> Result<Refusal, Refusal> {
    if !is_navigation(parts) {
        return Ok(Refusal::SignIn { redirect: None, rejected });
    }
    let original = whereto.url(parts.uri.query())?;
    match live.authenticate.sign_in_response(&original, &parts.headers, demand, now.wall) {
        Ok(response) => Ok(Refusal::SignIn { redirect: Some(Box::new(response)), rejected }),
        Err(_) => Err(Refusal::Gateway("The sign-in cannot begin. Try again.".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::*;
    use crate::{
        proxy::{caller::Caller, respond::Audience},
        session::{SessionId, UserId},
    };

    fn session(now: Now) -> Session {
        Session {
            id: SessionId::new("s"),
            user_id: UserId::new("u"),
            idp_id: String::new(),
            email: String::new(),
            name: String::new(),
            groups: vec![],
            claims: [].into(),
            issued_at: now.wall,
            expires_at: now.wall,
            bound_to: None,
            vouched_until: None,
            proof: None,
        }
    }

    #[test]
    fn a_session_that_falls_short_counts_as_none_and_a_program_is_told_what_to_ask_for() {
        let now = Now::read();
        let session = Session { claims: [("acr".to_owned(), vec!["pwd".into()])].into(), ..session(now) };
        let demand = SignInDemand { acr_values: vec!["phr".to_owned()], ..SignInDemand::default() };
        let mut caller = Caller { session: Some(session), device: None, rejected: None };
        assert_eq!(caller.must_meet(&SignInDemand::default(), now), None);
        assert!(caller.session.is_some());
        let unmet = caller.must_meet(&demand, now);
        assert!(caller.session.is_none() && unmet.is_some());
        let refusal = Refusal::SignIn { redirect: None, rejected: None }.unless_browser(unmet);
        let audience = Audience { request_id: "r", host: "h", page: None };
        let response = refusal.into_response(audience);
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let challenge = response.headers()[header::WWW_AUTHENTICATE].to_str().unwrap();
        assert!(
            challenge.contains("insufficient_user_authentication") && challenge.contains("phr"),
            "{challenge}"
        );
        let plain =
            Refusal::SignIn { redirect: None, rejected: None }.unless_browser(None).into_response(audience);
        assert!(
            !plain.headers().contains_key(header::WWW_AUTHENTICATE),
            "a stranger is asked to sign in, no more"
        );
    }

    #[test]
    fn a_session_that_nobody_has_confirmed_for_too_long_counts_as_none_where_that_is_not_borne() {
        let now = Now::read();
        let until = now.wall - Duration::from_secs(60);
        for (vouched_until, grace, counts) in [
            (None, 0, true),
            (Some(until), 61, true),
            (Some(until), 60, false),
            (Some(until), 0, false),
            (Some(now.wall + Duration::from_secs(1)), 0, true),
        ] {
            let session = Session { vouched_until, ..session(now) };
            let mut caller = Caller { session: Some(session), device: None, rejected: None };
            caller.must_be_vouched_for(Duration::from_secs(grace), now);
            assert_eq!(caller.session.is_some(), counts, "{vouched_until:?} {grace}");
            assert_eq!(caller.rejected, (!counts).then_some(InvalidCredential::Unvouched));
        }
        let refusal = Refusal::SignIn { redirect: None, rejected: Some(InvalidCredential::Unvouched) };
        let audience = Audience { request_id: "r", host: "h", page: None };
        assert_eq!(refusal.into_response(audience).status(), StatusCode::UNAUTHORIZED);
    }
}
