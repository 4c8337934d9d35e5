//! Tells a program why it got no stream, in the protocol that it speaks: the person reads the reason where they look for it.
//!
//! What is said is decided here and in the modules below, without I/O; [`tell`] carries it. The texts are made of what the
//! gateway said, cleaned of control characters, and never of what the program sent.

mod http;
mod mysql;
mod postgres;
mod ssh;

use std::time::Duration;

use pomerium_shared::{reason::EndReason, relay::Leg};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    exit::{self, Exit},
    failure::Failure,
};

/// How long a program may take to say what it must before it can be answered, and to read the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a program that are read at most.
const HEARD_LEN_MAX: usize = 64 * 1024;
/// Characters of the reason at most.
const TEXT_LEN_MAX: usize = 1000;

/// What an app speaks, where a refusal can be put in its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// PostgreSQL.
    Postgres,
    /// MySQL and MariaDB.
    Mysql,
    /// SSH.
    Ssh,
    /// HTTP without TLS.
    Http,
}

impl Protocol {
    /// The protocol whose own port this is.
    pub(crate) const fn of_port(port: u16) -> Option<Self> {
        Some(match port {
            22 => Self::Ssh,
            5432 => Self::Postgres,
            3306 => Self::Mysql,
            80 | 8000 | 8080 => Self::Http,
            _ => return None,
        })
    }

    /// The protocol of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "ssh" => Self::Ssh,
            "postgres" => Self::Postgres,
            "mysql" => Self::Mysql,
            "http" => Self::Http,
            _ => return None,
        })
    }
}

/// Why there is no stream.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Why {
    exit: Exit,
    /// The reason and the fix, in one line.
    text: String,
}

/// What to do about a program that was heard so far.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// It must say more first.
    Hear,
    /// Answer this much, forget what was heard so far, and go on hearing.
    Say(Vec<u8>),
    /// Answer this, and close.
    End(Vec<u8>),
}

impl Why {
    fn of(failure: &Failure) -> Self {
        let text = exit::message(failure).lines().map(str::trim).collect::<Vec<_>>().join(" - ");
        let text = text.chars().filter(|c| !c.is_control()).take(TEXT_LEN_MAX).collect();
        Self { exit: exit::verdict(failure).0, text }
    }

    /// Whether it is about who asks, rather than about what is down.
    const fn is_about_person(&self) -> bool {
        matches!(self.exit, Exit::NotAllowed | Exit::NotSignedIn)
    }
}

fn step(protocol: Protocol, heard: &[u8], why: &Why) -> Step {
    match protocol {
        Protocol::Postgres => postgres::step(heard, why),
        Protocol::Mysql => Step::End(mysql::error(why)),
        Protocol::Ssh => ssh::step(heard, why),
        Protocol::Http => http::step(heard, why),
    }
}

/// Answers a program that gets no stream; without a protocol, or when it says nothing sensible, its connection is reset.
pub(super) async fn tell(
    mut local: TcpStream,
    protocol: Option<Protocol>,
    failure: &Failure,
    cut: &CancellationToken,
) {
    let why = Why::of(failure);
    let is_told = match protocol {
        None => false,
        Some(protocol) => tokio::select! {
            () = cut.cancelled() => false,
            told = timeout(PATIENCE, converse(&mut local, protocol, &why)) => matches!(told, Ok(Ok(()))),
        },
    };
    if !is_told {
        Leg::tcp(local).abort(EndReason::App);
    }
}

async fn converse(local: &mut TcpStream, protocol: Protocol, why: &Why) -> std::io::Result<()> {
    let (mut heard, mut heard_in_all) = (Vec::new(), 0);
    loop {
        match step(protocol, &heard, why) {
            Step::Hear => {}
            Step::Say(bytes) => {
                local.write_all(&bytes).await?;
                heard.clear();
            }
            Step::End(bytes) => {
                local.write_all(&bytes).await?;
                local.shutdown().await?;
                return drain(local).await;
            }
        }
        let mut buffer = [0; 4096];
        let len = local.read(&mut buffer).await?;
        heard_in_all += len;
        if len == 0 || heard_in_all > HEARD_LEN_MAX {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        heard.extend_from_slice(&buffer[..len]);
    }
}

/// Reads what still comes: closing over unread bytes is a reset, which would take the answer from the program.
async fn drain(local: &mut TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    for _ in 0..HEARD_LEN_MAX / buffer.len() {
        if local.read(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(super) fn why() -> Why {
        Why { exit: Exit::NotAllowed, text: "you are not allowed (403) <b> & request id: r1".to_owned() }
    }

    #[test]
    fn the_reason_is_one_line_with_the_fix() {
        let gateway = "https://g.example".parse().unwrap();
        let why = Why::of(&Failure::NoRoutes { gateway });
        assert!(why.text.contains("https://g.example") && why.text.contains("administrator"), "{why:?}");
        assert!(!why.text.contains('\n') && why.is_about_person());
    }

    #[tokio::test]
    async fn a_program_reads_the_reason_before_its_connection_ends() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let program = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let gateway = "https://g.example".parse().unwrap();
        let (failure, cut) = (Failure::NoRoutes { gateway }, CancellationToken::new());
        let tell = async {
            let (stream, _) = listener.accept().await.unwrap();
            tell(stream, Some(Protocol::Http), &failure, &cut).await;
        };
        let (answer, ()) = tokio::join!(program, tell);
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("https://g.example"), "{answer}");
    }

    proptest! {
        #[test]
        fn nothing_that_a_program_says_panics(heard: Vec<u8>) {
            for protocol in [Protocol::Postgres, Protocol::Mysql, Protocol::Ssh, Protocol::Http] {
                let _any = step(protocol, &heard, &why());
            }
        }
    }
}
