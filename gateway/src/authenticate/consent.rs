//! The person's word before a session leaves the sign-in host for a place that they may not know of: a program, which
//! anybody on the machine may have started, and a host that only a wildcard route names, which may lead anywhere.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Response;
use serde::{Deserialize, Serialize};

use super::{
    AuthRequest, Authenticate, cookies, pages,
    sign_in::{Wish, bad_request},
    sign_out::is_same_origin,
    store_failed,
    targets::is_loopback,
    ticket,
    token_endpoint::Form,
};
use crate::{
    session::{Session, SessionId},
    store::StoreError,
};

/// Where the answer goes.
pub(super) const CONTINUE_PATH: &str = "/.pomerium/continue";
/// For a person to read the question.
const LIFE: Duration = Duration::from_secs(300);
/// Names the field of the form, and keeps the ticket apart from all else that is sealed.
const TICKET: &str = "ticket";

/// What was asked, of whom: in a ticket, so that an answer is one to this very question.
#[derive(Serialize, Deserialize)]
struct Asked {
    wish: Wish,
    session_id: SessionId,
}

/// What the page says.
pub(super) struct Question {
    /// The address that gets the session.
    pub(super) to: String,
    /// How the program comes by it, if a program asks.
    pub(super) program: Option<Program>,
    pub(super) ticket: String,
}

/// A program that asks.
pub(super) struct Program {
    pub(super) is_on_this_computer: bool,
    /// The host by whose way the token comes, which sees it.
    pub(super) by_way_of: String,
}

impl Authenticate {
    /// Hands the session over, or asks the person first.
    pub(super) async fn hand_over_or_ask(
        &self,
        wish: &Wish,
        session: &Session,
        now: SystemTime,
    ) -> Response<Bytes> {
        match self.must_ask(wish, session, now).await {
            Ok(false) => self.hand_over(wish, session, now),
            Ok(true) => match self.question(wish, session, now) {
                Some(question) => pages::question(session, &question),
                None => bad_request("This sign-in cannot go on. Open the application again."),
            },
            Err(error) => store_failed(&error),
        }
    }

    async fn must_ask(&self, wish: &Wish, session: &Session, now: SystemTime) -> Result<bool, StoreError> {
        if wish.is_programmatic {
            // A bound token is worthless away from the key of the program that asked.
            return Ok(wish.device_key.is_none());
        }
        let host = wish.redirect.host_str().unwrap_or_default();
        if (self.config.is_named_host)(host) {
            return Ok(false);
        }
        Ok(!self.store.is_claimed(&remembered(&session.id, host), now).await?)
    }

    fn question(&self, wish: &Wish, session: &Session, now: SystemTime) -> Option<Question> {
        let asked = Asked { wish: wish.clone(), session_id: session.id.clone() };
        let ticket = ticket::seal(self.config.cookie_secret.expose(), TICKET, asked, now + LIFE)?;
        let program = wish.is_programmatic.then(|| Program {
            is_on_this_computer: is_loopback(&wish.redirect),
            by_way_of: wish.callback.host_str().unwrap_or_default().to_owned(),
        });
        let to = wish.redirect.origin().ascii_serialization();
        Some(Question { to, program, ticket })
    }

    /// The person's "continue": from our own form, by whom it was asked of, once.
    pub(super) async fn go_on(&self, req: &AuthRequest<'_>, now: SystemTime) -> Response<Bytes> {
        if !is_same_origin(req) {
            return bad_request("This form was not sent from here.");
        }
        let form = Form::of(&req.form);
        let key = self.config.cookie_secret.expose();
        let open = |text| ticket::open::<Asked>(key, TICKET, text, now);
        let Some((text, (asked, _end))) = form.one(TICKET).and_then(|text| Some((text, open(text)?))) else {
            return bad_request("This question is too old. Open the application again.");
        };
        let session = match self.sign_in_host_session(req, now).await {
            Ok(session) => session.filter(|session| session.id == asked.session_id),
            Err(error) => return store_failed(&error),
        };
        let Some(session) = session else {
            return bad_request("You are not signed in here any more. Open the application again.");
        };
        match self.answered(text, &asked, &session, now).await {
            Ok(true) => self.hand_over(&asked.wish, &session, now),
            Ok(false) => bad_request("This question was already answered. Open the application again."),
            Err(error) => store_failed(&error),
        }
    }

    /// Uses the ticket up; the word for a host holds as long as the session, that for a program this once.
    async fn answered(
        &self,
        text: &str,
        asked: &Asked,
        session: &Session,
        now: SystemTime,
    ) -> Result<bool, StoreError> {
        let key = format!("continue:{}", cookies::fingerprint(text));
        if !self.store.claim_once(&key, now + LIFE, now).await? {
            return Ok(false);
        }
        if !asked.wish.is_programmatic {
            let host = asked.wish.redirect.host_str().unwrap_or_default();
            // Another tab may have said so already.
            let _first =
                self.store.claim_once(&remembered(&session.id, host), session.expires_at, now).await?;
        }
        Ok(true)
    }
}

/// Names what a person said of a host, for one session.
fn remembered(id: &SessionId, host: &str) -> String {
    format!("host:{id}:{host}")
}
