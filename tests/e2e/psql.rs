//! PostgreSQL's own clients through a local port.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Output,
};

use support::{
    cli::{Cli, loopback_address},
    gateway::{Gateway, Route},
    postgres::Postgres,
    process::Input,
};

const DESTINATION: &str = "db.corp.test:5432";

/// 260 MiB of rows that do not repeat.
const LARGE_TABLE: &str =
    "create table large as select n, repeat(md5(n::text), 32) as text from generate_series(1, 265000) n";
const DUMP_LEN_MIN: usize = 256 << 20;

async fn parts() -> anyhow::Result<(Postgres, Gateway)> {
    let postgres = Postgres::start().await?;
    let gateway = Gateway::start(&[Route::tcp(DESTINATION, format!("127.0.0.1:{}", postgres.port))]).await?;
    Ok((postgres, gateway))
}

async fn select_one(address: SocketAddr) -> anyhow::Result<Output> {
    let mut psql = Postgres::client("psql", address.port());
    Ok(psql.args(["-h", &address.ip().to_string(), "-X", "-A", "-t", "-c", "select 1"]).output().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn alice_queries_the_database_through_connect() {
    let (_postgres, gateway) = parts().await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let client = cli.spawn(&["connect", DESTINATION], Input::None).unwrap();
    let address = loopback_address(&client, "").await.unwrap();
    assert_eq!(address.port(), 5432, "the route's own port");
    let output = select_one(address).await.unwrap();
    assert_eq!(output.stdout, b"1\n", "{}\n{}", String::from_utf8_lossy(&output.stderr), cli.trouble());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_dump_through_the_tunnel_equals_a_direct_one() {
    let (postgres, gateway) = parts().await.unwrap();
    postgres.execute(LARGE_TABLE).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let (_client, port) = cli.listen(DESTINATION).await.unwrap();
    let mut dumps = Vec::new();
    for port in [postgres.port, port] {
        // Newer versions put a random key into every dump.
        let mut dump = Postgres::client("pg_dump", port);
        let output = dump.args(["--format=plain", "postgres"]).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.contains("restrict ")).collect();
        dumps.push(lines.join("\n"));
    }
    assert!(dumps[0].len() >= DUMP_LEN_MIN, "the dump has {} bytes", dumps[0].len());
    assert!(dumps[0] == dumps[1], "the dumps differ");
}

#[tokio::test(flavor = "multi_thread")]
async fn bobs_psql_gets_no_connection() {
    let (_postgres, gateway) = parts().await.unwrap();
    let cli = Cli::new(&gateway, "bob").unwrap();
    let (client, port) = cli.listen(DESTINATION).await.unwrap();
    let output = select_one((Ipv4Addr::LOCALHOST, port).into()).await.unwrap();
    assert!(!output.status.success());
    client.output.line_with("email-unauthorized").await.unwrap();
}
