//! The listeners of the file of forwards: opened once, and there until the file says otherwise.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::gateways::{Account, Gateways, Served};
use crate::{
    cache::read_private,
    failure::Failure,
    forward::{
        Forward, Stop,
        saved::{self, FILE_LEN_MAX, Saved},
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
        running.retain(|forward| {
            let stays = wanted.contains(&forward.saved);
            if !stays {
                // Streams that are open go on to their end.
                forward.accepting.cancel();
                forward.served.ledger.no_forward(&forward.saved.route.to_string());
            }
            stays
        });
        for saved in wanted {
            if running.iter().any(|forward| forward.saved == saved) {
                continue;
            }
            let served = gateways.at(&saved.gateway.to_string())?;
            let route = saved.route.to_string();
            match self.open(&saved, &served).await {
                Ok(accepting) => {
                    tracing::info!(name = %saved.name, listen = %saved.listen, %route, "a forward is open");
                    served.ledger.forward(&route, &saved.name, Ok(saved.listen.to_string()));
                    running.push(Running { saved, served, accepting });
                }
                Err(failure) => {
                    tracing::warn!(name = %saved.name, error = %crate::exit::chain(&failure), "a forward could not be opened");
                    served.ledger.forward(&route, &saved.name, Err(crate::exit::message(&failure)));
                }
            }
        }
        Ok(running.len())
    }

    async fn open(&self, saved: &Saved, served: &Served) -> Result<CancellationToken, Failure> {
        let forward = Forward::bind(saved.listen, saved.route.clone()).await?.speaking(saved.protocol);
        let accepting = self.stop.child_token();
        let stop = Stop { accepting: accepting.clone(), streams: self.stop.clone() };
        let account = Account { ledger: Arc::clone(&served.ledger), destination: saved.route.to_string() };
        let reach = Arc::clone(&served.reach);
        self.tasks.spawn(forward.run(reach, Arc::new(account), self.tasks.clone(), stop));
        Ok(accepting)
    }

    /// Waits until all has ended, up to a limit.
    pub(super) async fn close(&self, patience: Duration) {
        self.stop.cancel();
        self.tasks.close();
        let _late_is_cut = timeout(patience, self.tasks.wait()).await;
    }
}
