//! Says no to a browser in the tunnel: one page, on a connection that leads nowhere else.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderValue, Request, Response, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use pomerium_shared::netstack::flows::Opening;

use crate::{
    body::{self, Body},
    portal::{self, Language, Look},
    proxy::{
        Refusal,
        respond::{self, Audience, Form},
    },
};

/// For the request to come and the page to go: nobody waits longer for a no.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Answers whatever is asked with the refusal, and ends the connection.
pub(super) async fn serve(opening: Opening, refusal: Refusal, host: &str, request_id: &str, look: &Look) {
    let Ok(stream) = opening.accept() else { return };
    let refusal = Mutex::new(Some(refusal));
    let service = service_fn(|request| {
        let refusal = refusal.lock().unwrap_or_else(PoisonError::into_inner).take();
        answer(request, refusal, host, request_id, look)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(TIME_MAX).keep_alive(false);
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(TIME_MAX, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a refusal was not delivered"),
        Err(_) => tracing::debug!("nobody asked for the refusal"),
    }
}

async fn answer(
    request: Request<Incoming>,
    refusal: Option<Refusal>,
    host: &str,
    request_id: &str,
    look: &Look,
) -> Result<Response<Body>, std::convert::Infallible> {
    if request.uri().path() == portal::STYLESHEET_PATH {
        return Ok(respond::plain("text/css; charset=utf-8", look.stylesheet()));
    }
    let form = Form::wanted(request.headers(), look);
    let refused = async {
        match refusal {
            Some(refusal) => refusal.into_response(Audience { request_id, host, form }),
            None => Response::new(body::empty()),
        }
    };
    let mut response = portal::speaking(Language::of(request.headers()), refused).await;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
