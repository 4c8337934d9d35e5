//! The proxies that are held against each other, all with the same certificate, and what each uses of the machine.

use std::{fs::File, path::Path, process::Stdio};

use anyhow::Context as _;
use support::{
    gateway::{Gateway, Route, binary},
    person::Person,
    port,
    process::Stat,
    wait,
};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

/// A proxy under load.
pub(crate) struct Front {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    pub(crate) process: Child,
}

/// The gateway with its log in a file, and the cookie of somebody who may open the app, as `path` of it shows.
pub(crate) async fn gateway(app_port: u16, path: &str) -> anyhow::Result<(Gateway, String, Front)> {
    let route = Route::web("app.localhost", format!("127.0.0.1:{app_port}"));
    let mut gateway = Gateway::start(&[route]).await?;
    let alice = Person::new("alice", &gateway.authority)?;
    let url = gateway.url("app.localhost")?.join(path)?;
    let page = alice.open(&url).await?;
    anyhow::ensure!(page.status.is_success(), "the gateway answered {}: {}", page.status, page.text());
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

/// nginx as the peer, for requests and for WebSockets.
pub(crate) async fn peer_nginx(folder: &Path, gateway: &Gateway, app: u16) -> anyhow::Result<Front> {
    let port = port::reserve()?;
    let (certificate, key) = (&gateway.authority.certificate, &gateway.authority.key);
    let servers = format!(
        "access_log {}/nginx-access.log; keepalive_requests 1000000;\n\
         upstream app {{ server 127.0.0.1:{app}; keepalive 256; keepalive_requests 1000000; }}\n\
         server {{ listen 127.0.0.1:{port} ssl http2 backlog=4096; ssl_certificate {}; ssl_certificate_key {};\n\
         ssl_protocols TLSv1.2 TLSv1.3;\n\
         location /socket {{ proxy_pass http://app; proxy_http_version 1.1; proxy_read_timeout 1h;\n\
         proxy_set_header Connection upgrade; proxy_set_header Upgrade $http_upgrade; proxy_set_header Host $host; }}\n\
         location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
         proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr; }} }}",
        folder.display(),
        certificate.display(),
        key.display()
    );
    let process = nginx(folder, "peer", &servers, port).await?;
    Ok(Front { name: "nginx", port, process })
}

/// HAProxy as the peer.
pub(crate) async fn peer_haproxy(folder: &Path, gateway: &Gateway, app: u16) -> anyhow::Result<Front> {
    let port = port::reserve()?;
    let (certificate, key) = (&gateway.authority.certificate, &gateway.authority.key);
    let both = folder.join("haproxy.pem");
    std::fs::write(&both, std::fs::read_to_string(certificate)? + &std::fs::read_to_string(key)?)?;
    let file = folder.join("haproxy.cfg");
    std::fs::write(
        &file,
        format!(
            "global\n log stdout format raw local0\n\
             defaults\n mode http\n log global\n option httplog\n option forwardfor\n http-reuse always\n \
             timeout connect 10s\n timeout tunnel 1h\n timeout client 60s\n timeout server 60s\n\
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
pub(crate) async fn nginx(folder: &Path, name: &str, servers: &str, port: u16) -> anyhow::Result<Child> {
    let place = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {place}/{name}-{kind};\n"))
        .collect();
    let file = folder.join(format!("{name}.conf"));
    let whole = format!(
        "daemon off;\nuser root;\nworker_processes auto;\npid {place}/{name}.pid;\n\
         events {{ worker_connections 30000; }}\nhttp {{\n{temporary}{servers}\n}}\n"
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

/// What a process and its children have used of the machine.
pub(crate) struct Used {
    pub(crate) processor_seconds: f64,
    pub(crate) memory_kib: f64,
}

/// As of now.
pub(crate) fn used(id: u32) -> anyhow::Result<Used> {
    let mut sum = Used { processor_seconds: 0.0, memory_kib: 0.0 };
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    for id in std::iter::once(id).chain(children) {
        sum.processor_seconds += Stat::of(id).context("the process has ended")?.processor_seconds;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok());
        sum.memory_kib += resident.unwrap_or_default();
    }
    Ok(sum)
}
