//! A command's end of the local API.

use std::{io, path::PathBuf, time::Duration};

use pomerium_shared::{destination::Destination, relay::Leg};
use tokio::{
    io::BufReader,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use super::{
    frames::{FrameReader, FrameWriter},
    socket,
    wire::{self, REPLY_LEN_MAX, Reply, Request, VERSION, Versioned},
};
use crate::{access::Route, failure::Failure, gateway::Gateway};

/// How long the socket may take to be connected to: a daemon that hangs is as good as none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Where a daemon may be.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    path: PathBuf,
}

/// A connection to the daemon.
#[derive(Debug)]
pub(crate) struct Line {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Caller {
    /// Speaks on the socket of this path.
    pub(crate) const fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The daemon, if one runs and is this person's own.
    pub(crate) async fn line(&self) -> Option<Line> {
        if !socket::is_private(&self.path) {
            return None;
        }
        let stream = timeout(CONNECT_TIMEOUT, UnixStream::connect(&self.path)).await.ok()?.ok()?;
        if !socket::is_own(&stream) {
            tracing::warn!(path = %self.path.display(), "another user's process holds the daemon's socket: it is not used");
            return None;
        }
        let (reader, writer) = stream.into_split();
        Some(Line { reader: BufReader::new(reader), writer })
    }
}

impl Line {
    /// Asks, and tells of a sign-in page that the answer waits for.
    pub(crate) async fn ask(&mut self, request: Request, tell: impl Fn(&str)) -> Result<Reply, Failure> {
        wire::write(&mut self.writer, &Versioned { version: VERSION, request })
            .await
            .map_err(Failure::Daemon)?;
        loop {
            let reply = wire::read(&mut self.reader, REPLY_LEN_MAX).await.map_err(Failure::Daemon)?;
            match reply {
                Some(Reply::SignIn { url }) => tell(&url),
                Some(Reply::Failed { exit, message }) => return Err(Failure::Told { exit, message }),
                Some(reply) => return Ok(reply),
                None => return Err(Failure::Daemon(io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }

    /// Asks for a stream to an app, and becomes it.
    pub(crate) async fn open(
        mut self,
        gateway: &Gateway,
        to: &Destination,
        patient: bool,
        tell: impl Fn(&str),
    ) -> Result<Leg, Failure> {
        let (gateway, destination) = (gateway.to_string(), to.to_string());
        match self.ask(Request::Open { gateway, destination, patient }, tell).await? {
            Reply::Open => Ok(Leg::io(FrameReader::new(self.reader), FrameWriter::new(self.writer))),
            _ => Err(Failure::BadAnswer { what: "a connection" }),
        }
    }

    /// Follows a gateway's list of routes, until the daemon is gone or does not know how.
    pub(crate) async fn follow(mut self, gateway: &Gateway, heard: impl Fn(Vec<Route>)) {
        let request = Request::Follow { gateway: gateway.to_string() };
        let asked = wire::write(&mut self.writer, &Versioned { version: VERSION, request }).await;
        if asked.is_err() {
            return;
        }
        while let Ok(Some(Reply::Routes { routes })) = wire::read(&mut self.reader, REPLY_LEN_MAX).await {
            heard(routes);
        }
    }

    /// Waits until the daemon is gone.
    pub(crate) async fn gone(mut self) {
        let _whatever = wire::read::<Reply>(&mut self.reader, REPLY_LEN_MAX).await;
    }
}
