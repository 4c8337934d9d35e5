//! Where the stores of tests are: stories that hold for both databases are told of both.

use std::{
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use sqlx::{AnyConnection, Connection as _, Executor as _};
use tempfile::TempDir;
use url::Url;

use crate::{
    secret::Secret,
    store::{Store, StoreReader},
};

/// The shared secret of all gateways of the tests.
pub(in crate::store) const SHARED_SECRET: Secret<[u8; 32]> = Secret::new([7; 32]);

/// A store of one test's own, opened as often as it likes.
pub(in crate::store) enum Place {
    Sqlite(TempDir),
    Postgres(Secret<Url>),
}

impl Place {
    pub(in crate::store) fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    pub(in crate::store) async fn postgres() -> Self {
        Self::Postgres(Secret::new(Server::running().database().await))
    }

    pub(in crate::store) async fn open(&self) -> Store {
        match self {
            Self::Sqlite(folder) => Store::open(folder.path()).await.unwrap(),
            Self::Postgres(url) => Store::open_postgres(url, &SHARED_SECRET).await.unwrap(),
        }
    }

    pub(in crate::store) async fn open_beside(&self) -> Store {
        match self {
            Self::Sqlite(folder) => Store::open_beside(folder.path()).await.unwrap(),
            Self::Postgres(_) => self.open().await,
        }
    }

    pub(in crate::store) async fn reader(&self) -> StoreReader {
        match self {
            Self::Sqlite(folder) => StoreReader::open(folder.path()).await.unwrap().unwrap(),
            Self::Postgres(url) => StoreReader::open_postgres(url).await.unwrap(),
        }
    }
}

/// Makes of each story, a function of a [`Place`], a test with either database.
macro_rules! on_both {
    ($($story:ident),* $(,)?) => {
        $(mod $story {
            use $crate::store::tests::places::Place;

            #[tokio::test]
            async fn sqlite() {
                super::$story(&Place::sqlite()).await;
            }

            #[tokio::test]
            async fn postgres() {
                super::$story(&Place::postgres().await).await;
            }
        })*
    };
}
pub(in crate::store) use on_both;

/// A PostgreSQL server that lives as long as this process.
struct Server {
    folder: PathBuf,
    /// Its end is how the server learns that the process is gone.
    _alive: std::process::ChildStdin,
    databases: AtomicU32,
}

impl Server {
    fn running() -> &'static Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        SERVER.get_or_init(Self::start)
    }

    fn start() -> Self {
        const SCRIPT: &str = r#"
            "$0/initdb" -D cluster --auth=trust --encoding=UTF8 --locale=C --username=postgres --no-sync > log 2>&1 || exit 1
            "$0/postgres" -D cluster -c listen_addresses= -c unix_socket_directories="$PWD" -c fsync=off \
                -c max_connections=300 -c dynamic_shared_memory_type=mmap >> log 2>&1 < /dev/null &
            cat > /dev/null
            kill -INT $!
            wait $!
            rm -rf "$PWD"
        "#;
        let folder = tempfile::tempdir().unwrap().keep();
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT]).arg(programs()).current_dir(&folder).stdin(Stdio::piped());
        // The server refuses to run as root.
        if id(&["-u"]) == 0 {
            let (user, group) = (id(&["-u", "postgres"]), id(&["-g", "postgres"]));
            chown(&folder, Some(user), Some(group)).unwrap();
            shell.uid(user).gid(group);
        }
        let alive = shell.spawn().unwrap().stdin.take().unwrap();
        Self { folder, _alive: alive, databases: AtomicU32::new(0) }
    }

    fn url(&self, database: &str) -> Url {
        let mut url = Url::parse(&format!("postgresql://postgres@localhost/{database}")).unwrap();
        url.query_pairs_mut().append_pair("host", self.folder.to_str().unwrap());
        url
    }

    /// An empty database.
    async fn database(&self) -> Url {
        sqlx::any::install_default_drivers();
        let connecting = async {
            loop {
                match AnyConnection::connect(self.url("postgres").as_str()).await {
                    Ok(connection) => return connection,
                    Err(_not_yet) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        let connected = tokio::time::timeout(Duration::from_secs(60), connecting).await;
        let mut connection =
            connected.unwrap_or_else(|_| panic!("PostgreSQL does not start: {}", self.log()));
        let name = format!("store_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let create = format!("CREATE DATABASE {name}");
        connection.execute(sqlx::AssertSqlSafe(create)).await.unwrap();
        connection.close().await.unwrap();
        self.url(&name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

/// The folder of the newest server that is installed.
fn programs() -> PathBuf {
    const MISSING: &str = "PostgreSQL is not installed: these tests need /usr/lib/postgresql/*/bin";
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect(MISSING).filter_map(Result::ok);
    let newest = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max();
    Path::new("/usr/lib/postgresql").join(newest.expect(MISSING).to_string()).join("bin")
}

fn id(arguments: &[&str]) -> u32 {
    let output = Command::new("id").args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().expect("there is a user postgres")
}
