//! `grpc.health.v1.Health/Check`: whether this process answers, for load balancers and probes. It says nothing else, so
//! everybody may ask.

use std::{
    future::{Ready, ready},
    task::{Context, Poll},
};

use tonic::codegen::Service;

pub(super) const HEALTH_PATH: &str = "/grpc.health.v1.Health/Check";

const SERVING: i32 = 1;

/// `grpc.health.v1.HealthCheckRequest`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct HealthCheckRequest {
    /// The service's name; empty means the whole process.
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// The method `Check`.
pub(super) struct Health;

impl Service<tonic::Request<HealthCheckRequest>> for Health {
    type Response = tonic::Response<HealthCheckResponse>;
    type Error = tonic::Status;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<HealthCheckRequest>) -> Self::Future {
        ready(match request.get_ref().service.as_str() {
            "" | super::SERVICE => Ok(tonic::Response::new(HealthCheckResponse { status: SERVING })),
            _ => Err(tonic::Status::not_found("there is no such service")),
        })
    }
}
