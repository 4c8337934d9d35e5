//! The secrets of an installation, and a configuration brought to life with them.

use std::sync::Arc;

use anyhow::Context as _;

use crate::{
    authenticate::{Authenticate, Provider},
    config::Settings,
    proxy::Live,
    store::Store,
};

/// The secrets that outlive a reload.
#[derive(Clone)]
pub(crate) struct Secrets {
    shared: [u8; 32],
    cookie: [u8; 32],
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

/// The configured secrets, or those that the store made once and keeps.
pub(crate) async fn secrets(settings: &Settings, store: &Store) -> anyhow::Result<Secrets> {
    let shared = match &settings.shared_secret {
        Some(secret) => *secret.expose(),
        None => store.secret("shared_secret").await.context("cannot make the shared secret")?,
    };
    let cookie = match &settings.cookie_secret {
        Some(secret) => *secret.expose(),
        None => store.secret("cookie_secret").await.context("cannot make the cookie secret")?,
    };
    Ok(Secrets { shared, cookie })
}

/// Builds the services of a configuration.
pub(crate) fn live(settings: Arc<Settings>, secrets: &Secrets, store: &Store) -> anyhow::Result<Live> {
    let provider = Arc::new(Provider::new(settings.identity_provider.clone(), &[])?);
    let authenticate =
        Arc::new(Authenticate::new(settings.clone(), secrets.shared, secrets.cookie, provider, store.clone()));
    Live::new(settings, &secrets.shared, authenticate).context("the configuration cannot be put to work")
}
