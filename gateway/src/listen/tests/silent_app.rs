//! Apps that say nothing, and bodies that most apps are never sent.

use super::{
    protocols::{body, data, over_http2, over_http3_to},
    wire::{ANSWER, PATIENCE, Witness, statuses},
    *,
};
use tokio::io::AsyncWriteExt as _;

/// An app that takes every request and answers none.
const SILENCE: &str = "";

#[tokio::test]
async fn an_app_that_never_answers_is_given_up_whatever_the_method_and_protocol() {
    let doors = Doors::open().await;
    let app = Witness::behind(&doors, SILENCE);
    let asked = [Method::GET, Method::HEAD, Method::DELETE, Method::POST].map(|method| asked(&doors, method));
    futures_util::future::join_all(asked).await;
    assert!(app.requests().len() >= 12, "each came to the app");
}

/// Each protocol's request to an app that must be quick.
async fn asked(doors: &Doors, method: Method) {
    let mut stream = doors.tcp_to(BRIEF, &[b"http/1.1"], None).await;
    let request = format!("{method} / HTTP/1.1\r\nHost: {BRIEF}\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(statuses(&mut stream, 1).await.0, [504], "{method}");

    let frames = if method == Method::POST { vec![data("ok")] } else { vec![] };
    let request = Request::builder().method(&method).uri(format!("https://{BRIEF}/"));
    let response = over_http2(doors, BRIEF, request.body(body(frames)).unwrap()).await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT, "{method}");

    let mut h3 = over_http3_to(doors, BRIEF, Request::builder().method(&method)).await;
    h3.stream.finish().await.unwrap();
    let response = tokio::time::timeout(PATIENCE, h3.stream.recv_response()).await.expect("an answer");
    assert_eq!(response.unwrap().status(), StatusCode::GATEWAY_TIMEOUT, "{method}");
}

#[tokio::test]
async fn what_a_get_carries_comes_to_the_app_over_every_protocol() {
    let doors = Doors::open().await;
    let app = Witness::behind(&doors, ANSWER);
    let mut stream = doors.tcp_to(OPEN, &[b"http/1.1"], None).await;
    let request =
        format!("GET / HTTP/1.1\r\nHost: {OPEN}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(statuses(&mut stream, 1).await.0, [200]);

    let request = Request::get(format!("https://{OPEN}/")).body(body(vec![data("ok")])).unwrap();
    assert_eq!(over_http2(&doors, OPEN, request).await.status(), StatusCode::OK);

    let mut h3 = over_http3_to(&doors, OPEN, Request::builder()).await;
    h3.stream.send_data(Bytes::from_static(b"ok").into()).await.unwrap();
    h3.stream.finish().await.unwrap();
    assert_eq!(h3.stream.recv_response().await.unwrap().status(), StatusCode::OK);

    assert_eq!(app.requests().len(), 3);
    for request in app.requests() {
        assert!(request.ends_with("\r\n\r\n2\r\nok\r\n0\r\n\r\n"), "{request}");
    }
}

#[tokio::test]
async fn a_plain_get_says_nothing_of_a_body_over_any_protocol() {
    let doors = Doors::open().await;
    let app = Witness::behind(&doors, ANSWER);
    let mut stream = doors.tcp_to(OPEN, &[b"http/1.1"], None).await;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {OPEN}\r\n\r\n").as_bytes()).await.unwrap();
    assert_eq!(statuses(&mut stream, 1).await.0, [200]);
    let mut h3 = over_http3_to(&doors, OPEN, Request::builder()).await;
    h3.stream.finish().await.unwrap();
    assert_eq!(h3.stream.recv_response().await.unwrap().status(), StatusCode::OK);
    let seen = app.requests();
    assert_eq!(seen.len(), 2);
    assert!(!seen[0].contains("transfer-encoding") && !seen[0].contains("content-length"), "{}", seen[0]);
}
