//! From a raw request to a permit: host, path, route, session, decision, in this order and nowhere else.

use std::sync::Arc;

use http::{HeaderMap, Uri};
use pomerium_shared::clock::Now;
use url::Url;

use super::{
    Connection, Live, Proxy, Refusal,
    arrival::Arrival,
    authority::{Authority, AuthorityError},
    caller::Caller,
    decider::Asked,
    own,
    question::{Question, Unrouted},
    respond::{Denied, WayIn},
};
use crate::{
    authenticate::InvalidCredential,
    authorize::{Denial, Permit, Verdict},
    config::{Route, SameSite},
    path::CanonicalPath,
    portal::{Circle, Hindrance},
    session::{Session, demand::SignInDemand},
};

/// A request that policy allowed, with what the rest of the way needs.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) permit: Permit,
    pub(crate) route: Arc<Route>,
    pub(crate) session: Option<Arc<Session>>,
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

impl From<Unrouted> for Refusal {
    fn from(why: Unrouted) -> Self {
        match why {
            Unrouted::Nowhere => Self::NoRoute,
            Unrouted::Parameters => Self::BadRequest(
                "the path has parameters (;...), without which it would lead elsewhere or be judged otherwise"
                    .to_owned(),
            ),
        }
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
        let route = question.route(&live.router)?;
        let is_own = |path| own::is_own(live, &Whereto { authority: whereto.authority.clone(), path });
        if whereto.path.without_parameters().is_some_and(is_own) {
            return Err(Unrouted::Parameters.into());
        }
        let host = Some(whereto.authority.host());
        let mut caller = self.caller(live, (&parts.headers, &parts.uri), host, connection, now).await?;
        caller.must_be_vouched_for(route.unreachable_grace, now);
        let unmet = caller.must_meet(&route.sign_in, now);
        let asked = Asked { route, caller: &caller, question: &question, request_id };
        match live.check(asked, now).await? {
            Ok(permit) => Ok(Admitted { permit, route: route.clone(), session: caller.session, question }),
            Err(denial) if denial.verdict == Verdict::SignIn => {
                let lack = Lack { demand: &route.sign_in, unmet, rejected: caller.rejected };
                Err(sign_in(live, whereto, parts, lack, now)?)
            }
            Err(denial)
                if denial.decision.wants_device()
                    && Arrival::of(&parts.method, &parts.headers) == Arrival::Page =>
            {
                let session = caller.session.as_ref().filter(|session| session.bound_to.is_none());
                let Some(session) = session else {
                    return Err(denied(denial, route, caller.session.as_deref(), &sign_out_url(live)));
                };
                let back = whereto.url(parts.uri.query())?;
                let redirect = live.authenticate.device_proof_response(&back, session, now.wall);
                Err(Refusal::ShowDevice(Box::new(redirect)))
            }
            Err(denial) => Err(denied(denial, route, caller.session.as_deref(), &sign_out_url(live))),
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
        question.route(&live.router)?;
        // The authority of a tunnel is the app; the token was made for the gateway's host that the client speaks to.
        let sign_in_host = live.settings.authenticate_url.host_str();
        let host = connection.server_name.as_deref().or(sign_in_host);
        let caller = self.caller(live, (&parts.headers, &parts.uri), host, connection, now).await?;
        live.admit_caller(question, caller, request_id, now).await
    }
}

impl Live {
    /// Decides on a TCP stream or a flow of datagrams of somebody who is known.
    pub(super) async fn admit_caller(
        &self,
        question: Question,
        mut caller: Caller,
        request_id: &str,
        now: Now,
    ) -> Result<Admitted, Refusal> {
        let route = question.route(&self.router)?;
        caller.must_be_vouched_for(route.unreachable_grace, now);
        let unmet = caller.must_meet(&route.sign_in, now);
        let asked = Asked { route, caller: &caller, question: &question, request_id };
        match self.check(asked, now).await? {
            Ok(permit) => Ok(Admitted { permit, route: route.clone(), session: caller.session, question }),
            Err(denial) if denial.verdict == Verdict::SignIn => {
                Err(Lack { demand: &route.sign_in, unmet, rejected: caller.rejected }.told(None))
            }
            Err(denial) => Err(denied(denial, route, caller.session.as_deref(), &sign_out_url(self))),
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

/// What is missing where nobody is signed in, as far as a route is concerned.
#[derive(Debug)]
pub(super) struct Lack<'a> {
    /// What the route asks of a sign-in.
    pub(super) demand: &'a SignInDemand,
    /// The same, if somebody is signed in and falls short of it.
    pub(super) unmet: Option<&'a SignInDemand>,
    /// Why the credential that came along is worth nothing.
    pub(super) rejected: Option<InvalidCredential>,
}

impl Lack<'_> {
    /// Nobody is known, and anybody would do.
    pub(super) fn of_anybody(rejected: Option<InvalidCredential>) -> Lack<'static> {
        static NONE: SignInDemand = SignInDemand::NONE;
        Lack { demand: &NONE, unmet: None, rejected }
    }

    /// For a program: what it has to ask for; `page` is where a person can do so for it.
    fn told(self, page: Option<Url>) -> Refusal {
        match self.unmet {
            Some(demand) => Refusal::StepUp { challenge: demand.challenge() },
            None => Refusal::SignIn { way: WayIn::Itself(page), rejected: self.rejected },
        }
    }

    fn circle(&self, cookie_name: &str) -> Circle {
        match (self.unmet, self.rejected) {
            (Some(_), _) => Circle::Unmet,
            (None, Some(why)) => Circle::Refused(why.to_string()),
            (None, None) => Circle::NoCookie(cookie_name.to_owned()),
        }
    }
}

/// Sends a browser to sign in, or says what keeps it from there; a program gets 401.
pub(super) fn sign_in(
    live: &Live,
    whereto: &Whereto,
    parts: &http::request::Parts,
    lack: Lack<'_>,
    now: Now,
) -> Result<Refusal, Refusal> {
    let original = whereto.url(parts.uri.query())?;
    // A page of this host that has everybody sign in, and asks nothing of them.
    let own_page = original.join("/.pomerium/").unwrap_or_else(|_| original.clone());
    let cookie = &live.settings.cookie;
    let is_kept_back = |is_foreign: bool| is_foreign && cookie.same_site != SameSite::None;
    let (hindrance, page) = match Arrival::of(&parts.method, &parts.headers) {
        Arrival::Program => return Ok(lack.told(Some(own_page))),
        Arrival::Form { is_foreign } => (Hindrance::Form { is_foreign: is_kept_back(is_foreign) }, own_page),
        // Not even the cookie that binds the sign-in to this browser would come along.
        Arrival::Frame { is_foreign: true } => {
            (Hindrance::Frame { is_foreign: is_kept_back(true) }, original)
        }
        Arrival::Page | Arrival::Frame { is_foreign: false } => {
            if live.authenticate.goes_in_circles(&parts.headers) {
                tracing::warn!(
                    host = whereto.authority.host(),
                    ?lack,
                    "a browser signs in over and over again"
                );
                (Hindrance::Circle(lack.circle(&cookie.name)), original)
            } else {
                let sent =
                    live.authenticate.sign_in_response(&original, &parts.headers, lack.demand, now.wall);
                let redirect =
                    sent.map_err(|_| Refusal::Gateway("The sign-in cannot begin. Try again.".to_owned()))?;
                let way = WayIn::Redirect(Box::new(redirect));
                return Ok(Refusal::SignIn { way, rejected: lack.rejected });
            }
        }
    };
    let way = WayIn::Hindered { hindrance, page: Box::new(page) };
    Ok(Refusal::SignIn { way, rejected: lack.rejected })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{StatusCode, header};

    use super::*;
    use crate::{
        proxy::respond::{Audience, Form},
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
        let mut caller = Caller { session: Some(Arc::new(session)), device: None, rejected: None };
        assert_eq!(caller.must_meet(&SignInDemand::default(), now), None);
        assert!(caller.session.is_some());
        let unmet = caller.must_meet(&demand, now);
        assert!(caller.session.is_none() && unmet.is_some());
        let refusal = Lack { demand: &demand, unmet, rejected: None }.told(None);
        let audience = Audience { request_id: "r", host: "h", form: Form::Document };
        let response = refusal.into_response(audience);
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let challenge = response.headers()[header::WWW_AUTHENTICATE].to_str().unwrap();
        assert!(
            challenge.contains("insufficient_user_authentication") && challenge.contains("phr"),
            "{challenge}"
        );
        let plain = Lack::of_anybody(None).told(None).into_response(audience);
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
            let mut caller = Caller { session: Some(Arc::new(session)), device: None, rejected: None };
            caller.must_be_vouched_for(Duration::from_secs(grace), now);
            assert_eq!(caller.session.is_some(), counts, "{vouched_until:?} {grace}");
            assert_eq!(caller.rejected, (!counts).then_some(InvalidCredential::Unvouched));
        }
        let refusal = Lack::of_anybody(Some(InvalidCredential::Unvouched)).told(None);
        let audience = Audience { request_id: "r", host: "h", form: Form::Document };
        assert_eq!(refusal.into_response(audience).status(), StatusCode::UNAUTHORIZED);
    }
}
