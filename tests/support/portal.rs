//! A captive portal: it stands where the gateway would be found, answers web pages with its own, shows a certificate that is none of
//! the gateway's, and lets through once it is told to.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::{authority::Authority, liar::server_config};

/// A running portal, gone when it is dropped.
#[derive(Debug)]
pub struct Portal {
    /// What it answers on port 80; `None`: it lets through.
    page: watch::Sender<Option<String>>,
    heard: Heard,
    _tasks: JoinSet<()>,
}

type Heard = Arc<Mutex<Vec<String>>>;

impl Portal {
    /// Holds an address: port 80, and this port in front of the gateway, with a certificate of an authority that is not the
    /// gateway's. `page` is its answer to whoever wants a web page, as octets of HTTP/1.1.
    ///
    /// # Errors
    /// A port is taken, or there is no certificate.
    pub async fn hold(
        at: Ipv4Addr,
        gateway: SocketAddr,
        authority: &Authority,
        page: &str,
    ) -> anyhow::Result<Self> {
        let tls = TlsAcceptor::from(Arc::new(server_config(authority, b"http/1.1")?));
        let (web, door) =
            (TcpListener::bind((at, 80)).await?, TcpListener::bind((at, gateway.port())).await?);
        let (page, heard) = (watch::Sender::new(Some(page.to_owned())), Heard::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(pages(web, page.subscribe(), Arc::clone(&heard)));
        tasks.spawn(guard(door, gateway, tls, page.subscribe()));
        Ok(Self { page, heard, _tasks: tasks })
    }

    /// Answers otherwise from now on.
    pub fn answers(&self, page: &str) {
        self.page.send_replace(Some(page.to_owned()));
    }

    /// Lets everything through from now on.
    pub fn lets_through(&self) {
        self.page.send_replace(None);
    }

    /// All requests for web pages until now.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn pages(listener: TcpListener, page: watch::Receiver<Option<String>>, heard: Heard) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut request = vec![0; 16 * 1024];
        let len = stream.read(&mut request).await.unwrap_or(0);
        let text = String::from_utf8_lossy(&request[..len]).into_owned();
        heard.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        let page = page.borrow().clone();
        if let Some(page) = page {
            // Whoever has gone wants no page.
            let _gone = stream.write_all(page.as_bytes()).await;
            let _gone = stream.shutdown().await;
        }
    }
}

async fn guard(
    listener: TcpListener,
    gateway: SocketAddr,
    tls: TlsAcceptor,
    page: watch::Receiver<Option<String>>,
) {
    let mut streams = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        let (is_held, tls) = (page.borrow().is_some(), tls.clone());
        streams.spawn(async move {
            if is_held {
                // Nobody believes the certificate.
                let _refused = tls.accept(stream).await;
            } else if let Ok(mut gateway) = TcpStream::connect(gateway).await {
                let _ended = copy_bidirectional(&mut stream, &mut gateway).await;
            }
        });
    }
}
