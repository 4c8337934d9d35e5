//! Builds the parts, runs them, drains them; the only module that knows all of them.

pub(crate) mod keys;
mod reload;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use pomerium_shared::telemetry;
use tokio_util::sync::CancellationToken;

use self::reload::Reloader;
use crate::{
    authenticate::refresh,
    autocert,
    config::{self, Codec, ConfigErrors, GrpcTls, Loaded, Services, Settings, Storage},
    ext_authz::ExtAuthz,
    fd_store::{FdStore, Inheritance},
    forward_auth::ForwardAuth,
    listen::{
        Lifetime, TlsKeys, Waits, bind, https::Https, inner::Inner, quic::Quic, redirect, staples,
        wireguard::WireGuard,
    },
    proxy::Proxy,
    store::Store,
};

/// For open streams and requests to end by themselves when the gateway stops.
const DRAIN_TIME: Duration = Duration::from_secs(30);

/// For what is then cut to say so.
const CUT_TIME: Duration = Duration::from_secs(5);

/// The exit code of a configuration that cannot be used (`EX_CONFIG`).
pub(crate) const EXIT_CONFIG: u8 = 78;

/// Runs the gateway until a signal ends it. `services` goes before the file's key of that name.
#[must_use]
pub fn main(config_file: PathBuf, services: Option<String>) -> ExitCode {
    let source = Source { file: config_file, services };
    let loaded = match source.load() {
        Ok(loaded) => loaded,
        Err(errors) => {
            report(&errors.to_string());
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    // Before there is another thread.
    let inherited = match Inheritance::take() {
        Ok(inherited) => inherited,
        Err(error) => {
            report(&format!("pomerium-gateway: cannot take over from the process before: {error}"));
            Inheritance::default()
        }
    };
    let result = telemetry::init(telemetry::LogFormat::Json, &loaded.settings.log_level)
        .context("cannot set up the log")
        .and_then(|log| Ok((log, start_runtime()?)))
        .and_then(|(_log, runtime)| runtime.block_on(run(source, loaded, inherited, || {})));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&format!("pomerium-gateway: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Where the configuration comes from, now and at each reload.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) file: PathBuf,
    /// What the command line says of `services`.
    pub(crate) services: Option<String>,
}

impl Source {
    /// Reads the configuration with this process's environment. The command line counts as environment, which goes
    /// before the file.
    pub(crate) fn load(&self) -> Result<Loaded, ConfigErrors> {
        let environment = |name: &str| match &self.services {
            Some(services) if name == "SERVICES" => Some(services.clone()),
            _ => std::env::var(name).ok(),
        };
        config::load(Some(&self.file), &environment, Path::new("."))
    }
}

/// Says why the gateway does not start, before and beside any log.
#[expect(clippy::print_stderr, reason = "the terminal is where a failed start is read")]
pub(crate) fn report(text: &str) {
    eprintln!("{text}");
}

/// The runtime that everything runs on.
pub(crate) fn start_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")
}

/// Runs a loaded configuration until a signal; `ready` is called when it accepts connections.
pub(crate) async fn run(
    source: Source,
    loaded: Loaded,
    inherited: Inheritance,
    ready: impl FnOnce(),
) -> anyhow::Result<()> {
    for warning in &loaded.warnings {
        tracing::warn!(%warning, "configuration");
    }
    let settings = Arc::new(loaded.settings);
    let store = open_store(&settings).await?;
    let lifetime = Lifetime::new(Waits::USUAL);
    // Who is away may come back to the next process.
    let closed = if inherited.store.is_some() { CancellationToken::new() } else { lifetime.drain.clone() };
    let secrets = keys::secrets(&settings, &store).await?;
    let live = keys::live(settings.clone(), &secrets, &store)?;
    let proxy = Arc::new(Proxy::new(
        live,
        store.clone(),
        lifetime.tracker.clone(),
        lifetime.drain.clone(),
        lifetime.cut.clone(),
        closed,
    ));
    proxy.take_over(inherited.parcels);
    let tls_keys = TlsKeys::new(&settings)?;
    if settings.services != Services::Authorize {
        open_doors(&settings, &tls_keys, &proxy, &secrets, &lifetime)?;
        if settings.services.signs_in() {
            let signing_in = proxy.clone();
            lifetime.tracker.spawn(refresh::run(move || signing_in.authenticate(), lifetime.drain.clone()));
        }
        let (configured, keys) = (proxy.clone(), tls_keys.clone());
        let (challenges, show) = (keys.challenges().clone(), move |all: &[_]| keys.show_obtained(all));
        let current = move || configured.settings();
        lifetime.tracker.spawn(autocert::run(
            current,
            store.clone(),
            challenges,
            show,
            lifetime.drain.clone(),
        ));
    }
    lifetime.tracker.spawn(staples::run(tls_keys.clone(), lifetime.drain.clone()));
    // What drains is still cut when somebody is signed out.
    lifetime.doors.spawn(store.clone().follow_outside_changes(lifetime.cut.clone()));
    lifetime.tracker.spawn(store.clone().follow_service_accounts(lifetime.drain.clone()));
    open_inner_doors(&settings, &tls_keys, &proxy, &secrets, &lifetime)?;
    open_wireguard(&settings, &proxy, &secrets, &lifetime)?;
    let reloader = Reloader::new(source, loaded.files, proxy.clone(), tls_keys, store.clone(), secrets);
    tracing::info!(address = %settings.address, routes = settings.routes.len(), "gateway is up");
    ready();

    let mut signals = Signals::new()?;
    tokio::select! {
        () = reloader.run() => {}
        () = signals.stop() => {}
    }
    drain(&lifetime, &proxy, inherited.store, &mut signals).await;
    store.close().await;
    tracing::info!("gateway has stopped");
    Ok(())
}

/// Opens the store of a configuration.
pub(crate) async fn open_store(settings: &Settings) -> anyhow::Result<Store> {
    let folder = match &settings.storage {
        Storage::Memory => return Store::in_memory().await.context("cannot make the in-memory store"),
        Storage::Postgres(url) => {
            let secret =
                settings.shared_secret.as_ref().context("a store in PostgreSQL needs shared_secret")?;
            return Store::open_postgres(url, secret).await.context("cannot open the store in PostgreSQL");
        }
        Storage::Folder(folder) => folder,
    };
    let opened = match settings.services {
        Services::All | Services::AllButAuthorize | Services::Authenticate => Store::open(folder).await,
        Services::Authorize | Services::Proxy => Store::open_beside(folder).await,
    };
    opened.with_context(|| format!("cannot open the store in {}", folder.display()))
}

/// Binds the sockets and starts what listens on them.
fn open_doors(
    settings: &Settings,
    keys: &TlsKeys,
    proxy: &Arc<Proxy>,
    secrets: &keys::Secrets,
    lifetime: &Lifetime,
) -> anyhow::Result<()> {
    let address = settings.address;
    let speaks_quic = settings.codec == Codec::All;
    for listener in bind::tcp(address).with_context(|| format!("cannot listen on TCP {address}"))? {
        let bound = listener.local_addr().context("the TCP listener has no address")?;
        let http3_port = speaks_quic.then_some(bound.port());
        if speaks_quic {
            let socket = pomerium_shared::quic::bind(bound)
                .with_context(|| format!("cannot listen on UDP {bound}"))?;
            let door = Quic::new(socket, keys, proxy.clone(), lifetime.clone(), &secrets.shared())?;
            lifetime.doors.spawn(door.run());
        }
        let https = Https::new(listener, keys, settings.codec, http3_port, proxy.clone(), lifetime.clone())?;
        lifetime.doors.spawn(https.run());
    }
    if let Some(address) = settings.http_redirect_addr {
        let listeners = bind::tcp(address).with_context(|| format!("cannot listen on TCP {address}"))?;
        for listener in listeners {
            lifetime.doors.spawn(redirect::run(
                listener,
                settings.use_proxy_protocol,
                keys.challenges().clone(),
                lifetime.clone(),
            ));
        }
    }
    Ok(())
}

/// Opens the door for WireGuard apps, where it is configured.
fn open_wireguard(
    settings: &Settings,
    proxy: &Arc<Proxy>,
    secrets: &keys::Secrets,
    lifetime: &Lifetime,
) -> anyhow::Result<()> {
    let (Some(configured), Some(key)) = (&settings.wireguard, secrets.wireguard()) else { return Ok(()) };
    let address = configured.address;
    let sockets = bind::udp(address).with_context(|| format!("cannot listen on UDP {address}"))?;
    let door = WireGuard::new(sockets, key, configured.networks, proxy.clone(), lifetime.clone())?;
    lifetime.doors.spawn(door.run());
    tracing::info!(%address, "wireguard is up");
    Ok(())
}

/// Opens the doors for other programs of the operator, as far as they are configured.
fn open_inner_doors(
    settings: &Settings,
    keys: &TlsKeys,
    proxy: &Arc<Proxy>,
    secrets: &keys::Secrets,
    lifetime: &Lifetime,
) -> anyhow::Result<()> {
    if let Some(door) = &settings.grpc {
        let address = door.address;
        for listener in bind::tcp(address).with_context(|| format!("cannot listen on TCP {address}"))? {
            let tls = match &door.tls {
                GrpcTls::None => None,
                GrpcTls::Token => Some(keys.service_config(None)?),
                GrpcTls::Mutual(roots) => Some(keys.service_config(Some(roots))?),
            };
            let service = ExtAuthz::new(proxy.clone(), settings.services, secrets.shared());
            lifetime.doors.spawn(Inner::new(listener, tls, service, lifetime.clone()).run());
        }
        tracing::info!(%address, "authorization over gRPC is up");
    }
    if let Some(door) = &settings.forward_auth {
        let address = door.address;
        for listener in bind::tcp(address).with_context(|| format!("cannot listen on TCP {address}"))? {
            let service = ForwardAuth::new(proxy.clone(), settings.services);
            lifetime.doors.spawn(Inner::new(listener, None, service, lifetime.clone()).run());
        }
        tracing::info!(%address, "forward auth is up");
    }
    Ok(())
}

/// Stops accepting, says goodbye, waits for what is open, then ends the rest. A second signal skips the wait. Streams that can be
/// resumed go on until all else has ended, and then in the next process, where the service manager keeps them.
async fn drain(lifetime: &Lifetime, proxy: &Proxy, store: Option<FdStore>, signals: &mut Signals) {
    let resumable = proxy.resumable_streams();
    tracing::info!(open = lifetime.tracker.len(), "can-be-resumed" = resumable.len(), "draining");
    lifetime.drain.cancel();
    lifetime.tracker.close();
    lifetime.doors.close();
    if store.is_none() {
        resumable.close();
    }
    let open = async {
        lifetime.tracker.wait().await;
        if store.is_none() {
            resumable.wait().await;
        }
    };
    tokio::select! {
        () = open => {}
        () = tokio::time::sleep(DRAIN_TIME) => {}
        () = signals.stop() => {}
    }
    if let Some(store) = store {
        leave(proxy, store).await;
    }
    lifetime.cut.cancel();
    let all = async {
        lifetime.tracker.wait().await;
        resumable.wait().await;
        lifetime.doors.wait().await;
    };
    if tokio::time::timeout(CUT_TIME, all).await.is_err() {
        let open = lifetime.tracker.len() + resumable.len();
        tracing::warn!(open, "some tasks did not end in time");
    }
}

/// Leaves to the next process what can be resumed.
async fn leave(proxy: &Proxy, store: FdStore) {
    let streams = proxy.leave_streams(CUT_TIME).await;
    let count = streams.len();
    match tokio::task::spawn_blocking(move || store.keep(streams)).await {
        Ok(Ok(kept)) if kept == count => {
            tracing::info!(streams = kept, "the service manager keeps the streams")
        }
        Ok(Ok(kept)) => {
            tracing::warn!(streams = kept, of = count, "the service manager has no room for more")
        }
        Ok(Err(error)) => tracing::warn!(%error, "the service manager keeps no streams"),
        Err(error) => tracing::warn!(%error, "the streams were not kept"),
    }
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?,
        })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
