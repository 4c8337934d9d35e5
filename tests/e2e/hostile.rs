//! Gateways that lie, strangers on the same machine, and machines on which little works: each is an error in words with a code,
//! never a hang and never a token in the wrong hands.

use std::{
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Output, Stdio},
};

use support::{
    authority::Authority,
    cli::Cli,
    echo::Echo,
    gateway::{Gateway, Route},
    http::FAR,
    liar::{Answer, Liar, Over},
    process::{Input, Process, run_by},
    wait,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    task::JoinSet,
};

const DESTINATION: &str = "echo.corp.test:7";
/// A token of a service account, as far as anybody sees who cannot verify it.
const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJyb2JvdCJ9.c2VjcmV0LXNpZ25hdHVyZQ";
const REACHED_NOBODY: i32 = 69;
const NOT_SIGNED_IN: i32 = 67;
const UNTRUSTED: i32 = 76;
/// What one flood may make the client and the sockets between hold.
const FLOOD_MAX: u64 = 32 * 1024 * 1024;

fn authority() -> (TempDir, Authority) {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(folder.path()).unwrap();
    (folder, authority)
}

/// Runs a command to its end, under its own limits and, should they fail, those of the tests.
async fn ended(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    wait::within("the client to end by itself", command.output()).await.unwrap().unwrap()
}

/// What the person reads, which names neither the token nor an address of our own making.
fn words(output: &Output) -> String {
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!said.contains(TOKEN) && !said.contains("secret"), "a token was printed: {said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// Answers that are no HTTP/1.1, or no end of it.
fn broken_http1() -> Vec<(&'static str, Answer)> {
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        ("garbage", Answer::Say(vec![0xff; 3000])),
        ("nothing", Answer::Say(Vec::new())),
        ("half a head", Answer::Say(text("HTTP/1.1 200 OK\r\nContent-Le"))),
        ("half a body", Answer::Say(text("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"ro"))),
        ("silence", Answer::Hang(text("HTTP/1.1 200 OK\r\n"))),
        ("a body that never comes", Answer::Hang(text("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"))),
        ("a header without end", Answer::Flood(text("HTTP/1.1 200 OK\r\nX-Long: "))),
        ("10 GB", Answer::Flood(text("HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n"))),
        ("a body without end", Answer::Flood(text("HTTP/1.1 200 OK\r\n\r\n"))),
        ("no routes at all", Answer::Say(text("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"))),
    ]
}

/// The same for HTTP/3.
fn broken_http3() -> Vec<(&'static str, Answer)> {
    // HEADERS with `:status: 200`, and the head of a DATA frame of 10 GB (RFC 9114, 7.2; RFC 9204, A).
    let (head, huge) = ([1, 3, 0, 0, 0xd9], 0xc000_0002_8000_0000_u64.to_be_bytes());
    vec![
        ("garbage", Answer::Say(vec![0xff; 3000])),
        ("nothing", Answer::Say(Vec::new())),
        ("half a frame", Answer::Say(vec![1, 0x40, 100, 0, 0])),
        ("silence", Answer::Hang(vec![1])),
        ("a header of 10 GB", Answer::Flood([&[1][..], &huge].concat())),
        ("a body of 10 GB", Answer::Flood([&head[..], &[0], &huge].concat())),
        ("frames that nobody knows, without end", Answer::Flood([&[0x21][..], &huge].concat())),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_gateway_answers_is_told_in_words_and_never_waited_for_without_end() {
    let (_folder, authority) = authority();
    let mut told = JoinSet::new();
    let all = broken_http1().into_iter().map(|(what, answer)| (what, Over::Tcp, answer));
    for (what, over, answer) in
        all.chain(broken_http3().into_iter().map(|(what, answer)| (what, Over::Quic, answer)))
    {
        let liar = Liar::start(&authority, over, answer).await.unwrap();
        let cli = Cli::at(liar.port, &authority, "alice").unwrap();
        told.spawn(async move {
            let mut command = cli.by_itself(&["routes"]).unwrap();
            let output = ended(command.env("POMERIUM_SERVICE_ACCOUNT", TOKEN)).await;
            let said = words(&output);
            assert_eq!(output.status.code(), Some(REACHED_NOBODY), "{what} over {over:?}: {said}");
            assert!(
                said.contains("pomerium-cli: ") && said.lines().count() >= 2,
                "{what} over {over:?}: {said}"
            );
            assert!(liar.taken() <= FLOOD_MAX, "{what} over {over:?}: {} octets were taken", liar.taken());
            assert_eq!(cli.sign_ins(), 0, "{what}");
        });
    }
    while let Some(one) = told.join_next().await {
        one.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_never_answered_ends_by_itself() {
    let (_folder, authority) = authority();
    for (over, answer) in [
        (Over::Tcp, Answer::Say(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec())),
        (Over::Tcp, Answer::Flood(b"HTTP/1.1 200 OK\r\nX-Long: ".to_vec())),
        (Over::Quic, Answer::Say(vec![1, 0x40, 100, 0, 0])),
    ] {
        let liar = Liar::start(&authority, over, answer.clone()).await.unwrap();
        let cli = Cli::at(liar.port, &authority, "alice").unwrap();
        let mut command = cli.by_itself(&["tcp", DESTINATION, "--listen", "-"]).unwrap();
        let output = ended(command.env("POMERIUM_SERVICE_ACCOUNT", TOKEN)).await;
        let said = words(&output);
        assert_eq!(output.status.code(), Some(REACHED_NOBODY), "{answer:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_certificate_of_the_gateway_is_told_nothing() {
    let ((_folder, ours), (_other, theirs)) = (authority(), authority());
    for over in [Over::Tcp, Over::Quic] {
        // One that nobody vouches for, and one that is for other names.
        for (host, shown) in [(Ipv4Addr::LOCALHOST, &theirs), (FAR, &ours)] {
            let liar = Liar::start_at(host, shown, over, Answer::Say(Vec::new())).await.unwrap();
            let cli = Cli::at(liar.port, &ours, "alice").unwrap();
            for words_of in [&["routes"][..], &["tcp", DESTINATION, "--listen", "-"]] {
                let mut command = cli.by_itself(words_of).unwrap();
                command.env("POMERIUM_SERVICE_ACCOUNT", TOKEN);
                let output =
                    ended(command.env("POMERIUM_URL", format!("https://{host}:{}", liar.port))).await;
                let said = words(&output);
                assert_eq!(output.status.code(), Some(UNTRUSTED), "{host} over {over:?}: {said}");
                assert!(said.contains("not trusted"), "{said}");
            }
            assert!(liar.requests().is_empty(), "{:?}", liar.requests());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_led_to_a_file_or_to_another_host() {
    let (_folder, authority) = authority();
    let other = Liar::start(&authority, Over::Tcp, Answer::Say(Vec::new())).await.unwrap();
    let elsewhere = format!("https://other.localhost:{}/", other.port);
    for target in ["file:///etc/passwd", &elsewhere] {
        let redirect = format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n");
        let liar = Liar::start(&authority, Over::Tcp, Answer::Say(redirect.into_bytes())).await.unwrap();
        let cli = Cli::at(liar.port, &authority, "alice").unwrap();
        // With a token there is nobody to sign in; without one the page is asked for, and the answer leads away again.
        for token in [TOKEN, ""] {
            for words_of in [&["routes"][..], &["tcp", DESTINATION, "--listen", "-"]] {
                let mut command = cli.by_itself(words_of).unwrap();
                let output = ended(command.env("POMERIUM_SERVICE_ACCOUNT", token)).await;
                let said = words(&output);
                assert_eq!(output.status.code(), Some(NOT_SIGNED_IN), "{target} {words_of:?}: {said}");
            }
        }
        assert_eq!(cli.sign_ins(), 0, "nothing was opened");
    }
    assert!(other.requests().is_empty(), "{:?}", other.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_address_of_a_web_page_is_opened_for_sign_in() {
    let (_folder, authority) = authority();
    let refused = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".to_owned();
    for page in ["file:///etc/passwd", "javascript:alert(1)", "ssh://evil.test", "--help", "", "\u{1b}[31m"] {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{page}", page.len());
        let liar = Liar::start(&authority, Over::Tcp, Answer::Sort(refused.clone(), answer)).await.unwrap();
        let cli = Cli::at(liar.port, &authority, "alice").unwrap();
        let output = ended(&mut cli.by_itself(&["login"]).unwrap()).await;
        let said = words(&output);
        assert_eq!(output.status.code(), Some(NOT_SIGNED_IN), "{page}: {said}");
        assert!(said.contains("not the address of a sign-in page"), "{said}");
        assert!(!said.contains("passwd") && !said.contains('\u{1b}'), "{said}");
        assert_eq!(cli.sign_ins(), 0, "{page} was opened");
    }
}

/// The ports on which a process listens, as the kernel tells anybody who is its user.
fn listening(process: &Process) -> Vec<u16> {
    let folder = format!("/proc/{}/fd", process.id().unwrap());
    let links =
        std::fs::read_dir(folder).unwrap().filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let own: Vec<String> = links.map(|link| link.display().to_string()).collect();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port_of = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let is_own = own.contains(&format!("socket:[{}]", columns.get(9)?));
        // 0A: it listens.
        let port = columns.get(1)?.split_once(':')?.1;
        (is_own && columns.get(3) == Some(&"0A")).then(|| u16::from_str_radix(port, 16).ok()).flatten()
    };
    table.lines().skip(1).filter_map(port_of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_races_the_browser_to_the_callback_gets_nothing_and_stops_nobody() {
    let echo = Echo::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let mut command = cli.plain(&["login", "--no-browser", "--alternate-ca-path"]).unwrap();
    let mut login = Process::spawn("login", command.arg(&gateway.authority.root), Input::None).unwrap();
    let page = login.errors.find("the page", |line| line.trim().parse::<url::Url>().ok()).await.unwrap();
    let [port] = listening(&login)[..] else { panic!("{:?}", listening(&login)) };

    // All its places taken by callers who say nothing, and a token of a stranger under every path that a stranger knows.
    let mut idle = Vec::new();
    for _ in 0..16 {
        idle.push(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap());
    }
    let mut racers = JoinSet::new();
    for path in ["/", "/callback", "/done", "//", "/%2e"] {
        racers.spawn(async move {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
            let request = format!(
                "GET {path}?pomerium_jwt=e30.e30.ZXZpbA&pomerium_code=x&code=x HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        });
    }
    let shown = cli.person.open(&page).await.unwrap();
    assert!(shown.text().contains("you may close this page"), "{}", shown.text());
    let status = login.wait().await.unwrap();
    assert!(status.success(), "{}", login.errors.text());
    while let Some(answer) = racers.join_next().await {
        let answer = answer.unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 404 "), "{answer}");
    }
    let auth = ended(&mut cli.by_itself(&["routes"]).unwrap()).await;
    assert!(auth.status.success() && cli.sign_ins() == 0, "the session is alice's: {}", words(&auth));
}

/// Speaks to the socket as another user, and prints what comes back.
const KNOCK: &str = "import socket,sys\n\
    s=socket.socket(socket.AF_UNIX)\n\
    s.connect(sys.argv[1])\n\
    try:\n s.sendall(b'{\"version\":1,\"request\":\"status\"}\\n')\n print(repr(s.recv(9999)))\n\
    except (BrokenPipeError,ConnectionResetError):\n print(repr(b''))\n";

#[tokio::test(flavor = "multi_thread")]
async fn another_user_of_the_machine_gets_no_word_from_the_daemon_however_open_its_folder_is() {
    let gateway = Gateway::start(&[]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let daemon = cli.daemon().unwrap();
    daemon.errors.line_with("the daemon answers").await.unwrap();
    let home = cli.cache().parent().unwrap().to_owned();
    let folder = home.join("pomerium");
    let socket = folder.join("daemon.sock");
    let knock = async |user: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", user, "--regid", user, "--clear-groups", "/usr/bin/python3", "-c", KNOCK]);
        let output = ended(command.arg(&socket)).await;
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let set =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    set(&home, 0o755);
    let (came_in, _) = knock("65534").await;
    assert!(!came_in, "the folder lets nobody in");
    set(&folder, 0o755);
    set(&socket, 0o666);
    assert_eq!(knock("65534").await, (true, "b''\n".to_owned()));
    daemon.errors.line_with("a process of another user was turned away").await.unwrap();
    // What its owner widened, its owner's commands do not use; and the daemon goes on for who may speak to it.
    let (_, heard) = knock("0").await;
    assert!(heard.contains("gateways"), "{heard}");
    set(&folder, 0o700);
    let status = ended(cli.plain(&["status", "--json"]).unwrap().stdin(Stdio::null())).await;
    assert!(words(&status).contains("\"daemon\""), "{}", words(&status));
}

/// The command, on a machine that `prepare` makes of this one in a shell.
fn on(command: &Command, prepare: &str) -> Command {
    let mut other = Command::new("unshare");
    other.args(["-m", "sh", "-ec", &format!("{prepare}exec \"$@\""), "sh"]);
    run_by(other, command)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_keeps_nothing_says_so_and_asks_no_more_often_than_it_must() {
    let echo = Echo::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    for (how, fill) in [("ro", "true"), ("size=4k", "head -c 4096 /dev/zero > $at/full")] {
        let cli = Cli::new(&gateway, "alice").unwrap();
        let home = cli.cache().parent().unwrap().to_owned();
        let mut machine = String::new();
        for folder in ["cache", "data", "config"] {
            let at = home.join(folder);
            std::fs::create_dir_all(&at).unwrap();
            machine.push_str(&format!("at='{}'; mount -t tmpfs -o {how} none $at; {fill}; ", at.display()));
        }
        // Signed in, but not kept: the one thing that `login` is for.
        let output = ended(&mut on(&cli.by_itself(&["login"]).unwrap(), &machine)).await;
        let said = words(&output);
        assert_eq!(output.status.code(), Some(1), "{how}: {said} {}", cli.trouble());
        assert!(said.contains("cannot use") && said.contains("XDG_CACHE_HOME"), "{how}: {said}");
        assert_eq!(cli.sign_ins(), 1, "{how}");
        // A command works all the same, with a sign-in of its own.
        let output = ended(&mut on(&cli.by_itself(&["routes"]).unwrap(), &machine)).await;
        let said = words(&output);
        assert!(
            output.status.success() && said.contains("echo.corp.test"),
            "{how}: {said} {}",
            cli.trouble()
        );
        assert_eq!(cli.sign_ins(), 2, "{how}");
        // What cannot be written is an error, with a code.
        let output = ended(&mut on(&cli.by_itself(&["connect", "--save"]).unwrap(), &machine)).await;
        let said = words(&output);
        assert_eq!(output.status.code(), Some(1), "{how}: {said} {}", cli.trouble());
        assert!(said.contains("cannot use"), "{how}: {said}");
    }
}
