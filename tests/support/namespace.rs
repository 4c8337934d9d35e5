//! A network namespace for one story: the story runs again, as a process inside it, where loopback, devices, routes and
//! `/etc/resolv.conf` are its own.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::process::Command;

use crate::process::{Input, Process, run};

/// Names the namespace to the process inside it.
const INSIDE: &str = "POMERIUM_TESTS_NAMESPACE";

/// Where `ip netns exec` looks for files that the namespace has instead of the machine's.
const FILES: &str = "/etc/netns";

/// The machine's own name has both addresses, whatever the machine around it thinks.
const HOSTS: &str = "127.0.0.1 localhost authenticate.localhost\n::1 localhost\n";

/// Tells the namespaces of one process apart.
static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// Runs the story `name` (as the test harness calls it) inside a namespace of its own, whose `/etc/resolv.conf` begins as `resolv_conf`.
/// `true`: this process is inside, and tells the story. `false`: it was told, and all is well.
///
/// # Errors
/// There is no namespace to be had, or the story inside failed.
pub async fn inside(name: &str, resolv_conf: &str) -> anyhow::Result<bool> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(true);
    }
    let namespace = Namespace::new(resolv_conf).await?;
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &namespace.name]).arg(std::env::current_exe()?);
    command.args(["--exact", name, "--nocapture"]).env(INSIDE, &namespace.name);
    let mut story = Process::spawn("story", &mut command, Input::None)?;
    let status = story.ended().await;
    let said = format!("{}\n{}", story.output.text(), story.errors.text());
    anyhow::ensure!(status.as_ref().is_ok_and(std::process::ExitStatus::success), "{status:?}\n{said}");
    anyhow::ensure!(said.contains("1 passed"), "no story is called {name}:\n{said}");
    show(&story.errors.text());
    Ok(false)
}

#[expect(clippy::print_stderr, reason = "the test harness shows it to who asks for it")]
fn show(figures: &str) {
    eprintln!("{figures}");
}

/// A namespace with loopback up, gone when it is dropped.
struct Namespace {
    name: String,
    files: PathBuf,
}

impl Namespace {
    async fn new(resolv_conf: &str) -> anyhow::Result<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("pomerium-{}-{number}", std::process::id());
        let files = Path::new(FILES).join(&name);
        std::fs::create_dir_all(&files)?;
        std::fs::write(files.join("resolv.conf"), resolv_conf)?;
        std::fs::write(files.join("hosts"), HOSTS)?;
        let namespace = Self { name, files };
        ip(&["netns", "add", &namespace.name]).await?;
        ip(&["-n", &namespace.name, "link", "set", "lo", "up"]).await?;
        Ok(namespace)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What is left of it is told by `ip netns`, and harms nobody.
        let _left = std::process::Command::new("ip").args(["netns", "del", &self.name]).status();
        let _left = std::fs::remove_dir_all(&self.files);
    }
}

/// Has `ip` do something, inside a story or to make one's place.
///
/// # Errors
/// What it says.
pub async fn ip(words: &[&str]) -> anyhow::Result<String> {
    run("ip", words).await
}
