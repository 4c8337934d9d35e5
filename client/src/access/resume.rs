//! Asks for a stream again whose connection is gone: by the token at hand. No sign-in is begun for it.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Response, header::AUTHORIZATION};
use pomerium_shared::{
    destination::Destination,
    reason::EndReason,
    relay::Leg,
    resume::{Attach, Attached, End, FIELD, Offer, StreamName, Wish},
    tunnel::Connected,
};
use tokio::time::sleep;

use super::{Access, random};
use crate::link::{
    Ground,
    answer::{Refusal, Verdict},
    backoff::Backoff,
};

/// No gateway keeps a stream for longer.
const WINDOW_MAX: Duration = Duration::from_secs(10 * 60);

/// Between two attempts at most: somebody waits, and what paces a gateway's clients is the dialling, which they share.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Where a stream's later connections come from.
struct Again {
    access: Arc<Access>,
    to: Destination,
    name: StreamName,
    /// What it stands on now.
    ground: Ground,
}

/// Why a stream has no connection yet.
enum NotYet {
    /// It may have one later.
    Later,
    /// It will have none.
    Over(EndReason),
}

/// Asks for a stream that can be resumed.
pub(super) fn asking(mut headers: HeaderMap) -> HeaderMap {
    insert(&mut headers, Wish::New);
    headers
}

/// The stream that the gateway has opened: one that outlives its connection, if the gateway will.
pub(super) fn opened(
    access: &Arc<Access>,
    to: &Destination,
    response: &Response<()>,
    leg: Leg,
    ground: Ground,
) -> Leg {
    // A gateway that knows nothing of this says nothing.
    let offer = response.headers().get(FIELD).and_then(|value| value.to_str().ok()?.parse::<Offer>().ok());
    let Some(Offer { name, window }) = offer else { return leg };
    let again = Again { access: Arc::clone(access), to: to.clone(), name, ground };
    End::new(access.kept.clone(), window.min(WINDOW_MAX)).to_gateway(leg, again)
}

fn insert(headers: &mut HeaderMap, wish: Wish) {
    if let Ok(mut value) = HeaderValue::try_from(wish.to_string()) {
        value.set_sensitive(true);
        headers.insert(FIELD, value);
    }
}

impl Attach for Again {
    async fn superseded(&mut self) {
        let mut backoff = Backoff::default();
        loop {
            match self.access.link.way_from(&mut self.ground).await {
                Ok(true) => break,
                Ok(false) => backoff = Backoff::default(),
                Err(_) => sleep(backoff.after_failure(random())).await,
            }
        }
        tracing::info!(gateway = %self.access.gateway(), "a stream moves to another connection");
    }

    async fn next(&mut self, received: u64) -> Result<Attached, EndReason> {
        let mut backoff = Backoff::default();
        loop {
            match self.ask(received).await {
                Ok(leg) => {
                    tracing::info!(gateway = %self.access.gateway(), "a stream goes on over another connection");
                    return Ok(Attached { leg, received: None });
                }
                Err(NotYet::Over(reason)) => return Err(reason),
                Err(NotYet::Later) => sleep(backoff.after_failure(random()).min(PAUSE_MAX)).await,
            }
        }
    }
}

impl Again {
    async fn ask(&mut self, received: u64) -> Result<Leg, NotYet> {
        let mut headers = HeaderMap::new();
        if let Some(token) = self.access.token_at_hand() {
            self.access.report_first(&token).await;
            headers.insert(AUTHORIZATION, token.authorization());
        }
        insert(&mut headers, Wish::Again { name: self.name, received });
        match self.access.link.connect(&self.to, headers).await {
            Ok((Connected::Open { leg, .. }, ground)) => {
                self.ground = ground;
                Ok(leg)
            }
            Ok((Connected::Refused(response), _)) => Err(refused(&response)),
            Err(error) => {
                tracing::debug!(error = %crate::exit::chain(&error), "a stream has no connection yet");
                Err(if error.may_pass() { NotYet::Later } else { NotYet::Over(EndReason::ResumeFailed) })
            }
        }
    }
}

fn refused(response: &Response<bytes::Bytes>) -> NotYet {
    let Some(refusal) = Refusal::of(response) else { return NotYet::Over(EndReason::ResumeFailed) };
    tracing::debug!(%refusal, "a stream is not to go on");
    match refusal.verdict {
        Verdict::AppDown | Verdict::GatewayDown => NotYet::Later,
        Verdict::SignIn { .. } => NotYet::Over(EndReason::Session),
        Verdict::Denied | Verdict::NoRoute => NotYet::Over(EndReason::Policy),
        Verdict::Open | Verdict::Conflict | Verdict::BadRequest | Verdict::Unexpected => {
            NotYet::Over(EndReason::ResumeFailed)
        }
    }
}
