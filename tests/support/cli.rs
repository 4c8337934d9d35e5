//! The client under test, with a cache of its own, and a person who signs in when it opens a browser.

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::{process::Command, task::JoinSet};
use url::Url;

use crate::{
    authority::Authority,
    desktop::Desktop,
    gateway::{Gateway, binary},
    log::Log,
    person::Person,
    process::{Input, Process, run_by},
    wait,
};

/// Between two looks at what the client asked the browser to open.
const BROWSER_INTERVAL: Duration = Duration::from_millis(20);

/// The number of a user without rights.
const PERSON: &str = "65534";

/// A person's machine with the client on it.
#[derive(Debug)]
pub struct Cli {
    folder: TempDir,
    gateway_url: String,
    root: PathBuf,
    sign_ins: Arc<AtomicUsize>,
    trouble: Log,
    /// Who signs in when the client opens its browser.
    pub person: Arc<Person>,
    _browser: JoinSet<()>,
}

impl Cli {
    /// A machine on which nobody has signed in yet; `name` will.
    ///
    /// # Errors
    /// The client is not built.
    pub fn new(gateway: &Gateway, name: &str) -> anyhow::Result<Self> {
        Self::at(gateway.port, &gateway.authority, name)
    }

    /// The same for whatever pretends to be a gateway at this port.
    ///
    /// # Errors
    /// As [`Cli::new`].
    pub fn at(port: u16, authority: &Authority, name: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let urls = folder.path().join("urls");
        std::fs::write(&urls, "")?;
        let script = folder.path().join("browser");
        std::fs::write(&script, format!("#!/bin/sh\nprintf '%s\\n' \"$1\" >> '{}'\n", urls.display()))?;
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;

        let sign_ins = Arc::new(AtomicUsize::new(0));
        let trouble = Log::default();
        let person = Arc::new(Person::new(name, authority)?);
        let mut browser = JoinSet::new();
        browser.spawn(browse(urls, person.clone(), sign_ins.clone(), trouble.clone()));
        Ok(Self {
            folder,
            gateway_url: format!("https://localhost:{port}"),
            root: authority.root.clone(),
            sign_ins,
            trouble,
            person,
            _browser: browser,
        })
    }

    /// Makes the client speak to another of the gateway's hosts than `localhost`.
    pub fn speak_to(&mut self, gateway: &Gateway, host: &str) {
        self.gateway_url = format!("https://{host}:{}", gateway.port);
    }

    /// Makes the client trust another authority than the gateway's.
    pub fn trust(&mut self, authority: &Authority) {
        self.root.clone_from(&authority.root);
    }

    /// How often the client opened the browser.
    #[must_use]
    pub fn sign_ins(&self) -> usize {
        self.sign_ins.load(Ordering::SeqCst)
    }

    /// The folder under which the client keeps its cache.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// What `pomerium-cli` is called with for a command of these words.
    ///
    /// # Errors
    /// The client is not built.
    pub fn words(&self, words: &[&str]) -> anyhow::Result<Vec<String>> {
        let mut all = vec![binary("pomerium-cli")?.display().to_string()];
        all.extend(words.iter().map(|&word| word.to_owned()));
        let script = self.folder.path().join("browser");
        for (flag, value) in [
            ("--pomerium-url", self.gateway_url.clone()),
            ("--alternate-ca-path", self.root.display().to_string()),
            ("--browser-cmd", script.display().to_string()),
        ] {
            all.extend([flag.to_owned(), value]);
        }
        Ok(all)
    }

    /// A command of the client.
    ///
    /// # Errors
    /// The client is not built.
    pub fn command(&self, words: &[&str]) -> anyhow::Result<Command> {
        let words = self.words(words)?;
        let (program, arguments) = words.split_first().context("there is a program")?;
        let mut command = Command::new(program);
        command.args(arguments);
        self.environment(&mut command);
        Ok(command)
    }

    /// Gives a command that calls the client (ssh with a `ProxyCommand`) this machine's folders.
    pub fn environment(&self, command: &mut Command) {
        let home = self.folder.path();
        command
            .env("XDG_CACHE_HOME", self.cache())
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("XDG_CURRENT_DESKTOP", "KDE")
            .env("HOME", home);
        // No desktop, unless a story gives it one.
        command.env_remove("DBUS_SESSION_BUS_ADDRESS");
        command.env("XDG_DATA_HOME", home.join("data")).env("XDG_RUNTIME_DIR", home).kill_on_drop(true);
    }

    /// Sets whether this machine's desktop locks its screen; it does unless it is told otherwise. The client looks now
    /// and then.
    ///
    /// # Errors
    /// The desktop's settings cannot be written.
    pub fn lock_screen(&self, on: bool) -> anyhow::Result<()> {
        let folder = self.folder.path().join("config");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("kscreenlockerrc"), format!("[Daemon]\nAutolock={on}\n"))?;
        Ok(())
    }

    /// Runs a command of the client in the background.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, words: &[&str], input: Input) -> anyhow::Result<Process> {
        Process::spawn(&format!("pomerium-cli {}", words.join(" ")), &mut self.command(words)?, input)
    }

    /// Runs the client's daemon, which trusts the gateway and opens this person's browser.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn daemon(&self) -> anyhow::Result<Process> {
        Process::spawn("pomerium-cli daemon", &mut self.daemon_command(&[], None)?, Input::None)
    }

    /// The same with more words, and beside another system bus than the machine's.
    ///
    /// # Errors
    /// As [`Cli::daemon`].
    pub fn daemon_with(&self, words: &[&str], system_bus: Option<&str>) -> anyhow::Result<Process> {
        let mut command = self.daemon_command(words, system_bus)?;
        Process::spawn(&format!("pomerium-cli daemon {}", words.join(" ")), &mut command, Input::None)
    }

    /// Gives this machine's folder to a person without rights, who is not the one that the story runs as; see [`as_person`].
    ///
    /// # Errors
    /// `chown` or `chmod` fails.
    pub async fn give_away(&self) -> anyhow::Result<()> {
        let authority = self.root.parent().context("the certificate is in a folder")?;
        let owner = format!("{PERSON}:{PERSON}");
        for (program, how, what) in
            [("chown", ["-R", &owner], self.folder.path()), ("chmod", ["-R", "a+rX"], authority)]
        {
            let status = Command::new(program).args(how).arg(what).status().await?;
            anyhow::ensure!(status.success(), "{program} {}: {status}", what.display());
        }
        Ok(())
    }

    /// The same with a network device, as that person, with what `packaging/systemd/pomerium-cli-tun@.service` hands on.
    ///
    /// # Errors
    /// As [`Cli::daemon`].
    pub fn daemon_of_person(&self, system_bus: Option<&str>) -> anyhow::Result<Process> {
        let command = self.daemon_command(&["--tun"], system_bus)?;
        let given = ["--inh-caps=-all,+net_admin", "--ambient-caps=-all,+net_admin"];
        Process::spawn("pomerium-cli daemon --tun", &mut as_person(&command, &given), Input::None)
    }

    /// The same on a desktop.
    ///
    /// # Errors
    /// As [`Cli::daemon`].
    pub fn daemon_on(&self, desktop: &Desktop) -> anyhow::Result<Process> {
        let mut command = self.daemon_command(&[], None)?;
        command.env("DBUS_SESSION_BUS_ADDRESS", &desktop.address);
        Process::spawn("pomerium-cli daemon", &mut command, Input::None)
    }

    fn daemon_command(&self, words: &[&str], system_bus: Option<&str>) -> anyhow::Result<Command> {
        let mut command = self.by_itself(&["daemon"])?;
        command.args(words);
        if let Some(bus) = system_bus {
            command.env("DBUS_SYSTEM_BUS_ADDRESS", bus);
        }
        Ok(command)
    }

    /// A command that trusts the gateway by itself and opens this person's browser; the gateway is in `POMERIUM_URL`.
    ///
    /// # Errors
    /// The client is not built.
    pub fn by_itself(&self, words: &[&str]) -> anyhow::Result<Command> {
        let mut command = self.plain(words)?;
        command.arg("--alternate-ca-path").arg(&self.root);
        command.arg("--browser-cmd").arg(self.folder.path().join("browser"));
        Ok(command)
    }

    /// A command that leaves trust and sign-in to the daemon; the gateway is in `POMERIUM_URL`.
    ///
    /// # Errors
    /// The client is not built.
    pub fn plain(&self, words: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(binary("pomerium-cli")?);
        self.environment(&mut command);
        command.args(words).env("POMERIUM_URL", &self.gateway_url);
        Ok(command)
    }

    /// What a command says that leaves trust and sign-in to the daemon.
    ///
    /// # Errors
    /// It fails, or does not end within the limit.
    pub async fn said(&self, words: &[&str]) -> anyhow::Result<String> {
        let output = wait::within("a command", self.plain(words)?.output()).await??;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::ensure!(output.status.success(), "{words:?}: {errors} {}", self.trouble());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Begins a sign-in by a code, as on a machine without a browser.
    ///
    /// # Errors
    /// The client is not built.
    pub fn device_login(&self) -> anyhow::Result<Process> {
        let mut command = Command::new(binary("pomerium-cli")?);
        command.args(["login", &self.gateway_url, "--device", "--alternate-ca-path"]).arg(&self.root);
        self.environment(&mut command);
        Process::spawn("pomerium-cli login --device", &mut command, Input::None)
    }

    /// Ends this machine's session, as `pomerium-cli logout` does.
    ///
    /// # Errors
    /// The client fails.
    pub async fn log_out(&self) -> anyhow::Result<()> {
        let mut command = Command::new(binary("pomerium-cli")?);
        command.args(["logout", &self.gateway_url, "--alternate-ca-path"]).arg(&self.root);
        self.environment(&mut command);
        let output = command.output().await?;
        anyhow::ensure!(output.status.success(), "logout: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// A local listener that leads to `destination`, and its port. The person has signed in when this returns.
    ///
    /// # Errors
    /// The client does not say where it listens.
    pub async fn listen(&self, destination: &str) -> anyhow::Result<(Process, u16)> {
        self.listen_with(destination, &[]).await
    }

    /// As [`Cli::listen`], with more words.
    ///
    /// # Errors
    /// As [`Cli::listen`].
    pub async fn listen_with(&self, destination: &str, more: &[&str]) -> anyhow::Result<(Process, u16)> {
        let words = [&["tcp", destination, "--listen", "127.0.0.1:0"], more].concat();
        let process = self.spawn(&words, Input::None)?;
        let port = loopback_port(&process, "").await?;
        Ok((process, port))
    }

    /// The same for datagrams.
    ///
    /// # Errors
    /// As [`Cli::listen`].
    pub async fn listen_udp(&self, destination: &str) -> anyhow::Result<(Process, u16)> {
        let process = self.spawn(&["udp", destination, "--listen", "127.0.0.1:0"], Input::None)?;
        let port = loopback_port(&process, "").await?;
        Ok((process, port))
    }

    /// What went wrong while signing in, for the message of a failed assertion.
    #[must_use]
    pub fn trouble(&self) -> String {
        self.trouble.text()
    }
}

/// A command as a person without rights; `given` is what `setpriv` is to hand on.
#[must_use]
pub fn as_person(command: &Command, given: &[&str]) -> Command {
    let mut other = Command::new("setpriv");
    let person = format!("--reuid={PERSON}");
    let group = format!("--regid={PERSON}");
    other.args([
        person.as_str(),
        &group,
        "--clear-groups",
        "--bounding-set=-all,+net_admin",
        "--no-new-privs",
    ]);
    other.args(given);
    run_by(other, command)
}

/// The port of [`loopback_address`].
///
/// # Errors
/// As there.
pub async fn loopback_port(process: &Process, part: &str) -> anyhow::Result<u16> {
    Ok(loopback_address(process, part).await?.port())
}

/// The loopback address in the first line with one and `part`, on either output of the client.
///
/// # Errors
/// There is no such line within the limit.
pub async fn loopback_address(process: &Process, part: &str) -> anyhow::Result<SocketAddr> {
    let find = |log: Log| async move {
        log.find(&format!("127.x.y.z:PORT and {part}"), |line| {
            line.contains(part).then(|| address_in(line)).flatten()
        })
        .await
    };
    tokio::select! {
        address = find(process.output.clone()) => address,
        address = find(process.errors.clone()) => address,
    }
}

/// An address may stand in a URL, or at the end of a sentence.
fn address_in(line: &str) -> Option<SocketAddr> {
    let words = line.split(|c: char| !matches!(c, '0'..='9' | '.' | ':'));
    let mut addresses = words.filter_map(|word| word.trim_matches(['.', ':']).parse::<SocketAddr>().ok());
    addresses.find(|address| address.ip().is_loopback() && address.port() != 0)
}

/// Opens what the client asks for.
async fn browse(urls: PathBuf, person: Arc<Person>, sign_ins: Arc<AtomicUsize>, trouble: Log) {
    let mut seen = 0;
    loop {
        let text = tokio::fs::read_to_string(&urls).await.unwrap_or_default();
        let whole_lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        for line in whole_lines.skip(seen) {
            seen += 1;
            sign_ins.fetch_add(1, Ordering::SeqCst);
            if let Err(error) = sign_in(&person, line.trim()).await {
                trouble.clone().read(format!("{error:#}\n").as_bytes()).await;
            }
        }
        tokio::time::sleep(BROWSER_INTERVAL).await;
    }
}

async fn sign_in(person: &Person, url: &str) -> anyhow::Result<()> {
    let page = person.open(&Url::parse(url)?).await?;
    anyhow::ensure!(page.status.is_success(), "{} answered {}: {}", page.url, page.status, page.text());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_in_a_line() {
        let port = |line| address_in(line).map(|address| address.port());
        assert_eq!(port("db.corp.test:5432 -> 127.0.0.1:40001 (tcp)"), Some(40_001));
        assert_eq!(port("a proxy at socks5h://127.0.0.1:1080."), Some(1080));
        assert_eq!(address_in("at 127.4.5.6:22"), Some(([127, 4, 5, 6], 22).into()));
        assert_eq!(port("at 10.0.0.1:22"), None);
        assert_eq!(port("listening on 127.0.0.1:0"), None);
        assert_eq!(port("nothing"), None);
    }
}
