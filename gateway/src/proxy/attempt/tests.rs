use std::{
    future::pending,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::Method;
use http_body_util::BodyExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};

use super::*;
use crate::config::{
    Balancing, CircuitBreakers, HttpTarget, OutlierDetection, PathRewrite, RequestLimits, UpstreamHost,
    UpstreamTls, Upstreams,
};

/// An app that reads what comes first on each connection, says `answer` and hangs up.
struct Mute {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Mute {
    async fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let (count, mut task) = (connections.clone(), JoinSet::new());
        task.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let mut got = [0; 4096];
                let _len = stream.read(&mut got).await;
                let _sent = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { address, connections, _task: task }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
const FAILURE: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

fn pool(apps: &[SocketAddr], change: impl FnOnce(&mut Upstreams)) -> Pool {
    let member = |app: &SocketAddr| Upstream {
        name: format!("http://{app}"),
        origin: format!("http://{app}").parse().unwrap(),
        socket: None,
        is_h2c: false,
        weight: 1,
    };
    let mut upstreams = Upstreams {
        members: apps.iter().map(member).collect(),
        balancing: Balancing::RoundRobin,
        health_checks: Vec::new(),
        outlier_detection: None,
        panic_threshold: 0,
        limits: CircuitBreakers::default(),
    };
    change(&mut upstreams);
    let (rewrite, host, tls) = (PathRewrite::Keep, UpstreamHost::Target, UpstreamTls::default());
    Pool::new(
        "route",
        &HttpTarget {
            upstreams,
            rewrite,
            host,
            tls,
            request_limits: RequestLimits::default(),
            websocket_origins: Vec::new(),
        },
    )
    .unwrap()
}

fn request(method: Method, body: Body) -> Outgoing {
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = method;
    Outgoing { head, body, path: PathAndQuery::from_static("/"), host: None, is_upgrade: false }
}

/// The status of the answer, or of the refusal in its place.
async fn status(pool: &Pool, outgoing: Outgoing) -> u16 {
    let draw = pool.draw(|| 0);
    match send(pool, "route", outgoing, draw, pending()).await {
        Ok((response, _counted)) => response.status().as_u16(),
        Err(refusal) => refusal.status().as_u16(),
    }
}

#[tokio::test]
async fn only_what_may_be_repeated_is_sent_to_another_app_after_one_hung_up() {
    for (method, body, expected) in [
        (Method::GET, body::empty(), 200),
        (Method::DELETE, body::empty(), 200),
        (Method::POST, body::empty(), 503),
        (Method::POST, body::full("an order"), 503),
        (Method::PUT, body::full("a file"), 503),
    ] {
        let (dead, well) = (Mute::start("").await, Mute::start(ANSWER).await);
        let pool = pool(&[dead.address, well.address], |_| {});
        assert_eq!(status(&pool, request(method.clone(), body)).await, expected, "{method}");
        assert_eq!(dead.connections(), 1, "{method}");
        assert_eq!(well.connections(), usize::from(expected == 200), "{method}");
    }
}

#[tokio::test]
async fn a_lone_app_that_hangs_up_is_asked_once_more_and_no_oftener() {
    for (method, body, expected) in [
        (Method::GET, body::empty(), 2),
        (Method::POST, body::empty(), 1),
        (Method::PUT, body::full("a file"), 1),
    ] {
        let app = Mute::start("").await;
        let pool = pool(&[app.address], |_| {});
        assert_eq!(status(&pool, request(method.clone(), body)).await, 503, "{method}");
        assert_eq!(app.connections(), expected, "{method}");
    }
}

#[tokio::test]
async fn an_answer_is_final_whatever_its_status() {
    let (busy, well) = (Mute::start(FAILURE).await, Mute::start(ANSWER).await);
    let pool = pool(&[busy.address, well.address], |_| {});
    assert_eq!(status(&pool, request(Method::GET, body::empty())).await, 503);
    assert_eq!(well.connections(), 0);
}

#[tokio::test]
async fn no_request_tries_more_apps_than_it_may() {
    let apps = [Mute::start("").await, Mute::start("").await, Mute::start("").await, Mute::start("").await];
    let all: Vec<SocketAddr> = apps.iter().map(|app| app.address).collect();
    let total = || apps.iter().map(Mute::connections).sum::<usize>();
    assert_eq!(status(&pool(&all, |_| {}), request(Method::GET, body::empty())).await, 503);
    assert_eq!(total(), TRIES_MAX);
    let without = pool(&all, |upstreams| upstreams.limits.max_retries = Some(0));
    assert_eq!(status(&without, request(Method::GET, body::empty())).await, 503);
    assert_eq!(total(), TRIES_MAX + 1);
}

#[tokio::test]
async fn an_app_that_keeps_failing_is_left_out() {
    let (busy, well) = (Mute::start(FAILURE).await, Mute::start(ANSWER).await);
    let detection = OutlierDetection {
        consecutive_5xx: Some(2),
        consecutive_gateway_failure: None,
        base_ejection_time: std::time::Duration::from_secs(3600),
        max_ejection_time: std::time::Duration::from_secs(3600),
        max_ejection_percent: 50,
    };
    let pool = pool(&[busy.address, well.address], |upstreams| upstreams.outlier_detection = Some(detection));
    let mut seen = Vec::new();
    for _ in 0..8 {
        seen.push(status(&pool, request(Method::GET, body::empty())).await);
    }
    assert_eq!(seen, [503, 200, 503, 200, 200, 200, 200, 200]);
}

#[tokio::test]
async fn a_route_takes_no_more_requests_at_once_than_it_may_and_counts_until_the_end() {
    let app = Mute::start(ANSWER).await;
    let pool = pool(&[app.address], |upstreams| upstreams.limits.max_requests = Some(1));
    let draw = pool.draw(|| 0);
    let (response, counted) =
        send(&pool, "route", request(Method::GET, body::empty()), draw, pending()).await.unwrap();
    let answer = body::boxed(body::keeping(response.into_body(), counted));
    assert_eq!(status(&pool, request(Method::GET, body::empty())).await, 503);
    assert_eq!(answer.collect().await.unwrap().to_bytes(), "ok");
    assert_eq!(status(&pool, request(Method::GET, body::empty())).await, 200);
}

#[tokio::test]
async fn a_request_whose_time_is_over_is_tried_nowhere_else() {
    // Connections are taken by the system, and nobody answers on them.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let other = Mute::start(ANSWER).await;
    let pool = pool(&[silent.local_addr().unwrap(), other.address], |_| {});
    let outgoing = request(Method::GET, body::empty());
    let refusal = send(&pool, "route", outgoing, pool.draw(|| 0), async {}).await.unwrap_err();
    assert_eq!(refusal.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(other.connections(), 0);
}
