use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use http_body_util::BodyExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};

use super::*;
use crate::config::{Upstream, UpstreamTls};

/// An app that answers each request on a connection with the next of its texts, and then hangs up.
struct App {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    ended: Arc<tokio::sync::Semaphore>,
    task: JoinSet<()>,
}

impl App {
    async fn start(answers: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Semaphore::new(0)));
        let (count, end, mut task) = (connections.clone(), ended.clone(), JoinSet::new());
        task.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                for answer in answers {
                    let mut got = Vec::new();
                    while !got.ends_with(b"\r\n\r\n") {
                        if stream.read_buf(&mut got).await.unwrap_or(0) == 0 {
                            break;
                        }
                    }
                    _ = stream.write_all(answer.as_bytes()).await;
                }
                drop(stream);
                end.add_permits(1);
            }
        });
        Self { address, connections, ended, task }
    }

    fn kept(&self) -> Arc<Kept> {
        let upstream = Upstream {
            name: format!("http://{}", self.address),
            origin: format!("http://{}", self.address).parse().unwrap(),
            socket: None,
            is_h2c: false,
            weight: 1,
        };
        Kept::new(Dial::new(&upstream, &UpstreamTls::default(), None, None).unwrap())
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn get(kept: &Arc<Kept>) -> Result<Response<Answer>, CallError> {
    let (head, ()) =
        Request::get("http://app.test/x?y").header("host", "app.test").body(()).unwrap().into_parts();
    kept.send(head).await
}

async fn text(kept: &Arc<Kept>) -> Bytes {
    get(kept).await.unwrap().into_body().collect().await.unwrap().to_bytes()
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
const NOTHING: &str = "HTTP/1.1 204 No Content\r\n\r\n";

#[tokio::test]
async fn one_connection_serves_one_request_after_another_however_their_answers_end() {
    let app = App::start(&[OK, CHUNKED, NOTHING, CHUNKED, OK]).await;
    let kept = app.kept();
    for expected in ["ok", "ok", "", "ok"] {
        assert_eq!(text(&kept).await, expected);
        assert_eq!(kept.idle().len(), 1);
    }
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn requests_at_the_same_time_have_a_connection_each() {
    let app = App::start(&[OK, OK]).await;
    let kept = app.kept();
    let (one, other) = (get(&kept).await.unwrap(), get(&kept));
    // The app serves one connection at a time: the second waits until the first is through.
    let first = one.into_body().collect().await.unwrap().to_bytes();
    drop(kept.idle().pop_back());
    let second = other.await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!((&first[..], &second[..], app.connections()), (&b"ok"[..], &b"ok"[..], 2));
}

#[tokio::test]
async fn an_answer_that_nobody_reads_to_its_end_takes_its_connection_along() {
    let app = App::start(&[OK, OK]).await;
    let kept = app.kept();
    drop(get(&kept).await.unwrap());
    assert_eq!(kept.idle().len(), 0);
    assert_eq!(text(&kept).await, "ok");
    assert_eq!(app.connections(), 2);
}

#[tokio::test]
async fn what_the_app_has_closed_is_not_used_again_and_swept_away() {
    let app = App::start(&[OK]).await;
    let kept = app.kept();
    assert_eq!(text(&kept).await, "ok");
    app.ended.acquire().await.unwrap().forget();
    assert_eq!(text(&kept).await, "ok");
    assert_eq!(app.connections(), 2);
    app.ended.acquire().await.unwrap().forget();
    // The end is on its way through the system's loopback.
    while !kept.idle().is_empty() {
        kept.tidy(Now::read().monotonic);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_has_been_idle_for_long_is_ended() {
    let app = App::start(&[OK, OK]).await;
    let kept = app.kept();
    assert_eq!(text(&kept).await, "ok");
    let now = Now::read().monotonic;
    kept.tidy(now + IDLE_TIME / 2);
    assert_eq!(kept.idle().len(), 1);
    kept.tidy(now + IDLE_TIME * 2);
    assert_eq!(kept.idle().len(), 0);
}

#[tokio::test]
async fn an_app_that_hangs_up_is_an_error_and_no_panic() {
    for answers in [&[""][..], &["HTTP/1.1 200 OK\r\nContent-"], &["garbage\r\n\r\n"]] {
        let app = App::start(answers).await;
        assert!(matches!(get(&app.kept()).await, Err(CallError::Broken(_))), "{answers:?}");
    }
    let app = App::start(&["HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok"]).await;
    let response = get(&app.kept()).await.unwrap();
    assert!(response.into_body().collect().await.is_err());
}

#[tokio::test]
async fn an_app_that_is_not_there_is_a_failure_to_connect() {
    let mut app = App::start(&[]).await;
    app.task.shutdown().await;
    assert!(get(&app.kept()).await.unwrap_err().is_connect());
}
