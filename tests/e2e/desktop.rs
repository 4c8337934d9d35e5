//! What the client has of a desktop: its keyring, and its notifications.

use std::{path::Path, process::Stdio};

use support::{
    cli::Cli,
    desktop::Desktop,
    echo::Echo,
    gateway::{Gateway, Options, Route},
    process::{Input, Process},
    wait,
};
use tokio::process::Command;

const DESTINATION: &str = "echo.corp.test:7";

/// Every file below a folder, as text.
fn files(folder: &Path) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            let text = std::fs::read(&path).unwrap();
            all.push((path.display().to_string(), String::from_utf8_lossy(&text).into_owned()));
        }
    }
    all
}

/// Standard output of a command on a desktop.
async fn said(cli: &Cli, desktop: &Desktop, words: &[&str]) -> String {
    let mut command = cli.command(words).unwrap();
    command.env("DBUS_SESSION_BUS_ADDRESS", &desktop.address).stdin(Stdio::null());
    let output = command.output().await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words:?}: {errors} {}", cli.trouble());
    String::from_utf8(output.stdout).unwrap()
}

/// One stream, through a command of its own.
async fn stream(cli: &Cli, desktop: &Desktop) {
    said(cli, desktop, &["tcp", DESTINATION, "--listen", "-", "--no-daemon"]).await;
}

async fn status(cli: &Cli, desktop: &Desktop) -> serde_json::Value {
    let mut command = cli.plain(&["status", "--json"]).unwrap();
    let output = command.env("DBUS_SESSION_BUS_ADDRESS", &desktop.address).output().await.unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_disk_has_neither_session_nor_device_key() {
    let echo = Echo::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let mut desktop = Desktop::start().await.unwrap();

    // Before there is a keyring: plain files, and that is said.
    stream(&cli, &desktop).await;
    let told = status(&cli, &desktop).await;
    assert!(told["kept"].as_str().unwrap().contains("in files that only you can read"), "{told}");
    let device = told["device"].clone();
    let is_plain = |text: &str| text.contains("PRIVATE KEY") || text.contains("eyJ");
    let home = cli.cache().parent().unwrap().to_owned();
    assert_eq!(files(&home.join("data")).iter().filter(|(_, text)| is_plain(text)).count(), 1);

    desktop.unlock_keyring().await.unwrap();
    stream(&cli, &desktop).await;
    assert_eq!(cli.sign_ins(), 1, "the session of before is still good");
    assert_eq!(
        files(&home.join("data")).iter().filter(|(_, text)| is_plain(text)).count(),
        0,
        "sealed as it was used"
    );
    assert_eq!(status(&cli, &desktop).await["device"], device);

    // A machine that has had a keyring all along.
    let cli = Cli::new(&gateway, "alice").unwrap();
    let home = cli.cache().parent().unwrap().to_owned();
    stream(&cli, &desktop).await;
    let told = status(&cli, &desktop).await;
    assert_eq!(
        (&told["kept"], &told["signed_in"]),
        (&"sealed, with the key in the keyring".into(), &true.into())
    );
    assert_eq!(told["bound_to_device"], true, "{told}");
    let lying = [files(&cli.cache()), files(&home.join("data"))].concat();
    assert_eq!(
        lying.iter().filter(|(_, text)| text.starts_with("pomerium-cli sealed 1 ")).count(),
        2,
        "{lying:?}"
    );
    assert!(!lying.iter().any(|(_, text)| is_plain(text)), "{lying:?}");

    // The same disk on another machine, and on this one while nobody has unlocked the keyring.
    desktop.lock_keyring().await.unwrap();
    let told = status(&cli, &desktop).await;
    assert_eq!(told["signed_in"], false, "{told}");
    assert!(told["kept"].as_str().unwrap().contains("locked"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_desktop_is_told_ahead_that_the_session_ends() {
    let echo = Echo::start().await.unwrap();
    // Shorter than the ten minutes within which people are told.
    let options = Options { more: "cookie_expire: 5m\n", ..Options::default() };
    let gateway = Gateway::start_with(&[Route::tcp(DESTINATION, echo.address)], &options).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let desktop = Desktop::start().await.unwrap();
    let mut monitor = Command::new("dbus-monitor");
    monitor.args(["--session", "interface='org.freedesktop.Notifications'"]);
    monitor.env("DBUS_SESSION_BUS_ADDRESS", &desktop.address).env("DBUS_FATAL_WARNINGS", "0");
    let monitor = Process::spawn("dbus-monitor", &mut monitor, Input::None).unwrap();
    monitor.output.line_with("NameAcquired").await.unwrap();

    said(&cli, &desktop, &["tcp", DESTINATION, "--listen", "-", "--no-daemon"]).await;
    let daemon = cli.daemon_on(&desktop).unwrap();
    daemon.errors.line_with("the daemon answers").await.unwrap();
    let mut routes = cli.plain(&["routes"]).unwrap();
    assert!(routes.status().await.unwrap().success());
    monitor.output.line_with("session about to end").await.unwrap();
    assert_eq!(cli.sign_ins(), 1, "a notification, and no window");
}

/// Where the panel puts the first icon.
const ICON: (u32, u32) = (675, 14);
/// The icon's colours: somebody is signed in and all is well, and nobody is.
const GREEN: &str = "#2F9D66";
const GREY: &str = "#8A8F98";

/// What the menu of the icon says, as the panel reads it.
async fn menu(desktop: &Desktop, item: &str) -> anyhow::Result<String> {
    let layout =
        ["/MenuBar", "com.canonical.dbusmenu.GetLayout", "int32:0", "int32:-1", "array:string:label"];
    desktop.call(item, &layout).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_panel_shows_who_is_signed_in_and_its_menu_signs_out() {
    let echo = Echo::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let desktop = Desktop::with_panel().await.unwrap();
    let daemon = cli.daemon().unwrap();
    daemon.errors.line_with("the daemon answers").await.unwrap();
    let mut tray = cli.plain(&["tray"]).unwrap();
    tray.env("DBUS_SESSION_BUS_ADDRESS", &desktop.address);
    let mut tray = Process::spawn("pomerium-cli tray", &mut tray, Input::None).unwrap();

    // The panel has taken the icon in.
    let item = wait::until("the icon in the panel", async || {
        let words = [
            "/StatusNotifierWatcher",
            "org.freedesktop.DBus.Properties.Get",
            "string:org.kde.StatusNotifierWatcher",
            "string:RegisteredStatusNotifierItems",
        ];
        let all = desktop.call("org.kde.StatusNotifierWatcher", &words).await.ok()?;
        all.split('"')
            .find_map(|word| word.split_once("/StatusNotifierItem").map(|(name, _)| name.to_owned()))
    });
    let item = item.await.unwrap();
    wait::until("a grey icon", async || desktop.shows(GREY).await.unwrap().then_some(())).await.unwrap();
    assert!(menu(&desktop, &item).await.unwrap().contains("No gateway is in use"));

    assert!(cli.plain(&["routes"]).unwrap().status().await.unwrap().success());
    wait::until("a green icon", async || desktop.shows(GREEN).await.unwrap().then_some(())).await.unwrap();
    let said = wait::until("the routes in the menu", async || {
        menu(&desktop, &item).await.ok().filter(|said| said.contains(DESTINATION))
    });
    let said = said.await.unwrap();
    for part in ["alice, until", "QUIC", "Sign out", "Show the log"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    if let Some(folder) = std::env::var_os("SCREENSHOTS") {
        let file = Path::new(&folder).join("tray.png");
        desktop.picture(&file).await.unwrap();
        let closed = std::fs::read(&file).unwrap();
        desktop.click(ICON.0, ICON.1).await.unwrap();
        let opened = wait::until("an open menu", async || {
            desktop.picture(&file).await.unwrap();
            (std::fs::read(&file).unwrap() != closed).then_some(())
        });
        opened.await.unwrap();
    }

    let signed_out = wait::until("the sign-in in the menu", async || {
        click(&desktop, &item, "Sign out").await;
        menu(&desktop, &item).await.ok().filter(|said| said.contains("\"Sign in\""))
    });
    let said = signed_out.await.unwrap();
    assert!(said.contains("Not signed in") && !said.contains("alice"), "{said}");
    wait::until("a grey icon", async || desktop.shows(GREY).await.unwrap().then_some(())).await.unwrap();
    assert_eq!(cli.sign_ins(), 1, "nobody is asked to sign in");

    click(&desktop, &item, "Quit this icon").await;
    assert!(tray.wait().await.unwrap().success());
}

/// Clicks on an entry of the menu, as the panel does; numbers change with what the menu says, and are read just before.
async fn click(desktop: &Desktop, item: &str, label: &str) {
    let said = menu(desktop, item).await.unwrap_or_default();
    let Some(number) = entry(&said, label).map(|number| format!("int32:{number}")) else { return };
    let event = [
        "/MenuBar",
        "com.canonical.dbusmenu.Event",
        &number,
        "string:clicked",
        "variant:string:",
        "uint32:0",
    ];
    // A menu that has changed in between has no such number: whoever waits for what the click does clicks again.
    let _answer = desktop.call(item, &event).await;
}

/// The number of the entry with this label, in a layout as `dbus-send` prints it.
fn entry(layout: &str, label: &str) -> Option<u32> {
    let (before, _) = layout.split_once(&format!("\"{label}\""))?;
    before.rsplit("int32 ").next()?.split_whitespace().next()?.parse().ok()
}
