//! The listeners of the file of forwards: opened once, and there until the file says otherwise.

use std::{mem, path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::Mutex, task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    gateways::{Account, Gateways, Served},
    listeners::changes,
};
use crate::{
    cache::read_private,
    failure::Failure,
    forward::{
        Forward, Stop,
        proxy::Proxy,
        saved::{self, FILE_LEN_MAX, Leads, Saved},
        udp::UdpForward,
    },
};

/// What runs of the file.
#[derive(Debug)]
pub(super) struct Forwards {
    file: Option<PathBuf>,
    running: Mutex<Vec<Running>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Running {
    saved: Saved,
    served: Arc<Served>,
    accepting: CancellationToken,
    listener: JoinHandle<()>,
}

/// What the file says; nothing if it is not there.
pub(crate) fn read(file: &std::path::Path) -> Result<Vec<Saved>, Failure> {
    let text = read_private(file, FILE_LEN_MAX)?.unwrap_or_default();
    saved::parse(&text).map_err(|source| Failure::Forwards { path: file.to_owned(), source })
}

impl Forwards {
    pub(super) fn of(file: Option<PathBuf>, stop: CancellationToken) -> Self {
        Self { file, running: Mutex::default(), tasks: TaskTracker::new(), stop }
    }

    /// Makes what runs be what the file says, and leaves alone what is the same; says how many forwards there are. A file that
    /// cannot be read changes nothing.
    pub(super) async fn reload(&self, gateways: &Gateways) -> Result<usize, Failure> {
        let mut running = self.running.lock().await;
        let Some(file) = &self.file else { return Ok(0) };
        let wanted = read(file)?;
        let changes = changes(running.iter().map(|forward| &forward.saved), &wanted);
        let (closed, stay) = mem::take(&mut *running)
            .into_iter()
            .partition::<Vec<_>, _>(|forward| changes.close.contains(&forward.saved));
        *running = stay;
        for forward in closed {
            // Streams that are open go on to their end, flows of datagrams end now; the address is free when the listener has gone.
            forward.accepting.cancel();
            forward.served.ledger.no_forward(&forward.saved.leads.account());
            if let Err(panicked) = forward.listener.await {
                tracing::error!(error = %panicked, "a forward ended by our own fault");
            }
        }
        for saved in changes.open {
            match self.open(gateways, &saved).await {
                Ok(forward) => {
                    let route = saved.leads.account();
                    tracing::info!(name = %saved.name, listen = %saved.listen, %route, "a forward is open");
                    running.push(forward);
                }
                Err(failure) => {
                    tracing::warn!(name = %saved.name, error = %crate::exit::chain(&failure), "a forward could not be opened");
                }
            }
        }
        Ok(running.len())
    }

    async fn open(&self, gateways: &Gateways, saved: &Saved) -> Result<Running, Failure> {
        let served = gateways.at(&saved.gateway.to_string())?;
        let route = saved.leads.account();
        let accepting = self.stop.child_token();
        let stop = Stop { accepting: accepting.clone(), streams: self.stop.clone() };
        let listener = self.listen(&served, saved, stop).await.inspect_err(|failure| {
            served.ledger.forward(&route, &saved.name, Err(crate::exit::message(failure)));
        })?;
        served.ledger.forward(&route, &saved.name, Ok(saved.listen.to_string()));
        Ok(Running { saved: saved.clone(), served, accepting, listener })
    }

    async fn listen(&self, served: &Served, saved: &Saved, stop: Stop) -> Result<JoinHandle<()>, Failure> {
        let account = Account { ledger: Arc::clone(&served.ledger), destination: saved.leads.account() };
        let (reach, account, streams) = (Arc::clone(&served.reach), Arc::new(account), self.tasks.clone());
        Ok(match &saved.leads {
            Leads::Tcp { route, protocol } => {
                let forward = Forward::bind(saved.listen, route.clone()).await?.speaking(*protocol);
                self.tasks.spawn(forward.run(reach, account, streams, stop))
            }
            Leads::Udp { route } => {
                let forward = UdpForward::bind(saved.listen, route.clone()).await?;
                self.tasks.spawn(forward.run(Arc::clone(reach.own()), account, stop.accepting))
            }
            Leads::Proxy => {
                self.tasks.spawn(Proxy::bind(saved.listen).await?.run(reach, account, streams, stop))
            }
        })
    }

    /// Waits until all has ended, up to a limit.
    pub(super) async fn close(&self, patience: Duration) {
        self.stop.cancel();
        self.tasks.close();
        let _late_is_cut = timeout(patience, self.tasks.wait()).await;
    }
}
