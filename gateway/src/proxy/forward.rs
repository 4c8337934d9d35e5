//! The way of an allowed HTTP request to its app, and of the answer back.

use std::{sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header, request::Parts, uri::PathAndQuery,
};

use super::{
    Connection, Live, Proxy, Refusal, assertion,
    attempt::{self, Outgoing},
    gate::{Admitted, Whereto},
    headers, respond,
    substitutes::Substitutes,
    upgrade,
    upstream::balance::hash,
};
use crate::{
    body::{
        self, Body, limit,
        patience::{self, Patience, TooLate},
    },
    config::{
        HttpTarget, PathMatch, PathRewrite, Redirect, RedirectPath, RequestLimits, Route, RouteFrom, Target,
        UpstreamHost,
    },
    path::CanonicalPath,
};
use http_body::Body as _;
use tokio_util::sync::CancellationToken;

impl Proxy {
    /// Puts the request before policy and brings it to its app.
    pub(super) async fn forward(
        &self,
        live: &Live,
        whereto: Whereto,
        request: Request<Body>,
        connection: &Connection,
        request_id: &str,
    ) -> Result<Response<Body>, Refusal> {
        let (parts, body) = request.into_parts();
        let admitted = self.admit_http(live, &whereto, &parts, connection, request_id).await?;
        let route = admitted.route.clone();
        let known = self.substitutes(live, &admitted, &whereto).await?;
        let mut response = match &route.target {
            Target::Http(target) => {
                let request = Request::from_parts(parts, body);
                let known = &known;
                let call = AppCall { live, target, whereto: &whereto, connection, request_id, known };
                Box::pin(self.call_app(call, admitted, request)).await?
            }
            Target::Redirect(redirect) => redirected(redirect, &route, &whereto, &parts)?,
            Target::Response { status, body } => {
                let mut response = respond::plain("text/plain; charset=utf-8", body.clone());
                *response.status_mut() = *status;
                response
            }
            Target::Tcp(_) | Target::Udp(_) => return Err(Refusal::NoRoute),
        };
        for name in &route.remove_response_headers {
            response.headers_mut().remove(name);
        }
        for (name, value) in known.filled_for_answer(&route) {
            response.headers_mut().insert(name, value);
        }
        Ok(response)
    }

    /// Sends the request and returns the answer as its head arrives; bodies stream both ways.
    async fn call_app(
        &self,
        call: AppCall<'_>,
        admitted: Admitted,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Refusal> {
        let route = admitted.route.clone();
        within_limits(&route.name, call.target.request_limits, &request)?;
        let is_websocket = route.allow_websockets && upgrade::is_websocket(&request);
        let named = &call.target.websocket_origins;
        if is_websocket && !upgrade::may_open(request.headers(), &call.whereto.authority, named) {
            return Err(Refusal::BadRequest(
                "a page of another origin asks for this WebSocket, which websocket_origins of the route does not name"
                    .to_owned(),
            ));
        }
        let upgrade = is_websocket.then(|| upgrade::ClientSide::of(&mut request));
        let watch = || {
            let session = admitted.session.as_ref().map(|session| session.id.clone());
            self.watch(admitted.question.clone(), session, call.request_id)
        };
        let (parts, body) = request.into_parts();
        let patience = parts.extensions.get::<Patience>().cloned();
        let body = match call.target.request_limits.body {
            Some(octets) => limit::to(body, octets),
            None => body,
        };
        let body = body::with_trailers(body, trailers_to_app(call.live, &route));
        let (body, uploaded) = body::upload(watch().over(body));
        let request = Request::from_parts(parts, body);
        let outgoing = outgoing_request(&call, &admitted, request, upgrade.is_some())?;
        let pool = call.live.pools.get(&route.id).ok_or(Refusal::NoRoute)?;
        // The app's time begins when it has the whole request: a long upload is no slow app.
        let too_late = time_is_over(route.timeout, uploaded.clone());
        let answer_is_due = time_is_over(soonest(route.timeout, route.idle_timeout), uploaded);
        let draw = pool.draw(|| caller_key(&admitted, call.connection));
        let (mut response, under_way) =
            attempt::send(pool, &route.name, outgoing, draw, answer_is_due).await?;
        // From here on the two may talk as they like.
        if let Some(patience) = patience {
            patience.is_over();
        }
        *response.version_mut() = Version::HTTP_11;
        headers::strip_hop_by_hop(response.headers_mut());
        headers::strip_from_app(response.headers_mut(), &call.live.settings.cookie.name);
        headers::rewrite(response.headers_mut(), &route.rewrite_response_headers);
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client_side) = upgrade else {
                return Err(Refusal::App {
                    status: StatusCode::BAD_GATEWAY,
                    detail: "The app switched protocols unasked.".to_owned(),
                });
            };
            let app_side = hyper::upgrade::on(&mut response);
            self.splice_upgrade(client_side, app_side, &admitted, call.request_id, under_way);
            upgrade::set_websocket(response.headers_mut());
            return Ok(response.map(|_| body::empty()));
        }
        let clean = trailers_from_app(call.live, &route);
        Ok(response.map(|body| {
            let body = body::boxed(body::keeping(body, under_way));
            let body = patience::until(patience::never_idle(body, route.idle_timeout), too_late);
            watch().over(body::with_trailers(body, clean))
        }))
    }
}

/// What the request says of itself; a body that does not is counted as it comes.
fn within_limits(route: &str, limits: RequestLimits, request: &Request<Body>) -> Result<(), Refusal> {
    let octets = || request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if limits.header.is_some_and(|max| max < octets()) {
        let detail = format!(
            "The route {route} takes no headers as long as these. Delete this site's cookies, or ask who runs it."
        );
        return Err(Refusal::App { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, detail });
    }
    if limits.body.is_some_and(|max| max < request.body().size_hint().lower()) {
        return Err(attempt::body_too_long(route));
    }
    Ok(())
}

/// The shorter of two limits, each of which may be none.
fn soonest(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

/// Resolves when an app's time is over, which begins when it has the whole request.
fn time_is_over(limit: Option<Duration>, uploaded: CancellationToken) -> TooLate {
    Box::pin(async move {
        uploaded.cancelled().await;
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    })
}

/// What a request's trailers keep: nothing that the gateway says, or that it would have taken out of the header.
fn trailers_to_app(live: &Live, route: &Arc<Route>) -> impl Fn(&mut HeaderMap) + Send + Unpin + 'static {
    let (settings, route) = (live.settings.clone(), route.clone());
    move |trailers| {
        headers::strip_trailers(trailers);
        headers::strip_gateway_headers(trailers, &settings.cookie.name, &settings.jwt_claims_headers);
        let set = route.set_request_headers.iter().map(|(name, _)| name);
        for name in set.chain(&route.remove_request_headers) {
            trailers.remove(name);
        }
    }
}

/// What an answer's trailers keep, likewise.
fn trailers_from_app(live: &Live, route: &Arc<Route>) -> impl Fn(&mut HeaderMap) + Send + Unpin + 'static {
    let (settings, route) = (live.settings.clone(), route.clone());
    move |trailers| {
        headers::strip_trailers(trailers);
        headers::strip_from_app(trailers, &settings.cookie.name);
        let set = route.set_response_headers.iter().map(|(name, _)| name);
        for name in set.chain(&route.remove_response_headers) {
            trailers.remove(name);
        }
    }
}

/// What one call to an app needs beside the request.
struct AppCall<'a> {
    live: &'a Live,
    target: &'a HttpTarget,
    whereto: &'a Whereto,
    connection: &'a Connection,
    request_id: &'a str,
    known: &'a Substitutes,
}

/// The request as the app sees it.
fn outgoing_request(
    call: &AppCall<'_>,
    admitted: &Admitted,
    request: Request<Body>,
    is_upgrade: bool,
) -> Result<Outgoing, Refusal> {
    let (mut parts, body) = request.into_parts();
    let route = &admitted.route;
    let settings = &call.live.settings;
    let path = app_path(call, route, parts.uri.query())?;
    let mut sent = std::mem::take(&mut parts.headers);
    let host = app_host(call, &sent)?;
    headers::strip_hop_by_hop(&mut sent);
    headers::strip_gateway_headers(&mut sent, &settings.cookie.name, &settings.jwt_claims_headers);
    let set = call.known.filled(route, &sent);
    headers::set_forwarded(&mut sent, call.connection.peer.ip(), &call.whereto.authority, call.request_id);
    for name in &route.remove_request_headers {
        sent.remove(name);
    }
    for (name, value) in set {
        sent.insert(name, value);
    }
    if route.pass_identity_headers {
        if let Some(token) = &call.known.assertion {
            sent.insert(assertion::HEADER, token.clone());
        }
        let claims = &settings.jwt_claims_headers;
        assertion::set_claim_headers(&mut sent, admitted.session.as_deref(), claims);
    }
    if is_upgrade {
        upgrade::set_websocket(&mut sent);
    }
    // The body knows its length; what the client said of it may differ.
    sent.remove(header::CONTENT_LENGTH);
    let (mut head, ()) = Request::new(()).into_parts();
    (head.method, head.version, head.headers) = (parts.method, Version::HTTP_11, sent);
    Ok(Outgoing { head, body, path, host, is_upgrade })
}

/// Who asks, for policies that keep a caller with an upstream: the session, else the address.
fn caller_key(admitted: &Admitted, connection: &Connection) -> u64 {
    match &admitted.session {
        Some(session) => hash(&[session.id.as_str().as_bytes()]),
        None => hash(&[connection.ip_now().to_string().as_bytes()]),
    }
}

/// The `Host` that the app sees; none if it is the upstream's own.
fn app_host(call: &AppCall<'_>, headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    Ok(Some(match &call.target.host {
        UpstreamHost::Target => return Ok(None),
        UpstreamHost::Preserve => call.whereto.authority.to_host_port(),
        UpstreamHost::Literal(host) => host.clone(),
        UpstreamHost::FromHeader(name) => {
            let value = headers.get(name).and_then(|v| v.to_str().ok());
            value.ok_or_else(|| Refusal::BadRequest(format!("the header {name} is missing")))?.to_owned()
        }
        UpstreamHost::FromPath { pattern, substitution } => {
            pattern.replace_all(call.whereto.path.as_str(), substitution.as_str()).into_owned()
        }
    }))
}

/// Path and query of the request at the app.
fn app_path(call: &AppCall<'_>, route: &Route, query: Option<&str>) -> Result<PathAndQuery, Refusal> {
    let path = rewritten(&call.target.rewrite, route, call.whereto.path.as_str());
    // What a rewrite puts together must not mean another path to the app: `/static` and `/../admin`, for one.
    if CanonicalPath::parse(&path).map(|canonical| canonical.as_str() != path) != Ok(false) {
        return Err(Refusal::BadRequest("the path leads out of what the route rewrites".to_owned()));
    }
    let query = query.map(headers::strip_query_credential).filter(|q| !q.is_empty());
    let path_and_query = match query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let cannot = |_| Refusal::BadRequest("the request's URL cannot be sent on".to_owned());
    path_and_query.parse().map_err(cannot)
}

fn rewritten(rewrite: &PathRewrite, route: &Route, path: &str) -> String {
    match rewrite {
        PathRewrite::Keep => path.to_owned(),
        PathRewrite::Prefix(prefix) => replace_prefix(route, path, prefix),
        PathRewrite::Regex { pattern, substitution } => {
            pattern.replace_all(path, substitution.as_str()).into_owned()
        }
    }
}

/// Replaces what the route's prefix matched; joins with exactly one slash.
fn replace_prefix(route: &Route, path: &str, prefix: &str) -> String {
    let matched = match &route.from {
        RouteFrom::Http { path: PathMatch::Prefix(matched) | PathMatch::Exact(matched), .. } => {
            matched.as_str()
        }
        RouteFrom::Http { .. } | RouteFrom::Tcp { .. } | RouteFrom::Udp { .. } => "/",
    };
    let rest = path.strip_prefix(matched).unwrap_or(path);
    match (prefix.ends_with('/'), rest.starts_with('/')) {
        (true, true) => format!("{prefix}{}", &rest[1..]),
        (false, false) if !rest.is_empty() => format!("{prefix}/{rest}"),
        _ => format!("{prefix}{rest}"),
    }
}

fn redirected(
    redirect: &Redirect,
    route: &Route,
    whereto: &Whereto,
    parts: &Parts,
) -> Result<Response<Body>, Refusal> {
    let query = parts.uri.query().filter(|_| !redirect.strip_query).map(headers::strip_query_credential);
    let mut url = whereto.url(query.as_deref().filter(|query| !query.is_empty()))?;
    let refuse = || Refusal::Gateway(format!("The redirect of the route {} cannot be written.", route.name));
    if let Some(host) = &redirect.host {
        url.set_host(Some(host)).map_err(|_| refuse())?;
        url.set_port(None).map_err(|()| refuse())?;
    }
    if let Some(port) = redirect.port {
        url.set_port(Some(port)).map_err(|()| refuse())?;
    }
    if let Some(scheme) = &redirect.scheme {
        url.set_scheme(scheme).map_err(|()| refuse())?;
    }
    match &redirect.path {
        RedirectPath::Keep => {}
        RedirectPath::Replace(path) => url.set_path(path),
        RedirectPath::Prefix(prefix) => url.set_path(&replace_prefix(route, whereto.path.as_str(), prefix)),
    }
    let mut response = Response::new(body::empty());
    *response.status_mut() = redirect.status;
    let location = HeaderValue::from_str(url.as_str()).map_err(|_| refuse())?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}
