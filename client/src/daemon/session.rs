//! One local caller: its requests in order, until it asks for a stream and becomes that, or leaves.

use std::{io, pin::pin, sync::Arc, time::Duration};

use pomerium_shared::{
    destination::Destination,
    relay::{self, Leg, RelayOptions},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::timeout,
};

#[cfg(target_os = "linux")]
use super::tun::{Listed, Tun};
use super::{
    Daemon,
    gateways::{Account, Served},
};
use crate::{
    exit,
    failure::Failure,
    forward::{PATIENCE, Seen as _, shutdown},
    local_api::{
        frames::{FrameReader, FrameWriter},
        wire::{self, DaemonStatus, REQUEST_LEN_MAX, Reply, Request, TunStatus, VERSION, Versioned},
    },
};

/// How long a program may take to hear why its stream was cut.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

/// The caller's connection.
#[derive(Debug)]
struct Caller {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

/// Serves a caller to its end.
pub(super) async fn run(daemon: &Daemon, stream: UnixStream) -> io::Result<()> {
    let (reader, writer) = stream.into_split();
    let mut caller = Caller { reader: BufReader::new(reader), writer };
    loop {
        let asked: Versioned = match wire::read(&mut caller.reader, REQUEST_LEN_MAX).await {
            Ok(Some(asked)) => asked,
            Ok(None) => return Ok(()),
            Err(error) => {
                let message = format!(
                    "pomerium-cli: {error}\n  Write one JSON object a line, as docs/local-api.md says."
                );
                return caller.say(&Reply::Failed { exit: 64, message }).await;
            }
        };
        if asked.version != VERSION {
            let message = format!(
                "pomerium-cli: the daemon speaks version {VERSION} of its API, not {}\n  Restart the daemon, so that it is \
                 of the same version as the command.",
                asked.version
            );
            return caller.say(&Reply::Failed { exit: 64, message }).await;
        }
        match asked.request {
            Request::Open { gateway, destination, patient } => {
                match opened(daemon, &mut caller, &gateway, &destination, patient).await? {
                    Ok((app, account)) => return carry(daemon, caller, app, account).await,
                    Err(failure) => caller.say(&failed(&failure)).await?,
                }
            }
            Request::Follow { gateway } => return follow(daemon, caller, &gateway).await,
            other => {
                let reply =
                    answer(daemon, &mut caller, other).await?.unwrap_or_else(|failure| failed(&failure));
                caller.say(&reply).await?;
            }
        }
    }
}

fn failed(failure: &Failure) -> Reply {
    Reply::Failed { exit: exit::verdict(failure).0 as u8, message: exit::message(failure) }
}

impl Caller {
    async fn say(&mut self, reply: &Reply) -> io::Result<()> {
        wire::write(&mut self.writer, reply).await
    }

    /// Works for a caller that stays, and tells it of a sign-in page meanwhile.
    async fn wait<T>(
        &mut self,
        mut page: watch::Receiver<Option<String>>,
        work: impl Future<Output = T>,
    ) -> io::Result<T> {
        let mut work = pin!(work);
        // A page that waits already is news to this caller.
        page.mark_changed();
        let mut is_silent = true;
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                Ok(()) = page.changed() => {
                    let url = page.borrow_and_update().clone();
                    if let Some(url) = url {
                        wire::write(&mut self.writer, &Reply::SignIn { url }).await?;
                    }
                }
                more = self.reader.fill_buf(), if is_silent => {
                    if more?.is_empty() {
                        return Err(io::ErrorKind::ConnectionAborted.into());
                    }
                    is_silent = false;
                }
            }
        }
    }
}

async fn answer(
    daemon: &Daemon,
    caller: &mut Caller,
    request: Request,
) -> io::Result<Result<Reply, Failure>> {
    let gateway = match &request {
        Request::Status => {
            let gateways = daemon.gateways.status().await;
            let program = env!("CARGO_PKG_VERSION").to_owned();
            let (pid, tun) = (std::process::id(), daemon.tun_status());
            return Ok(Ok(Reply::Status(DaemonStatus { program, pid, tun, gateways })));
        }
        Request::Reload => {
            let done = daemon.forwards.reload(&daemon.gateways).await;
            return Ok(done.map(|forwards| Reply::Reloaded { forwards }));
        }
        Request::TunOff => return Ok(daemon.tun_off().await.map(Reply::Tun)),
        Request::Routes { gateway } | Request::Login { gateway } | Request::Logout { gateway } => gateway,
        Request::TunOn { gateway, .. } => gateway,
        Request::Open { gateway, .. } | Request::Follow { gateway } => gateway,
    };
    let served = match daemon.gateways.at(gateway) {
        Ok(served) => served,
        Err(failure) => return Ok(Err(failure)),
    };
    let page = served.access().page();
    caller.wait(page, ask(daemon, &served, &request)).await
}

/// Tells a caller of the list of routes as it changes, until it leaves or says anything. Only the newest list is told: a
/// caller that does not read makes nobody keep more.
async fn follow(daemon: &Daemon, mut caller: Caller, gateway: &str) -> io::Result<()> {
    let served = match daemon.gateways.at(gateway) {
        Ok(served) => served,
        Err(failure) => return caller.say(&failed(&failure)).await,
    };
    let mut news = served.access().news();
    news.mark_changed();
    let mut told = None;
    loop {
        tokio::select! {
            Ok(()) = news.changed() => {
                let routes = news.borrow_and_update().clone();
                if told != routes && let Some(list) = &routes {
                    caller.say(&Reply::Routes { routes: list.to_vec() }).await?;
                    told = routes;
                }
            }
            _left = caller.reader.fill_buf() => return Ok(()),
        }
    }
}

async fn ask(daemon: &Daemon, served: &Arc<Served>, request: &Request) -> Result<Reply, Failure> {
    let access = served.access();
    match request {
        Request::Routes { .. } => Ok(Reply::Routes { routes: access.routes().await? }),
        Request::Login { .. } => {
            let token = access.signed_in_for_long().await?;
            Ok(Reply::SignedIn { person: token.person() })
        }
        Request::Logout { .. } => {
            let signed_out = access.sign_out().await?;
            let untold = signed_out.untold.map(|why| exit::chain(&why));
            Ok(Reply::SignedOut { had_one: signed_out.had_one, untold })
        }
        Request::TunOn { routes, dns, .. } => Ok(Reply::Tun(daemon.tun_on(served, routes, *dns).await?)),
        Request::Status
        | Request::Reload
        | Request::TunOff
        | Request::Open { .. }
        | Request::Follow { .. } => Err(Failure::BadAnswer { what: "a request" }),
    }
}

#[cfg(target_os = "linux")]
impl Daemon {
    fn tun_status(&self) -> Option<TunStatus> {
        self.tun.as_ref().map(Tun::status)
    }

    async fn tun_on(&self, served: &Arc<Served>, routes: &[String], dns: bool) -> Result<TunStatus, Failure> {
        let tun = self.tun.as_ref().ok_or(Failure::NoTunDaemon)?;
        let told = served.access().news();
        let listed = Listed { routes: served.access().routes().await?, told };
        tun.on(served, listed, routes, dns).await
    }

    async fn tun_off(&self) -> Result<TunStatus, Failure> {
        Ok(self.tun.as_ref().ok_or(Failure::NoTunDaemon)?.off().await)
    }
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::unused_async, clippy::unused_self, reason = "as on Linux")]
impl Daemon {
    fn tun_status(&self) -> Option<TunStatus> {
        None
    }

    async fn tun_on(&self, _: &Arc<Served>, _: &[String], _: bool) -> Result<TunStatus, Failure> {
        Err(Failure::NoTunDaemon)
    }

    async fn tun_off(&self) -> Result<TunStatus, Failure> {
        Err(Failure::NoTunDaemon)
    }
}

async fn opened(
    daemon: &Daemon,
    caller: &mut Caller,
    gateway: &str,
    destination: &str,
    is_patient: bool,
) -> io::Result<Result<(Leg, Account), Failure>> {
    let known = || -> Result<(Arc<Served>, Destination), Failure> {
        let to = destination.parse::<Destination>().map_err(crate::target::TargetError::from)?;
        Ok((daemon.gateways.at(gateway)?, to))
    };
    let (served, to) = match known() {
        Ok(known) => known,
        Err(failure) => return Ok(Err(failure)),
    };
    let account = Account::begun(Arc::clone(&served.ledger), to.to_string());
    let patience = if is_patient { PATIENCE } else { Duration::ZERO };
    let page = served.access().page();
    let asked = caller.wait(page, served.reach.own().connect_patiently(&to, patience)).await;
    let asked = asked.inspect_err(|_| account.ended(0, 0, "the program left before the app answered"))?;
    Ok(match asked {
        Ok(app) => Ok((app, account)),
        Err(failure) => {
            account.ended(0, 0, &exit::message(&failure));
            Err(failure)
        }
    })
}

async fn carry(daemon: &Daemon, mut caller: Caller, app: Leg, account: Account) -> io::Result<()> {
    let said = caller.say(&Reply::Open).await;
    said.inspect_err(|_| account.ended(0, 0, "the program left before the app answered"))?;
    let (writer, back) = FrameWriter::returning(caller.writer);
    let local = Leg::io(FrameReader::new(caller.reader), writer);
    let (options, counters) = (RelayOptions::default(), account.counters());
    let end = relay::run_counted(local, app, options, shutdown(&daemon.stop), &counters).await;
    if let Ok(unended) = back.await {
        // A program that does not read, or is gone, hears nothing.
        let _unheard = timeout(CUT_TIMEOUT, unended.cut(end.reason)).await;
    }
    account.ended(end.bytes_from_client, end.bytes_from_app, &format!("stream ended: {}", end.reason));
    Ok(())
}
