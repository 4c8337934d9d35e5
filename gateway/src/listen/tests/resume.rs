//! Streams that their clients ask for again: over every door, and by whom they may be.

use http::{HeaderMap, HeaderValue};
use pomerium_shared::resume::{Attach, Attached, Budget, End, FIELD, Offer, StreamName, Wish};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

use super::*;

const DESK: &str = "desk.corp.test:22";
const SHELF: &str = "shelf.corp.test:22";

/// Until something is given up that ought to happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Doors with two TCP routes to one app, for everybody who is signed in.
struct Parts {
    doors: Doors,
    app: TcpListener,
}

async fn parts(more: &str) -> Parts {
    parts_for(more, Waits::USUAL).await
}

async fn parts_for(more: &str, waits: Waits) -> Parts {
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = app.local_addr().unwrap();
    let route = |from: &str| {
        format!("- from: tcp+https://{from}\n  to: tcp://{to}\n  allow_any_authenticated_user: true\n")
    };
    let more = format!("{more}policy:\n{}{}", route(DESK), route(SHELF));
    Parts { doors: Doors::open_for(tempfile::tempdir().unwrap(), &more, waits).await, app }
}

/// Who asks.
#[derive(Clone, Copy)]
struct Who<'a> {
    token: &'a str,
    key: Option<&'a Key>,
}

/// What a client was told.
struct Answer {
    status: StatusCode,
    offer: Option<Offer>,
    /// Without the request's own id.
    problem: String,
    leg: Option<Leg>,
    connection: Connection,
}

/// What the answer came over.
enum Connection {
    Tcp(JoinSet<()>),
    Quic(TunnelClient),
}

impl Connection {
    /// As if it had never been there.
    fn lose(self) {
        match self {
            Self::Tcp(tasks) => drop(tasks),
            Self::Quic(client) => client.quic().close(1_u32.into(), b"lost"),
        }
    }
}

impl Parts {
    async fn connect(&self, way: Way, who: Who<'_>, to: &str, wish: Option<Wish>) -> Answer {
        let mut headers = HeaderMap::new();
        if !who.token.is_empty() {
            headers.insert(header::AUTHORIZATION, format!("Pomerium {}", who.token).parse().unwrap());
        }
        if let Some(wish) = wish {
            headers.insert(FIELD, wish.to_string().parse().unwrap());
        }
        let (response, leg, connection) = match way {
            Way::Http3 => self.over_quic(who.key, to, headers).await,
            Way::Http1 | Way::Http2 => self.over_tcp(way, who.key, to, headers).await,
        };
        let offer = response.headers().get(FIELD).map(|value| value.to_str().unwrap().parse().unwrap());
        let id = response.headers().get("x-request-id").map_or("", |value| value.to_str().unwrap());
        let problem = String::from_utf8_lossy(response.body()).replace(id, "");
        Answer { status: response.status(), offer, problem, leg, connection }
    }

    async fn over_quic(
        &self,
        key: Option<&Key>,
        to: &str,
        headers: HeaderMap,
    ) -> (Response<Bytes>, Option<Leg>, Connection) {
        let client = self.doors.quic(key).await;
        let connected = client.connect(&to.parse().unwrap(), headers).await.unwrap();
        let connection = Connection::Quic(client);
        match connected {
            Connected::Open { response, leg } => (response.map(|()| Bytes::new()), Some(leg), connection),
            Connected::Refused(response) => (response, None, connection),
        }
    }

    async fn over_tcp(
        &self,
        way: Way,
        key: Option<&Key>,
        to: &str,
        headers: HeaderMap,
    ) -> (Response<Bytes>, Option<Leg>, Connection) {
        let mut request = Request::connect(to).body(Full::new(Bytes::new())).unwrap();
        *request.headers_mut() = headers;
        let mut tasks = JoinSet::new();
        let response = if way == Way::Http2 {
            let stream = self.doors.tcp(&[b"h2", DEVICE_KEY_MARK], key).await;
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                    .await
                    .unwrap();
            tasks.spawn(async move { _ = connection.await });
            sender.send_request(request).await.unwrap()
        } else {
            request.headers_mut().insert(header::HOST, to.parse().unwrap());
            let stream = self.doors.tcp(&[b"http/1.1", DEVICE_KEY_MARK], key).await;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
            tasks.spawn(async move { _ = connection.with_upgrades().await });
            sender.send_request(request).await.unwrap()
        };
        if response.status() != StatusCode::OK {
            return (whole(response).await, None, Connection::Tcp(tasks));
        }
        let (head, body) = response.into_parts();
        let upgraded = hyper::upgrade::on(Response::from_parts(head.clone(), body)).await.unwrap();
        // Over HTTP/1.1 nobody but the stream has the connection by now.
        let (near, mut far) = tokio::io::duplex(16 * 1024);
        tasks.spawn(async move {
            _ = tokio::io::copy_bidirectional(&mut far, &mut TokioIo::new(upgraded)).await;
        });
        let (reader, writer) = tokio::io::split(near);
        (Response::from_parts(head, Bytes::new()), Some(Leg::io(reader, writer)), Connection::Tcp(tasks))
    }
}

/// A client's end of a stream, whose next connections are brought by the test.
struct Client {
    local: DuplexStream,
    name: StreamName,
    /// How far the gateway's octets came, each time that a connection is gone.
    lost: mpsc::Receiver<u64>,
    legs: mpsc::Sender<Leg>,
    end: JoinSet<EndReason>,
}

struct Brought {
    tell: mpsc::Sender<u64>,
    legs: mpsc::Receiver<Leg>,
}

impl Attach for Brought {
    async fn superseded(&mut self) {
        std::future::pending().await
    }

    async fn next(&mut self, received: u64) -> Result<Attached, EndReason> {
        self.tell.send(received).await.map_err(|_| EndReason::Client)?;
        let leg = self.legs.recv().await.ok_or(EndReason::Client)?;
        Ok(Attached { leg, received: None })
    }
}

impl Client {
    fn new(leg: Leg, offer: Offer) -> Self {
        let ((tell, lost), (bring, legs)) = (mpsc::channel(8), mpsc::channel(1));
        let end = End::new(Budget::new(1 << 20), offer.window);
        let app = end.to_gateway(leg, Brought { tell, legs });
        let (local, near) = tokio::io::duplex(16 * 1024);
        let (reader, writer) = tokio::io::split(near);
        let mut end = JoinSet::new();
        end.spawn(async move {
            let never = std::future::pending();
            relay::run(Leg::io(reader, writer), app, RelayOptions::default(), never).await.reason
        });
        Self { local, name: offer.name, lost, legs: bring, end }
    }

    /// How far the gateway's octets came when the connection was lost.
    async fn received(&mut self) -> u64 {
        timeout(PATIENCE, self.lost.recv()).await.unwrap().unwrap()
    }

    async fn ended(&mut self) -> EndReason {
        timeout(PATIENCE, self.end.join_next()).await.unwrap().unwrap().unwrap()
    }
}

impl Parts {
    /// A stream to the app that can be resumed, and the app's end of it.
    async fn open(&self, way: Way, who: Who<'_>) -> (Client, Connection, TcpStream) {
        let answer = self.connect(way, who, DESK, Some(Wish::New)).await;
        assert_eq!(answer.status, StatusCode::OK, "{way:?}: {}", answer.problem);
        let (app, _) = timeout(PATIENCE, self.app.accept()).await.unwrap().unwrap();
        (Client::new(answer.leg.unwrap(), answer.offer.unwrap()), answer.connection, app)
    }
}

/// Each side hears what the other says.
async fn talk(client: &mut Client, app: &mut TcpStream, text: &str) {
    let exchange = async {
        client.local.write_all(text.as_bytes()).await?;
        app.write_all(text.as_bytes()).await?;
        let mut heard = [vec![0; text.len()], vec![0; text.len()]];
        client.local.read_exact(&mut heard[0]).await?;
        app.read_exact(&mut heard[1]).await?;
        std::io::Result::Ok(heard)
    };
    let heard = timeout(PATIENCE, exchange).await.unwrap_or_else(|_| panic!("nobody hears {text}")).unwrap();
    assert_eq!(heard, [text.as_bytes(), text.as_bytes()]);
}

async fn is_over(app: &mut TcpStream, limit: Duration) -> bool {
    let mut rest = Vec::new();
    timeout(limit, app.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_over_every_other_door() {
    let parts = parts("").await;
    let key = Key::new();
    let token = parts.doors.token("s", Some(&key)).await;
    let who = Who { token: &token, key: Some(&key) };
    for from in WAYS {
        let (mut client, mut connection, mut app) = parts.open(from, who).await;
        talk(&mut client, &mut app, "before").await;
        for to in WAYS {
            connection.lose();
            let received = client.received().await;
            // What is said meanwhile is not lost.
            client.local.write_all(b"meanwhile").await.unwrap();
            app.write_all(b"meanwhile").await.unwrap();
            let again = Wish::Again { name: client.name, received };
            let answer = parts.connect(to, who, DESK, Some(again)).await;
            assert_eq!(answer.status, StatusCode::OK, "{from:?} to {to:?}: {}", answer.problem);
            assert_eq!(answer.offer, None, "it has its name");
            connection = answer.connection;
            client.legs.send(answer.leg.unwrap()).await.unwrap();
            let mut heard = [vec![0; 9], vec![0; 9]];
            timeout(PATIENCE, client.local.read_exact(&mut heard[0])).await.unwrap().unwrap();
            timeout(PATIENCE, app.read_exact(&mut heard[1])).await.unwrap().unwrap();
            assert_eq!(heard, [b"meanwhile", b"meanwhile"], "{from:?} to {to:?}");
            talk(&mut client, &mut app, "after").await;
        }
        client.local.shutdown().await.unwrap();
        assert!(is_over(&mut app, PATIENCE).await);
        drop(app);
        assert_eq!(client.ended().await, EndReason::Client);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_take_the_answer_holds_no_app_by_it() {
    let parts = parts_for("", Waits { header: Duration::from_secs(1), ..Waits::USUAL }).await;
    let token = parts.doors.token("s", None).await;
    let request = Request::connect(DESK)
        .header(header::AUTHORIZATION, format!("Pomerium {token}"))
        .header(FIELD, "new")
        .body(protocols::body(vec![]))
        .unwrap();
    let _client = backpressure::without_room(&parts.doors, HOST, Way::Http3, request).await;
    let (mut app, _) = timeout(PATIENCE, parts.app.accept()).await.unwrap().unwrap();
    assert!(is_over(&mut app, PATIENCE).await, "what nobody watches ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_ask_for_it_gets_a_stream_as_ever() {
    let parts = parts("").await;
    let token = parts.doors.token("s", None).await;
    let who = Who { token: &token, key: None };
    for way in WAYS {
        assert_eq!(parts.connect(way, who, DESK, None).await.offer, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_keeps_no_streams_says_so_by_saying_nothing() {
    let parts = parts("stream_resume_window: 0s\n").await;
    let token = parts.doors.token("s", None).await;
    let who = Who { token: &token, key: None };
    for way in WAYS {
        let answer = parts.connect(way, who, DESK, Some(Wish::New)).await;
        assert_eq!((answer.status, answer.offer), (StatusCode::OK, None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_its_owner_gets_a_stream_and_all_are_told_the_same() {
    let parts = parts("").await;
    let (own, other) = (Key::new(), Key::new());
    let alice = parts.doors.token_of("alice", "a", None).await;
    let bob = parts.doors.token_of("bob", "b", None).await;
    let owner = Who { token: &alice, key: Some(&own) };
    let (mut client, _connection, mut app) = parts.open(Way::Http3, owner).await;
    talk(&mut client, &mut app, "alice").await;
    let again = |name, received| Some(Wish::Again { name, received });
    let (name, guessed) = (client.name, StreamName::of_random([7; 16]));
    let mut told = Vec::new();
    for way in WAYS {
        for (what, who, to, wish) in [
            ("another user", Who { token: &bob, key: Some(&own) }, DESK, again(name, 5)),
            ("another device", Who { token: &alice, key: Some(&other) }, DESK, again(name, 5)),
            ("no device", Who { token: &alice, key: None }, DESK, again(name, 5)),
            ("another app", owner, SHELF, again(name, 5)),
            ("a guess", owner, DESK, again(guessed, 5)),
            ("more than was sent", owner, DESK, again(name, 6)),
            ("much more", owner, DESK, again(name, u64::MAX)),
        ] {
            let answer = parts.connect(way, who, to, wish).await;
            assert_eq!(answer.status, StatusCode::GONE, "{what} by {way:?}: {}", answer.problem);
            told.push(answer.problem);
        }
        let stranger = Who { token: "", key: Some(&own) };
        let answer = parts.connect(way, stranger, DESK, again(name, 5)).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "a stranger by {way:?}");
        let odd = Who { token: &alice, key: Some(&own) };
        let answer = parts.connect_saying(way, odd, "name=../../etc, received=-1").await;
        assert_eq!(answer, StatusCode::BAD_REQUEST, "nonsense by {way:?}");
    }
    assert!(told[0].contains("urn:pomerium:problem:stream-gone"), "{}", told[0]);
    assert!(told.iter().all(|problem| *problem == told[0]), "{told:#?}");
    talk(&mut client, &mut app, "still alice").await;
    assert!(timeout(Duration::ZERO, parts.app.accept()).await.is_err(), "the app heard of none of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_revoked_ends_a_stream_that_nobody_holds() {
    let parts = parts("").await;
    for way in WAYS {
        let session = format!("{way:?}");
        let token = parts.doors.token(&session, None).await;
        let who = Who { token: &token, key: None };
        let (mut client, connection, mut app) = parts.open(way, who).await;
        talk(&mut client, &mut app, "before").await;
        connection.lose();
        let received = client.received().await;
        assert!(!is_over(&mut app, Duration::from_millis(300)).await, "it is parked");
        assert!(parts.doors.store.end_session(&SessionId::new(&session)).await.unwrap());
        assert!(is_over(&mut app, Duration::from_secs(2)).await, "{way:?}");
        // A new session does not bring it back.
        let token = parts.doors.token(&format!("after {way:?}"), None).await;
        let again = Wish::Again { name: client.name, received };
        let answer = parts.connect(way, Who { token: &token, ..who }, DESK, Some(again)).await;
        assert_eq!(answer.status, StatusCode::GONE, "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_judged_by_the_session_that_its_client_came_back_with() {
    let parts = parts("").await;
    let old = parts.doors.token("old", None).await;
    let (mut client, connection, mut app) = parts.open(Way::Http3, Who { token: &old, key: None }).await;
    talk(&mut client, &mut app, "before").await;
    connection.lose();
    let again = Wish::Again { name: client.name, received: client.received().await };
    let new = parts.doors.token("new", None).await;
    let answer = parts.connect(Way::Http2, Who { token: &new, key: None }, DESK, Some(again)).await;
    client.legs.send(answer.leg.unwrap()).await.unwrap();
    talk(&mut client, &mut app, "after").await;
    assert!(parts.doors.store.end_session(&SessionId::new("old")).await.unwrap());
    talk(&mut client, &mut app, "the old session is nothing to it").await;
    assert!(parts.doors.store.end_session(&SessionId::new("new")).await.unwrap());
    assert_eq!(client.ended().await, EndReason::Session);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_stops_waits_for_nobody_who_is_away() {
    let parts = parts("").await;
    let token = parts.doors.token("s", None).await;
    let (mut client, connection, mut app) = parts.open(Way::Http3, Who { token: &token, key: None }).await;
    talk(&mut client, &mut app, "before").await;
    connection.lose();
    client.received().await;
    assert!(!is_over(&mut app, Duration::from_millis(300)).await, "it is parked");
    parts.doors.lifetime.drain.cancel();
    assert!(is_over(&mut app, Duration::from_secs(2)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_nobody_asks_for_ends_with_its_window() {
    let parts = parts("stream_resume_window: 1s\n").await;
    let token = parts.doors.token("s", None).await;
    let who = Who { token: &token, key: None };
    let (mut client, connection, mut app) = parts.open(Way::Http1, who).await;
    talk(&mut client, &mut app, "before").await;
    connection.lose();
    let again = Wish::Again { name: client.name, received: client.received().await };
    assert!(is_over(&mut app, PATIENCE).await);
    assert_eq!(client.ended().await, EndReason::ResumeFailed, "the client waits no longer either");
    let answer = parts.connect(Way::Http1, who, DESK, Some(again)).await;
    assert_eq!(answer.status, StatusCode::GONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_done_is_not_waited_for() {
    let parts = parts("").await;
    let token = parts.doors.token("s", None).await;
    for way in WAYS {
        let (mut client, _connection, mut app) = parts.open(way, Who { token: &token, key: None }).await;
        talk(&mut client, &mut app, "before").await;
        client.end.abort_all();
        drop(client.legs);
        match way {
            // Whoever drops a stream over QUIC says so.
            Way::Http3 => assert!(is_over(&mut app, Duration::from_secs(2)).await),
            // A TCP connection that is gone may be a lost one.
            Way::Http1 | Way::Http2 => assert!(!is_over(&mut app, Duration::from_millis(300)).await),
        }
    }
}

impl Parts {
    /// The status that a field of any content gets.
    async fn connect_saying(&self, way: Way, who: Who<'_>, field: &'static str) -> StatusCode {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, format!("Pomerium {}", who.token).parse().unwrap());
        headers.insert(FIELD, HeaderValue::from_static(field));
        let (response, ..) = match way {
            Way::Http3 => self.over_quic(who.key, DESK, headers).await,
            Way::Http1 | Way::Http2 => self.over_tcp(way, who.key, DESK, headers).await,
        };
        response.status()
    }
}
