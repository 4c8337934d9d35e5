//! What 10,000 idle WebSockets (or as many as the system allows) hold of each proxy's memory.

use std::sync::Arc;

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rustls::ClientConfig;
use support::{app::App, http::raw};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::fronts::{Front, gateway, peer_haproxy, peer_nginx, used};

/// How many are open at once, where the system allows a process as many files: two for each, and some beside.
const COUNT: usize = 10_000;
const FILES_BESIDE: usize = 400;

/// Handshakes under way at a time.
const AT_ONCE: usize = 64;

/// A text message of a client, masked with zeros, and its echo (RFC 6455, 5.2).
const MESSAGE: &[u8] = b"\x81\x85\0\0\0\0hello";
const ECHO: &[u8] = b"\x81\x05hello";

/// Opens them through one proxy after the other, each with a message and its echo.
#[expect(clippy::print_stdout, reason = "the table is what it is for")]
pub(crate) async fn measure() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let app = App::start().await?;
    let app_port = app.address.port();
    let (gateway, cookie, first) = gateway(app_port, "/").await?;
    let tls = gateway.authority.client_config(&[b"http/1.1"])?;
    let fronts = [
        first,
        peer_nginx(folder.path(), &gateway, app_port).await?,
        peer_haproxy(folder.path(), &gateway, app_port).await?,
    ];
    let count = COUNT.min(files_allowed()?.saturating_sub(FILES_BESIDE) / 2);
    println!("| proxy | memory before, MiB | with {count} open, MiB | KiB each |");
    println!("| --- | ---: | ---: | ---: |");
    for mut front in fronts {
        // What the first connections make it set up once is no cost of the others.
        drop(sockets(&front, &tls, &cookie, AT_ONCE).await?);
        let before = resident(&front)?;
        let open = sockets(&front, &tls, &cookie, count).await?;
        let with = resident(&front)?;
        let each = (with - before) / count as f64;
        println!("| {} | {:.0} | {:.0} | {each:.1} |", front.name, before / 1024.0, with / 1024.0);
        drop(open);
        front.process.kill().await?;
    }
    Ok(())
}

fn files_allowed() -> anyhow::Result<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = files.and_then(|files| files.split_whitespace().next()).context("no limit of open files")?;
    soft.parse().context("the limit of open files is no number")
}

fn resident(front: &Front) -> anyhow::Result<f64> {
    Ok(used(front.process.id().context("the proxy has ended")?)?.memory_kib)
}

async fn sockets(
    front: &Front,
    tls: &Arc<ClientConfig>,
    cookie: &str,
    count: usize,
) -> anyhow::Result<Vec<TlsStream<TcpStream>>> {
    let opening = stream::iter(0..count).map(|_| socket(front, tls, cookie)).buffer_unordered(AT_ONCE);
    opening.try_collect().await
}

async fn socket(
    front: &Front,
    tls: &Arc<ClientConfig>,
    cookie: &str,
) -> anyhow::Result<TlsStream<TcpStream>> {
    let request = format!(
        "GET /socket HTTP/1.1\r\nHost: app.localhost:{}\r\nCookie: _pomerium={cookie}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        front.port
    );
    let (head, mut stream) = raw(tls, front.port, "app.localhost", &request).await?;
    anyhow::ensure!(head.starts_with("HTTP/1.1 101"), "{}: {head}", front.name);
    stream.write_all(MESSAGE).await?;
    stream.flush().await?;
    let mut echo = [0; ECHO.len()];
    stream.read_exact(&mut echo).await?;
    anyhow::ensure!(echo == ECHO, "{}: {echo:x?}", front.name);
    Ok(stream)
}
