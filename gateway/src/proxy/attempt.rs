//! Brings one request to one of its route's upstreams, and to another where the first did not get it.
//!
//! Sent again is only what nobody can have acted upon: a request that found no connection and whose body is untouched,
//! or one without a body whose method may be repeated (RFC 9110, 9.2.2). The latter goes once more to the same upstream where
//! there is no other: an app may close a kept connection just as the request is on its way.

#[cfg(test)]
mod tests;

use std::pin::pin;

use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri, header, request::Parts, uri::PathAndQuery,
};
use http_body::Body as _;
use pomerium_shared::clock::Now;

use super::{
    Refusal,
    upstream::{Answer, Count, Outcome, Pool, balance::Draw},
};
use crate::{
    body::{self, Body, limit, patience},
    config::Upstream,
};

/// Upstreams that one request may try.
const TRIES_MAX: usize = 3;

/// A request without the place that it goes to.
pub(super) struct Outgoing {
    /// Its URI and `Host` are filled in for each upstream.
    pub(super) head: Parts,
    pub(super) body: Body,
    pub(super) path: PathAndQuery,
    /// The `Host` that all upstreams see; each its own if there is none.
    pub(super) host: Option<String>,
    pub(super) is_upgrade: bool,
}

/// Keeps a request counted, at its route and its upstream, until its answer is through.
#[derive(Debug)]
pub(super) struct UnderWay {
    _route: Count,
    _upstream: Option<Count>,
}

/// Sends the request; `too_late` is when its time is over, whichever upstream has it.
pub(super) async fn send(
    pool: &Pool,
    route: &str,
    outgoing: Outgoing,
    draw: Draw,
    too_late: impl Future<Output = ()>,
) -> Result<(Response<Answer>, UnderWay), Refusal> {
    let Some(counted) = pool.enter() else {
        let detail =
            format!("The route {route} has as many requests under way as it may. Try again in a moment.");
        return Err(Refusal::App { status: StatusCode::SERVICE_UNAVAILABLE, detail });
    };
    let mut too_late = pin!(too_late);
    let Outgoing { mut head, mut body, path, host, is_upgrade } = outgoing;
    let has_body = !body.is_end_stream();
    if has_body && !is_upgrade {
        announce(&mut head, &body);
    }
    let may_repeat = !has_body && !is_upgrade && head.method.is_idempotent();
    let mut head = Some(head);
    let (mut tried, mut failure, mut _retry) = (Vec::new(), None, None);
    while tried.len() < TRIES_MAX {
        let now = Now::read().monotonic;
        let again =
            tried.last().copied().filter(|_| tried.len() == 1 && may_repeat && failure == Some(false));
        let Some(place) = pool.pick(&tried, draw, now).or(again) else { break };
        if !tried.is_empty() {
            _retry = pool.enter_retry();
            if _retry.is_none() {
                break;
            }
        }
        tried.push(place);
        let last = !(pool.has_others(&tried) || may_repeat) || tried.len() == TRIES_MAX;
        let Some(head) = (if last { head.take() } else { head.clone() }) else { break };
        let (lent, home) = body::lend(body);
        let request = addressed(head, &path, host.as_deref(), pool.upstream(place), lent)?;
        let upstream = pool.load(place);
        let answered = tokio::select! {
            answered = pool.send(place, request, is_upgrade) => answered,
            () = &mut too_late => {
                pool.answered(place, Outcome::GatewayError, Now::read().monotonic);
                let detail = format!("The app behind the route {route} did not answer in time.");
                return Err(Refusal::App { status: StatusCode::GATEWAY_TIMEOUT, detail });
            }
        };
        let error = match answered {
            Ok(response) => {
                pool.answered(place, Outcome::of(response.status()), Now::read().monotonic);
                return Ok((response, UnderWay { _route: counted, _upstream: upstream }));
            }
            Err(error) => error,
        };
        if patience::is_cause(&error) {
            return Err(arrived_too_slowly());
        }
        if limit::is_cause(&error) {
            return Err(body_too_long(route));
        }
        let upstream = &pool.upstream(place).name;
        tracing::warn!(route, upstream, error = &error as &dyn std::error::Error, "app unreachable");
        // A body may break off by the fault of whoever sends it.
        if error.is_connect() || !has_body {
            pool.answered(place, Outcome::GatewayError, Now::read().monotonic);
        }
        failure = Some(error.is_connect());
        let again = match home.into_inner() {
            Some(untouched) if error.is_connect() => Some(untouched),
            _ => may_repeat.then(body::empty),
        };
        let Some(again) = again else { break };
        body = again;
    }
    Err(unanswered(route, failure))
}

/// Says how a body is sent whose length is not known, for the methods that hardly ever have one: over HTTP/1.1 an app would
/// otherwise see none. Over HTTP/2 the header is left out again.
fn announce(head: &mut Parts, body: &Body) {
    if matches!(head.method, Method::GET | Method::HEAD) && body.size_hint().exact().is_none() {
        head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Nobody answered: `is_connect` is whether the last one could not even be connected to, and `None` if none was there to try.
fn unanswered(route: &str, is_connect: Option<bool>) -> Refusal {
    match is_connect {
        Some(is_connect) => {
            let status = if is_connect { StatusCode::BAD_GATEWAY } else { StatusCode::SERVICE_UNAVAILABLE };
            Refusal::App { status, detail: format!("The app behind the route {route} cannot be reached.") }
        }
        None => {
            tracing::warn!(route, "no upstream is in");
            let detail = format!(
                "All apps behind the route {route} are out of service: they failed their health checks or too many \
                 requests. Try again in a moment."
            );
            Refusal::App { status: StatusCode::SERVICE_UNAVAILABLE, detail }
        }
    }
}

fn arrived_too_slowly() -> Refusal {
    let detail = "The request did not arrive in time. Send it again, over a faster connection.".to_owned();
    Refusal::App { status: StatusCode::REQUEST_TIMEOUT, detail }
}

/// What a client gets whose body is longer than the route allows.
pub(super) fn body_too_long(route: &str) -> Refusal {
    let detail = format!("The route {route} takes no body as long as this. Send less, or ask who runs it.");
    Refusal::App { status: StatusCode::PAYLOAD_TOO_LARGE, detail }
}

/// The request as one upstream gets it. Its URI names the host that the app is asked for, as HTTP/2 sends it.
fn addressed(
    mut head: Parts,
    path: &PathAndQuery,
    host: Option<&str>,
    upstream: &Upstream,
    body: Body,
) -> Result<Request<Body>, Refusal> {
    let cannot = || Refusal::BadRequest("the host cannot be sent on".to_owned());
    let host = host.map_or_else(|| upstream.authority(), str::to_owned);
    head.uri = Uri::builder()
        .scheme(upstream.origin.scheme())
        .authority(host.as_str())
        .path_and_query(path.clone())
        .build()
        .map_err(|_| cannot())?;
    head.headers.insert(header::HOST, HeaderValue::from_str(&host).map_err(|_| cannot())?);
    Ok(Request::from_parts(head, body))
}
