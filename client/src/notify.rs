//! Tells a person something on their desktop (org.freedesktop.Notifications). Without a desktop nothing happens: whoever calls has
//! other ways to tell, too.

use std::{collections::HashMap, time::Duration};

use tokio::time::timeout;
use zbus::{Connection, Proxy, zvariant::Value};

/// How long the desktop may take.
const LIMIT: Duration = Duration::from_secs(2);

/// Shows a notification; says whether somebody took it.
pub(crate) async fn notify(title: &str, text: &str) -> bool {
    match timeout(LIMIT, show(title, text)).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => {
            tracing::debug!(%error, "the desktop shows no notification");
            false
        }
        Err(_) => false,
    }
}

async fn show(title: &str, text: &str) -> zbus::Result<u32> {
    const NAME: &str = "org.freedesktop.Notifications";
    let bus = Connection::session().await?;
    let desktop = Proxy::new(&bus, NAME, "/org/freedesktop/Notifications", NAME).await?;
    let hints: HashMap<&str, Value<'_>> = HashMap::from([("desktop-entry", Value::from("pomerium-cli"))]);
    // Some desktops read markup in the text.
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let (actions, default_expiry): (&[&str], i32) = (&[], -1);
    desktop
        .call(
            "Notify",
            &("pomerium-cli", 0_u32, "dialog-password", title, text, actions, hints, default_expiry),
        )
        .await
}
