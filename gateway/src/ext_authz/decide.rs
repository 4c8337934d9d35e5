//! The method by which a proxy of ours, in another process, asks for a decision. Envoy's `Check` would not do: it knows neither
//! streams nor reasons nor when to ask again.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tonic::{Status, codegen::Service};

use super::DECISION_TIMEOUT;
use crate::{
    proxy::{Proxy, Undecided},
    remote_authorize::messages::{DecideRequest, DecideResponse},
};

/// The method `Decide`.
pub(super) struct Decide {
    pub(super) proxy: Arc<Proxy>,
}

impl Service<tonic::Request<DecideRequest>> for Decide {
    type Response = tonic::Response<DecideResponse>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<DecideRequest>) -> Self::Future {
        let proxy = self.proxy.clone();
        Box::pin(async move {
            let deciding = Box::pin(proxy.decide(request.into_inner()));
            let decided = tokio::time::timeout(DECISION_TIMEOUT, deciding).await;
            let decided = decided.map_err(|_| Status::unavailable("the decision took too long"))?;
            decided.map(tonic::Response::new).map_err(|why| status(&why))
        })
    }
}

/// What is wrong with one question is not what is wrong with this process: the asking side tells them apart.
fn status(why: &Undecided) -> Status {
    match why {
        Undecided::Malformed(_) => Status::invalid_argument(why.to_string()),
        Undecided::OtherRoute | Undecided::NoSession | Undecided::Parameters => {
            Status::failed_precondition(why.to_string())
        }
        Undecided::Store(error) => {
            tracing::error!(error = error as &dyn std::error::Error, "session store failed");
            Status::unavailable(why.to_string())
        }
    }
}
