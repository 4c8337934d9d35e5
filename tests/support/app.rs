//! The web app behind the gateway: shows what it got, moves large bodies, and echoes on a websocket.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};
use tokio_util::task::TaskTracker;

/// What every page of the app contains.
pub const GREETING: &str = "the app behind the gateway";

/// One piece of a large answer.
const CHUNK_LEN: usize = 64 * 1024;

/// RFC 6455, 1.3.
const WEBSOCKET_ID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// First byte of a whole text message, and the bit of the second that says it is masked.
const TEXT_AND_LAST: u8 = 0x81;
const MASKED: u8 = 0x80;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A running app: `/` answers with JSON of the request, `/download?LEN` with that many bytes, `/upload` with length
/// and SHA-256 of the body, `/socket` is a websocket.
#[derive(Debug)]
pub struct App {
    /// Where it listens.
    pub address: SocketAddr,
    requests: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl App {
    /// Starts the app on a port of its own.
    ///
    /// # Errors
    /// Loopback cannot be listened on.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let requests = Arc::new(AtomicUsize::new(0));
        let mut task = JoinSet::new();
        task.spawn(serve(listener, requests.clone()));
        Ok(Self { address, requests, _task: task })
    }

    /// How many requests reached it.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn serve(listener: TcpListener, requests: Arc<AtomicUsize>) {
    let (mut connections, sockets) = (JoinSet::new(), TaskTracker::new());
    while let Ok((stream, _)) = listener.accept().await {
        // Small pieces are not held back until the last is acknowledged.
        let _slower = stream.set_nodelay(true);
        let (requests, sockets) = (requests.clone(), sockets.clone());
        connections.spawn(async move {
            let service = service_fn(|request| {
                requests.fetch_add(1, Ordering::SeqCst);
                answer(request, &sockets)
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // A client that leaves in the middle is its own affair.
            let _gone = connection.with_upgrades().await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(request: Request<Incoming>, sockets: &TaskTracker) -> Result<Response<Body>, hyper::Error> {
    Ok(match request.uri().path() {
        "/download" => download(request.uri().query().and_then(|len| len.parse().ok()).unwrap_or(0)),
        "/upload" => upload(request).await?,
        "/socket" => websocket(request, sockets),
        _ => show(&request),
    })
}

fn show(request: &Request<Incoming>) -> Response<Body> {
    let mut headers = Map::new();
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let values = headers.entry(name.as_str()).or_insert_with(|| json!([]));
        if let Value::Array(values) = values {
            values.push(Value::String(value));
        }
    }
    let shown = json!({
        "greeting": GREETING,
        "method": request.method().as_str(),
        "target": request.uri().to_string(),
        "headers": headers,
    });
    json_response(&shown)
}

fn json_response(value: &Value) -> Response<Body> {
    let mut response = Response::new(Full::from(value.to_string()).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn download(len: usize) -> Response<Body> {
    let chunks = stream::unfold(len, |left| async move {
        let size = left.min(CHUNK_LEN);
        let chunk = Bytes::from(vec![b'x'; size]);
        (size > 0).then(|| (Ok::<_, Infallible>(Frame::data(chunk)), left - size))
    });
    Response::new(StreamBody::new(chunks).boxed_unsync())
}

async fn upload(request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let mut body = request.into_body();
    let (mut hash, mut len) = (digest::Context::new(&digest::SHA256), 0);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            hash.update(&data);
            len += data.len();
        }
    }
    Ok(json_response(&json!({"len": len, "sha256": hex(hash.finish().as_ref())})))
}

fn websocket(mut request: Request<Incoming>, sockets: &TaskTracker) -> Response<Body> {
    let Some(key) = request.headers().get("sec-websocket-key").cloned() else {
        let mut response = json_response(&json!({"error": "this is a websocket"}));
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        return response;
    };
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(WEBSOCKET_ID.as_bytes());
    let accept = STANDARD.encode(hash.finish());
    let upgrade = hyper::upgrade::on(&mut request);
    sockets.spawn(async move {
        if let Ok(stream) = upgrade.await {
            let _gone = echo_messages(TokioIo::new(stream)).await;
        }
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header("sec-websocket-accept", accept)
        .body(Full::default().boxed_unsync());
    response.unwrap_or_default()
}

/// Sends each short text message back without its mask (RFC 6455, 5.2), until the peer sends anything else.
async fn echo_messages(mut stream: TokioIo<Upgraded>) -> std::io::Result<()> {
    loop {
        let (first, second) = (stream.read_u8().await?, stream.read_u8().await?);
        let len = usize::from(second & 0x7f);
        if first != TEXT_AND_LAST || second & MASKED == 0 || len >= 126 {
            return stream.shutdown().await;
        }
        let mut mask = [0; 4];
        stream.read_exact(&mut mask).await?;
        let mut text = vec![0; len];
        stream.read_exact(&mut text).await?;
        for (byte, mask) in text.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        stream.write_all(&[first, second & 0x7f]).await?;
        stream.write_all(&text).await?;
        stream.flush().await?;
    }
}

/// The lower-case hexadecimal form.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
