//! Answers Envoy, and whatever else speaks its authorization protocol (Istio, Contour, another gateway's proxy): the gRPC
//! service `envoy.service.auth.v3.Authorization`.
//!
//! Here: who may ask ([`caller`]), what they ask ([`question`]) and how it is answered ([`answer`]). What is decided is
//! [`crate::proxy`]'s to say. Where this process only decides, [`mod@decide`] answers proxies of ours as well. A question that is not understood, or takes too long, is a no within the protocol: as an
//! error of gRPC, a caller that is set up to let requests pass on errors would let it pass.

mod answer;
mod caller;
mod decide;
mod health;
mod messages;
mod question;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use pomerium_shared::clock::Now;
use tonic::codegen::Service;
use tonic_prost::ProstCodec;

use self::{
    decide::Decide,
    health::Health,
    messages::{CheckRequest, CheckResponse},
    question::Question,
};
use crate::{
    body::{self, Body},
    config::Services,
    listen::inner::{Answers, Caller},
    proxy::{Connection, Proxy, Verified},
    remote_authorize::messages::{DECIDE_PATH, DecideRequest, DecideResponse},
    secret::Secret,
};

const SERVICE: &str = "envoy.service.auth.v3.Authorization";
const CHECK_PATH: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Octets of one question at most: headers, and what Envoy is told to send of a body.
const QUESTION_LEN_MAX: usize = 1024 * 1024;

/// Octets of a probe for health at most: the name of a service.
const PROBE_LEN_MAX: usize = 1024;

/// Octets of the page in an answer at most; the gateway's own are far shorter.
const PAGE_LEN_MAX: usize = 1024 * 1024;

/// For one decision. Envoy's own limit is 200 ms unless it is told otherwise.
const DECISION_TIMEOUT: Duration = Duration::from_secs(10);

/// The service behind `grpc_address`.
#[derive(Debug)]
pub(crate) struct ExtAuthz {
    proxy: Arc<Proxy>,
    services: Services,
    shared_secret: Secret<[u8; 32]>,
}

impl ExtAuthz {
    pub(crate) fn new(proxy: Arc<Proxy>, services: Services, shared_secret: Secret<[u8; 32]>) -> Self {
        Self { proxy, services, shared_secret }
    }
}

impl Answers for ExtAuthz {
    async fn answer(&self, request: Request<Incoming>, caller: &Caller) -> Response<Body> {
        if self.proxy.settings().grpc.is_none() {
            return boxed(tonic::Status::unavailable("this door is closed").into_http());
        }
        if request.uri().path() == health::HEALTH_PATH {
            let mut grpc =
                tonic::server::Grpc::new(ProstCodec::default()).max_decoding_message_size(PROBE_LEN_MAX);
            return within(grpc.unary(Health, request)).await;
        }
        if !caller.has_certificate
            && let Err(error) = caller::check(&self.shared_secret, request.headers(), Now::read())
        {
            tracing::debug!(%error, peer = %caller.peer, "a stranger at the door for gRPC");
            return boxed(tonic::Status::unauthenticated(error.to_string()).into_http());
        }
        if request.uri().path() == DECIDE_PATH && self.services == Services::Authorize {
            let codec = ProstCodec::<DecideResponse, DecideRequest>::default();
            let mut grpc = tonic::server::Grpc::new(codec).max_decoding_message_size(QUESTION_LEN_MAX);
            return within(grpc.unary(Decide { proxy: self.proxy.clone() }, request)).await;
        }
        if request.uri().path() != CHECK_PATH {
            return boxed(tonic::Status::unimplemented("there is no such method").into_http());
        }
        let codec = ProstCodec::<CheckResponse, CheckRequest>::default();
        let mut grpc = tonic::server::Grpc::new(codec).max_decoding_message_size(QUESTION_LEN_MAX);
        within(grpc.unary(Check { proxy: self.proxy.clone(), services: self.services }, request)).await
    }
}

/// Waits for an answer. A decision has a limit of its own; this one is for a caller that does not send its question.
async fn within(answering: impl Future<Output = Response<tonic::body::Body>>) -> Response<Body> {
    match tokio::time::timeout(2 * DECISION_TIMEOUT, Box::pin(answering)).await {
        Ok(response) => boxed(response),
        Err(_) => boxed(tonic::Status::deadline_exceeded("the question did not arrive in time").into_http()),
    }
}

fn boxed(response: Response<tonic::body::Body>) -> Response<Body> {
    response.map(body::boxed)
}

/// The method `Check`.
struct Check {
    proxy: Arc<Proxy>,
    services: Services,
}

impl Service<tonic::Request<CheckRequest>> for Check {
    type Response = tonic::Response<CheckResponse>;
    type Error = tonic::Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<CheckRequest>) -> Self::Future {
        let (proxy, services) = (self.proxy.clone(), self.services);
        Box::pin(async move {
            let deciding = decide(&proxy, services, request.into_inner());
            let decided = tokio::time::timeout(DECISION_TIMEOUT, deciding).await;
            let late = |_| answer::refused(StatusCode::SERVICE_UNAVAILABLE, "The decision took too long.");
            Ok(tonic::Response::new(decided.unwrap_or_else(late)))
        })
    }
}

/// Puts one question before policy. What is the gateway's own is answered here: Envoy sends it in the place of the app's
/// answer, so that a sign-in needs no route of its own.
async fn decide(proxy: &Proxy, services: Services, check: CheckRequest) -> CheckResponse {
    let Question { request, client, server_name } = match question::read(check) {
        Ok(question) => question,
        Err(error) => {
            tracing::debug!(%error, "a question that cannot be understood");
            return answer::refused(StatusCode::BAD_REQUEST, &format!("Not decided: {error}."));
        }
    };
    let connection = Connection::asserted(client, server_name, "ext-authz");
    let (parts, body) = request.into_parts();
    let response = match proxy.verify(&parts, &connection).await {
        Verified::Allowed(changes) => return answer::allowed(&changes),
        Verified::Refused(response) => response,
        Verified::Own if services == Services::Authorize => {
            let why = "This process decides only: send the gateway's own paths to the gateway.";
            return answer::refused(StatusCode::NOT_FOUND, why);
        }
        Verified::Own => proxy.handle(Request::from_parts(parts, body::full(body)), &connection).await,
    };
    let (parts, body) = response.into_parts();
    match body::collect(body, PAGE_LEN_MAX).await {
        Some(page) => answer::instead(&Response::from_parts(parts, page)),
        None => answer::refused(StatusCode::BAD_GATEWAY, "The page is too long."),
    }
}
