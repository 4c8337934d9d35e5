//! Bytes as they are: what a client sends by hand, and what an app gets of it.

use std::sync::Mutex;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use super::*;

/// For what must come: a machine that does a lot else may be slow.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// What an app answers to everything.
pub(super) const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Runs until it ends, or until what is returned is dropped.
pub(super) fn running(task: impl Future<Output = ()> + Send + 'static) -> JoinSet<()> {
    let mut set = JoinSet::new();
    set.spawn(task);
    set
}

/// An app that writes down what it gets, byte for byte.
pub(super) struct Witness {
    requests: Arc<Mutex<Vec<String>>>,
    _task: JoinSet<()>,
}

impl Witness {
    /// Stands behind the gateway, and gives each request the same answer.
    pub(super) fn behind(doors: &Doors, answer: &'static str) -> Self {
        let (app, requests) = (doors.app.clone(), Arc::new(Mutex::new(Vec::new())));
        let written = requests.clone();
        let task = async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = app.accept().await {
                connections.spawn(witness(stream, written.clone(), answer));
            }
        };
        Self { requests, _task: running(task) }
    }

    /// The whole requests that came, each with its body.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// The first lines of the requests that came.
    pub(super) fn lines(&self) -> Vec<String> {
        self.requests().iter().map(|request| request.lines().next().unwrap().to_owned()).collect()
    }
}

async fn witness(mut stream: TcpStream, requests: Arc<Mutex<Vec<String>>>, answer: &'static str) {
    let mut pending = Vec::new();
    loop {
        while let Some(length) = whole_request(&pending) {
            let request: Vec<u8> = pending.drain(..length).collect();
            requests.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
        if !matches!(stream.read_buf(&mut pending).await, Ok(1..)) {
            return;
        }
    }
}

/// The length of the request that `octets` begin with, read as simply as the simplest app does; `None`: it is not whole.
fn whole_request(octets: &[u8]) -> Option<usize> {
    let find = |what: &[u8], from: usize| {
        octets[from..].windows(what.len()).position(|window| window == what).map(|at| from + at + what.len())
    };
    let body = find(b"\r\n\r\n", 0)?;
    let head = String::from_utf8_lossy(&octets[..body]).to_ascii_lowercase();
    if head.contains("\r\ntransfer-encoding:") {
        let last = if octets[body..].starts_with(b"0\r\n") { body + 3 } else { find(b"\r\n0\r\n", body)? };
        return find(b"\r\n", last).filter(|end| *end == last + 2).or_else(|| find(b"\r\n\r\n", last));
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let end = body + length.map_or(0, |length| length.trim().parse::<usize>().unwrap());
    (octets.len() >= end).then_some(end)
}

/// Reads until there are `answers` status lines, or the end of the stream.
pub(super) async fn statuses(stream: &mut (impl AsyncRead + Unpin), answers: usize) -> (Vec<u16>, String) {
    let mut got = Vec::new();
    let reading = async {
        loop {
            let text = String::from_utf8_lossy(&got).into_owned();
            let statuses: Vec<u16> = text
                .split("HTTP/1.1 ")
                .skip(1)
                .filter(|rest| rest.contains("\r\n\r\n"))
                .map(|rest| rest[..3].parse().unwrap())
                .collect();
            if statuses.len() >= answers || !matches!(stream.read_buf(&mut got).await, Ok(1..)) {
                return (statuses, text);
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("an answer, or the end")
}

/// Waits for the end of the stream; what comes before does not matter.
pub(super) async fn end(stream: &mut (impl AsyncRead + Unpin)) {
    let mut rest = Vec::new();
    // The end is a close or a reset; both are an end.
    _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the end");
}
