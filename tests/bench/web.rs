//! Measures the gateway as a web proxy beside nginx and HAProxy: the same certificate, the same app behind, the same load. The
//! peers proxy and no more; the gateway finds the session, asks policy, signs an identity and logs, for each request.
#![forbid(unsafe_code)]

use std::{fs::File, path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, bail};
use support::{
    gateway::{Gateway, Route, binary},
    person::Person,
    port, wait,
};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

/// How long each load lasts.
const SECONDS: &str = "5";

/// Octets of the small answer, and of the large one.
const SMALL_LEN: usize = 128;
const LARGE_LEN: usize = 1 << 20;

/// Ticks in a second of `/proc/PID/stat` on every Linux that this runs on (`getconf CLK_TCK`).
const TICKS: f64 = 100.0;

/// A proxy under load.
struct Front {
    name: &'static str,
    port: u16,
    process: Child,
}

/// One kind of load.
#[derive(Clone, Copy)]
struct Load {
    protocol: &'static str,
    connections: usize,
    /// Requests under way on each connection.
    streams: usize,
    path: &'static str,
}

/// What came of it.
struct Figures {
    per_second: f64,
    median_ms: f64,
    p99_ms: f64,
    cpu_us: f64,
    memory_mib: f64,
    failed: u64,
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the table is what it is for")]
async fn main() -> anyhow::Result<()> {
    let only = std::env::args().nth(1).unwrap_or_default();
    let folder = tempfile::tempdir()?;
    let app_port = port::reserve()?;
    let mut app = nginx(folder.path(), "app", &app(folder.path(), app_port)?, app_port).await?;
    let (gateway, cookie, first) = gateway(app_port).await?;
    let fronts = [
        first,
        peer_nginx(folder.path(), &gateway, app_port).await?,
        peer_haproxy(folder.path(), &gateway, app_port).await?,
    ];
    println!("| load | proxy | requests/s | p50 ms | p99 ms | CPU µs/request | memory MiB | failed |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let loads = ["/small", "/large"].into_iter().flat_map(|path| {
        // With 1,000 connections of ten streams h2load itself does not come to an end, whatever proxy it asks.
        let all =
            [("h1", 1, 1), ("h1", 64, 1), ("h1", 1000, 1), ("h2", 1, 10), ("h2", 64, 10), ("h2", 1000, 1)];
        all.map(|(protocol, connections, streams)| Load { protocol, connections, streams, path })
    });
    for load in loads {
        let Load { protocol, connections, streams, path } = load;
        let name = format!("{protocol}, {connections} x {streams}, {path}");
        if !name.contains(&only) {
            continue;
        }
        for front in &fronts {
            let Figures { per_second, median_ms, p99_ms, cpu_us, memory_mib, failed } =
                measure(folder.path(), front, load, &cookie).await?;
            println!(
                "| {name} | {} | {per_second:.0} | {median_ms:.2} | {p99_ms:.2} | \
                 {cpu_us:.0} | {memory_mib:.0} | {failed} |",
                front.name
            );
        }
    }
    for mut front in fronts {
        front.process.kill().await?;
    }
    app.kill().await?;
    drop(gateway);
    Ok(())
}

/// The app behind: nginx over plain HTTP/1.1.
fn app(folder: &Path, port: u16) -> anyhow::Result<String> {
    std::fs::write(folder.join("small"), "s".repeat(SMALL_LEN))?;
    std::fs::write(folder.join("large"), "l".repeat(LARGE_LEN))?;
    let root = folder.display();
    Ok(format!(
        "access_log off; sendfile on; keepalive_requests 1000000;\n\
         server {{ listen 127.0.0.1:{port} backlog=4096; root {root}; }}"
    ))
}

/// The gateway with its log in a file, and the cookie of somebody who may open the app.
async fn gateway(app_port: u16) -> anyhow::Result<(Gateway, String, Front)> {
    let route = Route::web("app.localhost", format!("127.0.0.1:{app_port}"));
    let mut gateway = Gateway::start(&[route]).await?;
    let alice = Person::new("alice", &gateway.authority)?;
    let url = gateway.url("app.localhost")?.join("/small")?;
    let page = alice.open(&url).await?;
    anyhow::ensure!(page.body.len() == SMALL_LEN, "the gateway answered {}: {}", page.status, page.text());
    let cookie = alice.cookie(&url, "_pomerium").context("no session")?;
    // The tests keep what a gateway logs in memory: here it goes to a file, as in production.
    gateway.kill().await?;
    let mut command = Command::new(binary("pomerium-gateway")?);
    command.args(["run", "--config"]).arg(gateway.config()).current_dir(gateway.folder());
    let log = gateway.folder().join("gateway.log");
    let process = spawn(&mut command, &log)?;
    let front = Front { name: "gateway", port: gateway.port, process };
    answers(front.port, &log).await?;
    Ok((gateway, cookie, front))
}

async fn peer_nginx(folder: &Path, gateway: &Gateway, app: u16) -> anyhow::Result<Front> {
    let port = port::reserve()?;
    let (certificate, key) = (&gateway.authority.certificate, &gateway.authority.key);
    let servers = format!(
        "access_log {}/nginx-access.log; keepalive_requests 1000000;\n\
         upstream app {{ server 127.0.0.1:{app}; keepalive 256; keepalive_requests 1000000; }}\n\
         server {{ listen 127.0.0.1:{port} ssl http2 backlog=4096; ssl_certificate {}; ssl_certificate_key {};\n\
         ssl_protocols TLSv1.2 TLSv1.3;\n\
         location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
         proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr; }} }}",
        folder.display(),
        certificate.display(),
        key.display()
    );
    let process = nginx(folder, "peer", &servers, port).await?;
    Ok(Front { name: "nginx", port, process })
}

async fn peer_haproxy(folder: &Path, gateway: &Gateway, app: u16) -> anyhow::Result<Front> {
    let port = port::reserve()?;
    let (certificate, key) = (&gateway.authority.certificate, &gateway.authority.key);
    let both = folder.join("haproxy.pem");
    std::fs::write(&both, std::fs::read_to_string(certificate)? + &std::fs::read_to_string(key)?)?;
    let file = folder.join("haproxy.cfg");
    std::fs::write(
        &file,
        format!(
            "global\n maxconn 8000\n log stdout format raw local0\n\
             defaults\n mode http\n log global\n option httplog\n option forwardfor\n http-reuse always\n \
             timeout connect 10s\n timeout client 60s\n timeout server 60s\n\
             frontend f\n bind 127.0.0.1:{port} ssl crt {} alpn h2,http/1.1 backlog 4096\n default_backend b\n\
             backend b\n server app 127.0.0.1:{app}\n",
            both.display()
        ),
    )?;
    let mut command = Command::new("/usr/sbin/haproxy");
    command.arg("-db").arg("-f").arg(&file);
    let log = folder.join("haproxy.log");
    let process = spawn(&mut command, &log)?;
    answers(port, &log).await?;
    Ok(Front { name: "HAProxy", port, process })
}

/// nginx with a worker for each core, as it is shipped.
async fn nginx(folder: &Path, name: &str, servers: &str, port: u16) -> anyhow::Result<Child> {
    let place = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {place}/{name}-{kind};\n"))
        .collect();
    let file = folder.join(format!("{name}.conf"));
    let whole = format!(
        "daemon off;\nuser root;\nworker_processes auto;\nworker_rlimit_nofile 20000;\npid {place}/{name}.pid;\n\
         events {{ worker_connections 8192; }}\nhttp {{\n{temporary}{servers}\n}}\n"
    );
    std::fs::write(&file, whole)?;
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-e").arg("stderr").arg("-p").arg(folder).arg("-c").arg(&file);
    let log = folder.join(format!("{name}.log"));
    let process = spawn(&mut command, &log)?;
    answers(port, &log).await?;
    Ok(process)
}

fn spawn(command: &mut Command, log: &Path) -> anyhow::Result<Child> {
    let log = File::create(log)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
    command.spawn().with_context(|| format!("cannot start {command:?}"))
}

async fn answers(port: u16, log: &Path) -> anyhow::Result<()> {
    let connect = || async { TcpStream::connect(("127.0.0.1", port)).await.ok() };
    wait::until("a proxy to listen", connect)
        .await
        .with_context(|| std::fs::read_to_string(log).unwrap_or_default())?;
    Ok(())
}

async fn measure(folder: &Path, front: &Front, load: Load, cookie: &str) -> anyhow::Result<Figures> {
    let id = front.process.id().context("the proxy has ended")?;
    run_load(folder, front, load, cookie, "1").await?;
    let before = used(id)?.ticks;
    let (text, mut times) = run_load(folder, front, load, cookie, SECONDS).await?;
    let after = used(id)?;
    let number = |after: &str| {
        let rest =
            text.split(after).nth(1).and_then(|rest| rest.split([' ', ',']).find(|word| !word.is_empty()));
        rest.and_then(|word| word.parse::<f64>().ok()).with_context(|| format!("no {after} in:\n{text}"))
    };
    let per_second = text
        .lines()
        .find(|line| line.starts_with("finished in"))
        .and_then(|line| line.split(", ").nth(1)?.split(' ').next()?.parse::<f64>().ok());
    let done = number("status codes:")?;
    let failed = text
        .split(" done, ")
        .nth(1)
        .and_then(|rest| rest.split(" succeeded, ").nth(1)?.split(' ').next()?.parse().ok());
    if times.is_empty() || done == 0.0 {
        bail!("{} answered nothing:\n{text}", front.name);
    }
    times.sort_unstable();
    let at = |share: usize| Duration::from_micros(times[(times.len() - 1) * share / 100]).as_secs_f64() * 1e3;
    Ok(Figures {
        per_second: per_second.context("no rate")?,
        median_ms: at(50),
        p99_ms: at(99),
        cpu_us: (after.ticks - before) / TICKS * 1e6 / done,
        memory_mib: after.memory_kib / 1024.0,
        failed: failed.context("no count of failures")?,
    })
}

/// Puts load on a proxy; gives what h2load says, and the microseconds of each answer of status 200.
async fn run_load(
    folder: &Path,
    front: &Front,
    load: Load,
    cookie: &str,
    seconds: &str,
) -> anyhow::Result<(String, Vec<u64>)> {
    let log = folder.join("times");
    let _absent = std::fs::remove_file(&log);
    let mut command = Command::new("h2load");
    command
        .args([
            "-t",
            "1",
            "-D",
            seconds,
            "-c",
            &load.connections.to_string(),
            "-m",
            &load.streams.to_string(),
        ])
        .arg(format!("--connect-to=127.0.0.1:{}", front.port))
        .arg(format!("--log-file={}", log.display()))
        .args(["-H", &format!("cookie: _pomerium={cookie}")]);
    if load.protocol == "h1" {
        command.arg("--h1");
    }
    command.arg(format!("https://app.localhost:{}{}", front.port, load.path)).kill_on_drop(true);
    let output = command.output().await.context("h2load is not installed")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let times = std::fs::read_to_string(&log).unwrap_or_default();
    // `start status microseconds`
    let of_line = |line: &str| {
        let mut words = line.split('\t').skip(1);
        (words.next()? == "200").then(|| words.next()?.trim().parse().ok()).flatten()
    };
    Ok((text, times.lines().filter_map(of_line).collect()))
}

/// What a process and its children have used of the machine.
struct Used {
    ticks: f64,
    memory_kib: f64,
}

fn used(id: u32) -> anyhow::Result<Used> {
    let mut sum = Used { ticks: 0.0, memory_kib: 0.0 };
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    for id in std::iter::once(id).chain(children) {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
        // `pid (name) state ppid ...`: user and system time are the 12th and 13th after the name.
        let after = stat.rsplit(") ").next().unwrap_or_default();
        let ticks = after.split(' ').skip(11).take(2).filter_map(|word| word.parse::<f64>().ok());
        sum.ticks += ticks.sum::<f64>();
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok());
        sum.memory_kib += resident.unwrap_or_default();
    }
    Ok(sum)
}
