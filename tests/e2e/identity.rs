//! Ways in and out that are not the person's own browser: the provider signs somebody out, a machine without a browser
//! signs in, a program comes with a token of its own.

use http::{HeaderMap, Method, header};
use support::{
    cli::{Cli, loopback_port},
    echo::Echo,
    form::Form,
    gateway::{Gateway, Options, Route},
    oidc::CLIENT_SECRET,
    person::Person,
    process::{Input, Process},
    wait,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use url::Url;

const DESTINATION: &str = "echo.corp.test:7";

/// Programs of the provider's, where their tokens are for the gateway.
const WORKLOADS: &str = "workload_issuers:\n- name: tests\n  issuer: ISSUER\n  audience: gateway\n  \
                         claims: {client_id: ci}\n  groups: [deploy]\n";

/// Posts a form as a program does.
async fn post(person: &Person, url: &Url, form: &[(&str, &str)]) -> serde_json::Value {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, "application/x-www-form-urlencoded".parse().unwrap());
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let page = person.request(Method::POST, url, headers, body.into()).await.unwrap();
    serde_json::from_str(&page.text()).unwrap_or_else(|error| panic!("{error}: {}", page.text()))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_signed_out_by_the_provider_loses_what_is_open() {
    let echo = Echo::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let (_client, port) = cli.listen(DESTINATION).await.unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    wait::within("an echo", stream.read_exact(&mut heard)).await.unwrap().unwrap();

    // Not at the gateway: at the provider, which tells the gateway behind the browser's back.
    let provider = Url::parse(&gateway.oidc.issuer).unwrap().join("/session/end").unwrap();
    let asks = cli.person.open(&provider).await.unwrap();
    let form = Form::first(&asks.text()).unwrap();
    cli.person.submit(&asks, &form).await.unwrap();

    let mut rest = Vec::new();
    // A cut is a reset; whichever way it ends, it ends.
    let _reset = wait::within("the cut", stream.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"");
    gateway.log().line_with(&["the identity provider signed somebody out"]).await.unwrap();
    gateway.log().line_with(&["stream ended", "\"reason\":\"session\""]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_a_browser_signs_in_by_a_code() {
    let echo = Echo::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let mut login = cli.device_login().unwrap();
    let page = login.errors.find("the page", |line| Url::parse(line.trim()).ok()).await.unwrap();
    let code = login.errors.find("the code", |line| code_in(line).map(str::to_owned)).await.unwrap();

    let phone = Person::new("alice", &gateway.authority).unwrap();
    let asks = phone.open(&page).await.unwrap();
    let mut form = Form::first(&asks.text()).unwrap();
    form.fill("user_code", &code);
    form.fill("answer", "yes");
    // Two buttons of one name: a browser sends the one that is pressed.
    form.fields.dedup_by(|later, earlier| later.0 == earlier.0);
    let done = phone.submit(&asks, &form).await.unwrap();
    assert!(done.text().contains("The device is signed in"), "{}", done.text());
    assert!(login.wait().await.unwrap().success());

    let (_client, port) = cli.listen(DESTINATION).await.unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    wait::within("an echo", stream.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(cli.sign_ins(), 0, "no browser was opened");
}

/// A line that is a code: eight letters, perhaps with a dash between.
fn code_in(line: &str) -> Option<&str> {
    let letters = line.trim().bytes().filter(|byte| *byte != b'-');
    let is_code = letters.clone().count() == 8 && letters.clone().all(|byte| byte.is_ascii_uppercase());
    is_code.then_some(line.trim())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_comes_in_with_a_token_of_its_own() {
    let echo = Echo::start().await.unwrap();
    let route = Route::tcp(DESTINATION, echo.address).policy("[{allow: {and: [{groups: {has: deploy}}]}}]");
    let options = Options { more: WORKLOADS, ..Options::default() };
    let gateway = Gateway::start_with(&[route], &options).await.unwrap();
    let job = Person::new("nobody", &gateway.authority).unwrap();
    let issuer = Url::parse(&gateway.oidc.issuer).unwrap().join("/token").unwrap();
    let secret =
        [("client_id", "ci"), ("client_secret", CLIENT_SECRET), ("grant_type", "client_credentials")];
    let own = post(&job, &issuer, &secret).await;
    let own = own["access_token"].as_str().unwrap_or_else(|| panic!("{own}"));

    let exchange = gateway.url("localhost").unwrap().join("/.pomerium/api/v1/token").unwrap();
    let traded = |token: String| {
        let (job, exchange) = (&job, &exchange);
        async move {
            let form = [
                ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
                ("subject_token", token.as_str()),
            ];
            post(job, exchange, &form).await
        }
    };
    let (said, signature) = own.rsplit_once('.').unwrap();
    // Its last character may have bits that count for nothing; those of its first all count.
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    let forged = traded(format!("{said}.{other}{}", &signature[1..])).await;
    assert_eq!(forged["error"], "invalid_grant", "{forged}");
    let given = traded(own.to_owned()).await;
    let given = given["access_token"].as_str().unwrap_or_else(|| panic!("{given}"));

    let cli = Cli::new(&gateway, "nobody").unwrap();
    // By an option, by the environment, and by a file that the environment names.
    let file = cli.cache().with_file_name("token");
    std::fs::write(&file, format!("{given}\n")).unwrap();
    let listen = ["tcp", DESTINATION, "--listen", "127.0.0.1:0"];
    for (option, variable) in [
        (Some(given), None),
        (None, Some(("POMERIUM_SERVICE_ACCOUNT", given))),
        (None, Some(("POMERIUM_SERVICE_ACCOUNT_FILE", file.to_str().unwrap()))),
    ] {
        let mut command = cli.command(&listen).unwrap();
        command.args(option.map(|token| ["--service-account", token]).into_iter().flatten()).envs(variable);
        let client = Process::spawn("pomerium-cli of a job", &mut command, Input::None).unwrap();
        let port = loopback_port(&client, "").await.unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        wait::within("an echo", stream.read_exact(&mut heard)).await.unwrap().unwrap();
    }
    assert_eq!(cli.sign_ins(), 0, "no browser was opened");

    // A token that is refused is an error in words, and in JSON where that is asked for.
    let mut command = cli.command(&["tcp", DESTINATION, "--listen", "-", "--log-format", "json"]).unwrap();
    let output = command.env("POMERIUM_SERVICE_ACCOUNT", own).output().await.unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    let last: serde_json::Value = serde_json::from_str(errors.lines().last().unwrap()).unwrap();
    assert_eq!((output.status.code(), &last["exit"]), (Some(67), &67.into()), "{errors}");
    assert!(!errors.contains(own) && cli.sign_ins() == 0, "{errors}");
}
