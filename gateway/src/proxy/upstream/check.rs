//! Active health checks: asks each upstream of a route on its own beat and tells [`Health`](super::health::Health) what
//! came of it.
//!
//! A check carries nothing of any person or request; its answer is looked at and thrown away.

use std::sync::Arc;

use futures_util::future::join_all;
use http::{HeaderValue, Request, Version, header};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Member, Pool, grpc_check, health, random};
use crate::{
    body,
    config::{HealthCheck, Probe},
};

/// Octets of an app's greeting that a TCP check searches at most.
const GREETING_LEN_MAX: usize = 16 * 1024;

/// By which apps know a check from a person.
const USER_AGENT: &str = "pomerium-gateway health check";

/// Why a check failed, for the log.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no answer in time")]
    TimedOut,
    #[error("the status {0} is not expected")]
    Status(u16),
    #[error("the request cannot be written")]
    Request(#[source] http::Error),
    #[error("the request was not answered")]
    Http(#[source] hyper_util::client::legacy::Error),
    #[error("the connection failed")]
    Connection(#[source] std::io::Error),
    #[error("what was expected did not come")]
    Unexpected,
    #[error("it does not speak HTTP/2, which gRPC needs: write h2c:// or https://")]
    NotHttp2,
    #[error("it does not say that the service is well")]
    NotServing,
}

/// Checks all upstreams of a route for as long as it is polled.
pub(crate) async fn watch_over(pool: Arc<Pool>) {
    let pool = &*pool;
    let all =
        (0..pool.members.len()).flat_map(|place| (0..pool.checks.len()).map(move |check| (place, check)));
    join_all(all.map(|(place, check)| watch(pool, place, check))).await;
}

async fn watch(pool: &Pool, place: usize, check: usize) {
    let (member, by) = (&pool.members[place], &pool.checks[check]);
    loop {
        let found =
            tokio::time::timeout(by.timeout, probe(member, by)).await.unwrap_or(Err(Failure::TimedOut));
        let has_changed = pool.state().health.checked(place, check, found.is_ok(), by);
        let upstream = &member.upstream.name;
        match found {
            Ok(()) if has_changed => tracing::info!(route = pool.route, upstream, "upstream is well again"),
            Err(error) if has_changed => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    route = pool.route,
                    upstream,
                    error,
                    "upstream is out: its health check fails"
                );
            }
            Ok(()) | Err(_) => {}
        }
        tokio::time::sleep(health::jittered(by.interval, random())).await;
    }
}

async fn probe(member: &Member, by: &HealthCheck) -> Result<(), Failure> {
    match &by.probe {
        Probe::Http { host, path, expected } => {
            let own = member.upstream.authority();
            let host = host.as_ref().map_or(own.as_str(), |host| host.as_str());
            let request = Request::get(format!("{}://{host}{path}", member.upstream.origin.scheme()))
                .header(header::HOST, host)
                .header(header::USER_AGENT, USER_AGENT)
                .body(body::empty())
                .map_err(Failure::Request)?;
            let status = member.client.request(request).await.map_err(Failure::Http)?.status().as_u16();
            expected.iter().any(|range| range.contains(&status)).then_some(()).ok_or(Failure::Status(status))
        }
        Probe::Grpc { service, authority } => {
            let own = member.upstream.authority();
            let host = authority.as_ref().map_or(own.as_str(), |authority| authority.as_str());
            let uri = format!("{}://{host}{}", member.upstream.origin.scheme(), grpc_check::PATH);
            let request = Request::post(uri)
                .header(header::HOST, host)
                .header(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
                .header(header::TE, HeaderValue::from_static("trailers"))
                .header(header::USER_AGENT, USER_AGENT)
                .body(body::full(grpc_check::question(service)))
                .map_err(Failure::Request)?;
            let response = member.client.request(request).await.map_err(Failure::Http)?;
            if response.version() != Version::HTTP_2 {
                return Err(Failure::NotHttp2);
            }
            let answer = body::collect(body::boxed(response.into_body()), grpc_check::ANSWER_LEN_MAX).await;
            let is_serving = answer.is_some_and(|answer| grpc_check::is_serving(&answer));
            is_serving.then_some(()).ok_or(Failure::NotServing)
        }
        Probe::Tcp { send, receive } => {
            let mut stream = member.dial.clone().connect().await.map_err(Failure::Connection)?.into_stream();
            stream.write_all(send).await.map_err(Failure::Connection)?;
            stream.flush().await.map_err(Failure::Connection)?;
            let mut got = Vec::new();
            while !has_all(&got, receive) {
                if got.len() >= GREETING_LEN_MAX
                    || stream.read_buf(&mut got).await.map_err(Failure::Connection)? == 0
                {
                    return Err(Failure::Unexpected);
                }
            }
            Ok(())
        }
    }
}

/// Whether each of `parts` is in `got`, one after another.
fn has_all(got: &[u8], parts: &[Vec<u8>]) -> bool {
    let mut rest = got;
    parts.iter().all(|part| {
        let Some(start) = rest.windows(part.len().max(1)).position(|window| window == part.as_slice()) else {
            return false;
        };
        rest = &rest[start + part.len()..];
        true
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_must_hold_all_parts_in_their_order() {
        let parts = [b"220".to_vec(), b"ready".to_vec()];
        assert!(has_all(b"220 mail ready\r\n", &parts) && has_all(b"", &[]));
        for wrong in [&b""[..], b"220", b"ready 220", b"22", b"220 read"] {
            assert!(!has_all(wrong, &parts), "{wrong:?}");
        }
        assert!(!has_all(b"aa", &[b"aa".to_vec(), b"a".to_vec()]), "no octet counts twice");
    }
}
