//! The way of an allowed HTTP request to its app, and of the answer back.

use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version, header, request::Parts,
    uri::PathAndQuery,
};

use super::{
    Connection, Live, Proxy, Refusal, assertion,
    gate::{Admitted, Whereto},
    headers, respond, upgrade, upstream,
};
use crate::{
    body::{self, Body},
    config::{
        HttpTarget, PathMatch, PathRewrite, Redirect, RedirectPath, Route, RouteFrom, Target, UpstreamHost,
    },
    path::CanonicalPath,
};
use pomerium_shared::clock::Now;

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
        let mut response = match &route.target {
            Target::Http(target) => {
                let request = Request::from_parts(parts, body);
                let call = AppCall { live, target, whereto: &whereto, connection, request_id };
                Box::pin(self.call_app(call, admitted, request)).await?
            }
            Target::Redirect(redirect) => redirected(redirect, &route, &whereto, &parts)?,
            Target::Response { status, body } => {
                let mut response = respond::plain("text/plain; charset=utf-8", body.clone());
                *response.status_mut() = *status;
                response
            }
            Target::Tcp(_) => return Err(Refusal::NoRoute),
        };
        for (name, value) in &route.set_response_headers {
            response.headers_mut().insert(name, value.clone());
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
        let is_websocket = route.allow_websockets && upgrade::is_websocket(&request);
        if is_websocket && !upgrade::is_from_here(request.headers(), |host| call.live.router.has_host(host)) {
            return Err(Refusal::BadRequest(
                "a page of another site asks for this WebSocket; only pages behind this gateway may"
                    .to_owned(),
            ));
        }
        let upgrade = is_websocket.then(|| hyper::upgrade::on(&mut request));
        let watch = || {
            let session = admitted.session.as_ref().map(|session| session.id.clone());
            self.watch(admitted.question.clone(), session, call.request_id)
        };
        let (parts, body) = request.into_parts();
        let (body, uploaded) = body::upload(watch().over(body));
        let request = Request::from_parts(parts, body);
        let outgoing = outgoing_request(&call, &admitted, request, upgrade.is_some())?;
        let client = call.live.clients.get(&route.id).ok_or(Refusal::NoRoute)?;
        // The app's time begins when it has the whole request: a long upload is no slow app.
        let too_late = async {
            let _ended = uploaded.await;
            match route.timeout {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let answered = tokio::select! {
            answered = upstream::send(client, outgoing) => answered,
            () = too_late => return Err(Refusal::App {
                status: StatusCode::GATEWAY_TIMEOUT,
                detail: format!("The app behind the route {} did not answer in time.", route.name),
            }),
        };
        let mut response = answered.map_err(|error| {
            tracing::warn!(route = route.name, error = &error as &dyn std::error::Error, "app unreachable");
            let status =
                if error.is_connect() { StatusCode::BAD_GATEWAY } else { StatusCode::SERVICE_UNAVAILABLE };
            Refusal::App {
                status,
                detail: format!("The app behind the route {} cannot be reached.", route.name),
            }
        })?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client_side) = upgrade else {
                return Err(Refusal::App {
                    status: StatusCode::BAD_GATEWAY,
                    detail: "The app switched protocols unasked.".to_owned(),
                });
            };
            let app_side = hyper::upgrade::on(&mut response);
            self.splice_upgrade(client_side, app_side, &admitted, call.request_id);
            return Ok(response.map(|_| body::empty()));
        }
        let mut response = response.map(|body| watch().over(body::boxed(body)));
        headers::strip_hop_by_hop(response.headers_mut());
        headers::strip_from_app(response.headers_mut(), &call.live.settings.cookie.name);
        Ok(response)
    }
}

/// What one call to an app needs beside the request.
struct AppCall<'a> {
    live: &'a Live,
    target: &'a HttpTarget,
    whereto: &'a Whereto,
    connection: &'a Connection,
    request_id: &'a str,
}

/// The request as the app sees it.
fn outgoing_request(
    call: &AppCall<'_>,
    admitted: &Admitted,
    request: Request<Body>,
    is_upgrade: bool,
) -> Result<Request<Body>, Refusal> {
    let (parts, body) = request.into_parts();
    let route = &admitted.route;
    let settings = &call.live.settings;
    let now = Now::read();
    let mut outgoing = Request::new(body);
    *outgoing.method_mut() = parts.method.clone();
    *outgoing.version_mut() = Version::HTTP_11;
    *outgoing.uri_mut() = app_uri(call, route, parts.uri.query())?;
    let original_host = call.whereto.authority.to_host_port();
    let mut sent = parts.headers;
    let host = app_host(call.target, &sent, &original_host)?;
    headers::strip_hop_by_hop(&mut sent);
    headers::strip_gateway_headers(&mut sent, &settings.cookie.name, &settings.jwt_claims_headers);
    for name in &route.remove_request_headers {
        sent.remove(name);
    }
    for (name, value) in &route.set_request_headers {
        sent.insert(name, value.clone());
    }
    headers::set_forwarded(&mut sent, call.connection.peer.ip(), &call.whereto.authority, call.request_id);
    if route.pass_identity_headers {
        let session = admitted.session.as_ref();
        let claims = &settings.jwt_claims_headers;
        let token = call
            .live
            .signer
            .sign(session, call.whereto.authority.host(), settings.jwt_issuer_format, claims, now)
            .ok_or_else(|| Refusal::Gateway("The identity header could not be signed.".to_owned()))?;
        sent.insert(assertion::HEADER, token);
        assertion::set_claim_headers(&mut sent, session, claims);
    }
    if is_upgrade {
        upgrade::set_websocket(&mut sent);
    }
    sent.insert(header::HOST, host);
    // The body knows its length; what the client said of it may differ.
    sent.remove(header::CONTENT_LENGTH);
    *outgoing.headers_mut() = sent;
    Ok(outgoing)
}

/// The `Host` that the app sees.
fn app_host(target: &HttpTarget, headers: &HeaderMap, original: &str) -> Result<HeaderValue, Refusal> {
    let text = match &target.host {
        UpstreamHost::Target => {
            let host = target.origin.host_str().unwrap_or_default();
            target.origin.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
        }
        UpstreamHost::Preserve => original.to_owned(),
        UpstreamHost::Literal(host) => host.clone(),
        UpstreamHost::FromHeader(name) => {
            let value = headers.get(name).and_then(|v| v.to_str().ok());
            value.ok_or_else(|| Refusal::BadRequest(format!("the header {name} is missing")))?.to_owned()
        }
    };
    HeaderValue::from_str(&text).map_err(|_| Refusal::BadRequest("the host cannot be sent on".to_owned()))
}

/// The URL of the request at the app.
fn app_uri(call: &AppCall<'_>, route: &Route, query: Option<&str>) -> Result<Uri, Refusal> {
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
    let path_and_query: PathAndQuery = path_and_query.parse().map_err(cannot)?;
    let origin = &call.target.origin;
    let host = origin.host_str().unwrap_or_default();
    let authority = origin.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    Uri::builder()
        .scheme(origin.scheme())
        .authority(authority)
        .path_and_query(path_and_query)
        .build()
        .map_err(|_| Refusal::BadRequest("the request's URL cannot be sent on".to_owned()))
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
        RouteFrom::Http { .. } | RouteFrom::Tcp { .. } => "/",
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
