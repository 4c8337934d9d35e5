//! Signing in anew: the session goes on, with what a route asks of the sign-in.

use pomerium_shared::clock::Now;
use serde_json::{Value, json};

use super::{
    idp::{Trip, callback_of, claims, parameter, trip},
    *,
};
use crate::session::demand::Prompt;

/// A browser that has signed in.
struct Home {
    trip: Trip,
    session: Arc<Session>,
}

impl Home {
    async fn new() -> Self {
        let mut trip = trip().await;
        let hand_over = location(&trip.browser.get(&trip.service, &trip.callback, trip.now.wall).await);
        location(&trip.browser.get(&trip.service, &hand_over, trip.now.wall).await);
        let session = session_at_app(&trip, trip.now).await.unwrap();
        Self { trip, session }
    }

    fn later(&self, seconds: u64) -> Now {
        let later = Duration::from_secs(seconds);
        Now { monotonic: self.trip.now.monotonic + later, wall: self.trip.now.wall + later }
    }

    /// Goes to the provider by this link, and comes back as `person` with further claims.
    async fn sign_in_by(
        &mut self,
        link: &Url,
        person: &str,
        more: Value,
        now: Now,
    ) -> (Url, Response<Bytes>) {
        let Trip { idp, service, browser, .. } = &mut self.trip;
        let at_provider = location(&browser.get(service, link, now.wall).await);
        let (callback, nonce) = callback_of(&at_provider);
        let mut said = claims(idp, &nonce, now);
        said["sub"] = json!(person);
        said.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        idp.will_say(said);
        (at_provider, browser.get(service, &callback, now.wall).await)
    }
}

async fn session_at_app(trip: &Trip, now: Now) -> Option<Arc<Session>> {
    let headers = trip.browser.headers(&url("https://app.example.com/"));
    trip.service.session_of(&headers, None, Some("app.example.com"), None, now.wall).await.unwrap()
}

async fn renew_link(home: &mut Home, now: Now) -> Url {
    let Trip { service, browser, .. } = &mut home.trip;
    location(&browser.get(service, &url("https://authenticate.example.com/.pomerium/renew"), now.wall).await)
}

#[tokio::test]
async fn signing_in_again_renews_the_session_and_keeps_its_id() {
    let mut home = Home::new().await;
    let now = home.later(600);
    let link = renew_link(&mut home, now).await;
    let (at_provider, response) = home.sign_in_by(&link, "alice", json!({"groups": ["admins"]}), now).await;
    assert_eq!(parameter(&at_provider, "prompt"), "login");
    assert_eq!(location(&response).host_str(), Some("authenticate.example.com"));
    let renewed = home.trip.service.store.session(&home.session.id).await.unwrap().unwrap();
    assert_eq!(renewed.groups, ["admins"], "claims are replaced");
    assert_eq!(renewed.issued_at.duration_since(home.session.issued_at).unwrap().as_secs(), 600);
    assert_eq!(renewed.expires_at.duration_since(home.session.expires_at).unwrap().as_secs(), 600);
    assert_eq!(
        session_at_app(&home.trip, now).await.unwrap().id,
        home.session.id,
        "what was open stays open"
    );
}

#[tokio::test]
async fn somebody_else_in_the_same_browser_gets_a_session_of_their_own() {
    let mut home = Home::new().await;
    let now = home.later(600);
    let link = renew_link(&mut home, now).await;
    let (_, response) = home.sign_in_by(&link, "bob", json!({"email": "bob@example.com"}), now).await;
    location(&response);
    let old = home.trip.service.store.session(&home.session.id).await.unwrap().unwrap();
    assert_eq!((old.user_id.as_str(), old.expires_at), ("alice", home.session.expires_at));
}

#[tokio::test]
async fn an_ended_session_is_not_brought_back_by_its_cookie() {
    let mut home = Home::new().await;
    let now = home.later(600);
    let link = renew_link(&mut home, now).await;
    home.trip.service.store.end_session(&home.session.id).await.unwrap();
    let (_, response) = home.sign_in_by(&link, "alice", json!({}), now).await;
    location(&response);
    assert_eq!(home.trip.service.store.session(&home.session.id).await.unwrap(), None);
}

#[tokio::test]
async fn renewing_leads_to_our_hosts_only() {
    let mut home = Home::new().await;
    let renew = url(
        "https://authenticate.example.com/.pomerium/renew?pomerium_redirect_uri=https%3A%2F%2Fevil.example%2F",
    );
    let Trip { service, browser, now, .. } = &mut home.trip;
    assert_eq!(browser.get(service, &renew, now.wall).await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_step_up_asks_the_provider_and_is_checked_on_return() {
    let app = url("https://app.example.com/vault");
    let demand = SignInDemand { prompt: None, max_age_seconds: Some(300), acr_values: vec!["phr".into()] };
    let mut home = Home::new().await;
    let now = home.later(600);
    let recent = now.unix_seconds();
    for (said, is_enough) in [
        (json!({}), false),
        (json!({"auth_time": recent, "acr": "pwd"}), false),
        (json!({"auth_time": recent}), false),
        (json!({"acr": "phr"}), false),
        (json!({"auth_time": recent - 301, "acr": "phr"}), false),
        (json!({"auth_time": recent, "acr": "phr"}), true),
    ] {
        assert!(demand.check(&home.session, now.wall).is_err());
        // The session at the sign-in host is not handed over: it falls short.
        let link = home.trip.browser.begin_for(&home.trip.service, &app, &demand, now.wall);
        let (at_provider, response) = home.sign_in_by(&link, "alice", said.clone(), now).await;
        assert_eq!(parameter(&at_provider, "max_age"), "300");
        assert_eq!(parameter(&at_provider, "acr_values"), "phr");
        let expected = if is_enough { StatusCode::FOUND } else { StatusCode::FORBIDDEN };
        assert_eq!(response.status(), expected, "{said}");
        assert_eq!(response.headers().contains_key(header::SET_COOKIE), is_enough, "{said}");
    }
    // Now it is enough, and the next app with this demand asks nobody.
    let stepped_up = home.trip.service.store.session(&home.session.id).await.unwrap().unwrap();
    assert!(demand.check(&stepped_up, now.wall).is_ok(), "stepping up is in place");
    let link = home.trip.browser.begin_for(&home.trip.service, &app, &demand, now.wall);
    let hand_over = location(&home.trip.browser.get(&home.trip.service, &link, now.wall).await);
    assert_eq!(hand_over.path(), "/.pomerium/callback/");
}

#[tokio::test]
async fn a_prompt_is_shown_each_time_and_replaces_the_configured_one() {
    let mut home = Home::new().await;
    home.trip.service.config.identity_provider.request_params = vec![];
    let demand = SignInDemand { prompt: Some(Prompt::Login), ..SignInDemand::default() };
    let app = url("https://app.example.com/");
    let link = home.trip.browser.begin_for(&home.trip.service, &app, &demand, home.trip.now.wall);
    let now = home.trip.now;
    let (at_provider, response) = home.sign_in_by(&link, "alice", json!({}), now).await;
    let prompts = at_provider.query_pairs().filter(|(name, _)| name == "prompt").count();
    assert_eq!((prompts, parameter(&at_provider, "prompt").as_str()), (1, "login"));
    location(&response);
}

#[tokio::test]
async fn a_program_may_ask_for_a_step_up_and_for_nothing_odd() {
    let mut home = Home::new().await;
    let Trip { service, browser, now, .. } = &mut home.trip;
    let ask = |query: &str| {
        url(&format!(
            "https://app.example.com/.pomerium/api/v1/login?pomerium_redirect_uri=http%3A%2F%2F127.0.0.1%3A5&{query}"
        ))
    };
    let response = browser.get(service, &ask("max_age=60&acr_values=phr"), now.wall).await;
    let link = url(std::str::from_utf8(response.body()).unwrap());
    let at_provider = location(&browser.get(service, &link, now.wall).await);
    assert_eq!(
        (parameter(&at_provider, "max_age"), parameter(&at_provider, "acr_values")),
        ("60".into(), "phr".into())
    );
    for odd in ["max_age=soon", "prompt=none", "acr_values=%22"] {
        assert_eq!(
            browser.get(service, &ask(odd), now.wall).await.status(),
            StatusCode::BAD_REQUEST,
            "{odd}"
        );
    }
}
