//! Envoy's authorization protocol, asked with messages from Envoy's published proto files.

use std::{sync::Arc, time::SystemTime};

use http::header;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::ClientConfig;
use rustls_pki_types::PrivateKeyDer;
use serde_json::json;
use support::{
    app::App,
    authority::Authority,
    envoy::{Answer, Envoy, question},
    form::Form,
    gateway::{Gateway, Options, Route, SHARED_SECRET},
    person::Person,
    port, token,
};
use url::Url;

struct Parts {
    app: App,
    gateway: Gateway,
    door: u16,
}

impl Parts {
    async fn start(more: &str) -> anyhow::Result<Self> {
        let app = App::start().await?;
        let door = port::reserve()?;
        let more = format!("grpc_address: 127.0.0.1:{door}\n{more}");
        let routes = [Route::web("app.localhost", app.address)];
        let gateway =
            Box::pin(Gateway::start_with(&routes, &Options { more: &more, ..Options::default() })).await?;
        Ok(Self { app, gateway, door })
    }

    fn url(&self) -> Url {
        self.gateway.url("app.localhost").unwrap()
    }

    async fn person(&self, name: &str) -> String {
        let person = Person::new(name, &self.gateway.authority).unwrap();
        person.open(&self.url()).await.unwrap();
        person.cookie(&self.url(), "_pomerium").expect("the sign-in left a session")
    }
}

/// What services prove themselves with.
fn service_token() -> String {
    token::signed(&json!({ "exp": soon() }), &SHARED_SECRET)
}

#[expect(clippy::disallowed_methods, reason = "a caller of the gateway has a clock of its own")]
fn soon() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 60
}

async fn ask(envoy: &Envoy, url: &Url, headers: &[(&str, &str)]) -> Answer {
    let token = service_token();
    let asking = envoy.ask(Some(&token), question(url, headers));
    asking.await.unwrap()
}

#[track_caller]
fn denied(answer: Answer) -> (i32, http::HeaderMap, String) {
    match answer {
        Answer::Denied { status, headers, body } => (status, headers, body),
        allowed @ Answer::Ok { .. } => panic!("{allowed:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alice_passes_with_her_identity_and_without_her_credential() {
    let parts = Parts::start("").await.unwrap();
    let session = parts.person("alice").await;
    let envoy = Envoy::connect(parts.door, None).await.unwrap();
    let cookies = format!("theme=dark; _pomerium={session}");
    let sent = [
        ("cookie", cookies.as_str()),
        ("x-pomerium-claim-email", "mallory@evil.test"),
        ("x-pomerium-claim-groups", "admins"),
        ("x_pomerium_jwt_assertion", "forged"),
        ("x-forwarded-for", "192.0.2.7"),
    ];
    let Answer::Ok { set, mut removed } = ask(&envoy, &parts.url(), &sent).await else { panic!("she may") };
    assert_eq!(set["x-pomerium-claim-email"], "alice@corp.example");
    assert_eq!(set["cookie"], "theme=dark");
    let claims = token::claims(&set["x-pomerium-jwt-assertion"]).unwrap();
    assert_eq!((&claims["email"], &claims["aud"]), (&json!("alice@corp.example"), &json!("app.localhost")));
    removed.sort();
    assert_eq!(
        removed,
        ["x-pomerium-claim-groups", "x_pomerium_jwt_assertion"],
        "x-forwarded-for is Envoy's own"
    );

    let token = format!("Pomerium {session}");
    let sent = [("authorization", token.as_str())];
    let Answer::Ok { set, removed } = ask(&envoy, &parts.url(), &sent).await else { panic!("she may") };
    assert!(removed == ["authorization"] && !set.contains_key("cookie"), "{set:?} {removed:?}");
    let line = parts.gateway.log().line_with(&["authorize check", "192.0.2.7", "alice@corp.example"]).await;
    assert!(line.is_ok(), "the log has the client's address, not Envoy's");
}

#[tokio::test(flavor = "multi_thread")]
async fn bob_and_strangers_get_what_the_gateway_itself_would_answer() {
    let parts = Parts::start("").await.unwrap();
    let session = format!("_pomerium={}", parts.person("bob").await);
    let envoy = Envoy::connect(parts.door, None).await.unwrap();
    let sent = [("cookie", session.as_str()), ("accept", "text/html")];
    let (status, _, body) = denied(ask(&envoy, &parts.url(), &sent).await);
    assert_eq!(status, 403);
    assert!(body.contains("bob@corp.example") && body.contains("email-unauthorized"), "{body}");

    let (status, headers, _) = denied(ask(&envoy, &parts.url(), &[("accept", "text/html")]).await);
    let location = headers[header::LOCATION].to_str().unwrap().to_owned();
    assert_eq!(status, 302);
    assert!(location.starts_with("https://authenticate.localhost:"), "{location}");
    assert!(
        headers[header::SET_COOKIE].to_str().unwrap().starts_with("__Host-_pomerium_login="),
        "{headers:?}"
    );

    let (status, ..) = denied(ask(&envoy, &parts.url(), &[("accept", "application/json")]).await);
    assert_eq!(status, 401);
    let other = parts.gateway.url("other.localhost").unwrap();
    assert_eq!(denied(ask(&envoy, &other, &[]).await).0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_ends_where_envoy_stands() {
    let parts = Parts::start("").await.unwrap();
    let alice = Person::new("alice", &parts.gateway.authority).unwrap();
    let callback = alice.open_until(&parts.url(), |url| url.path() == "/.pomerium/callback/").await.unwrap();
    let binding = alice.cookie(&callback, "__Host-_pomerium_login").unwrap();
    let envoy = Envoy::connect(parts.door, None).await.unwrap();
    let cookie = format!("__Host-_pomerium_login={binding}");
    let (status, headers, _) = denied(ask(&envoy, &callback, &[("cookie", &cookie)]).await);
    assert_eq!((status, headers[header::LOCATION].to_str().unwrap()), (302, parts.url().as_str()));
    let set = headers[header::SET_COOKIE].to_str().unwrap();
    let session = set.split(';').next().unwrap();
    let Answer::Ok { .. } = ask(&envoy, &parts.url(), &[("cookie", session)]).await else {
        panic!("she may")
    };
    let (status, ..) = denied(ask(&envoy, &callback, &[("cookie", &cookie)]).await);
    assert_eq!(status, 400, "a hand-over works once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_leaves_something_open_is_a_no_within_the_protocol() {
    let parts = Parts::start("").await.unwrap();
    let session = format!("_pomerium={}", parts.person("alice").await);
    let envoy = Envoy::connect(parts.door, None).await.unwrap();
    let whole = question(&parts.url(), &[("cookie", session.as_str())]);
    assert!(matches!(envoy.ask(Some(&service_token()), whole.clone()).await.unwrap(), Answer::Ok { .. }));
    let mut unknown = whole.clone();
    unknown.attributes.as_mut().unwrap().source = None;
    let mut nothing = whole.clone();
    nothing.attributes.as_mut().unwrap().request = None;
    let mut plain = whole.clone();
    let http =
        |check: &mut envoy_types::pb::envoy::service::auth::v3::CheckRequest,
         change: fn(&mut envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest)| {
            change(check.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap());
        };
    http(&mut plain, |http| http.scheme = "http".to_owned());
    let mut tunnel = whole.clone();
    http(&mut tunnel, |http| http.method = "CONNECT".to_owned());
    let mut dots = whole.clone();
    http(&mut dots, |http| http.path = "/public/../admin".to_owned());
    for (what, check) in [
        ("nothing", Default::default()),
        ("no source", unknown),
        ("no request", nothing),
        ("no TLS", plain),
        ("a tunnel", tunnel),
        ("dots", dots),
    ] {
        let (status, _, body) = denied(envoy.ask(Some(&service_token()), check).await.unwrap());
        assert_eq!(status, 400, "{what}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_services_of_ours_are_answered() {
    let parts = Parts::start("").await.unwrap();
    let session = parts.person("alice").await;
    let mut envoy = Envoy::connect(parts.door, None).await.unwrap();
    for (what, token) in [
        ("nothing", None),
        ("a session's handle", Some(session)),
        ("another key", Some(token::signed(&json!({ "exp": soon() }), b"another key of thirty-two bytes!"))),
        ("expired", Some(token::signed(&json!({ "exp": soon() - 61 }), &SHARED_SECRET))),
        ("more than an end", Some(token::signed(&json!({ "exp": soon(), "sub": "x" }), &SHARED_SECRET))),
        ("unsigned", Some(token::unsigned(&json!({ "exp": soon() })))),
    ] {
        let refused = envoy.ask(token.as_deref(), question(&parts.url(), &[])).await.unwrap_err();
        assert!(format!("{refused:#}").contains("valid authentication credentials"), "{what}: {refused:#}");
    }
    let unimplemented = "12";
    let path = "/envoy.service.auth.v3.Authorization/Other";
    assert_eq!(envoy.call(path, &service_token()).await.unwrap(), unimplemented);
    let healthy = envoy.call("/grpc.health.v1.Health/Check", "nobody").await.unwrap();
    assert_eq!(healthy, "0", "a load balancer has no token");
    let long = "x".repeat(2 * 1024 * 1024);
    let refused = envoy.ask(Some(&service_token()), question(&parts.url(), &[("x-long", &long)])).await;
    assert!(refused.is_err(), "a question is bounded");
    assert_eq!(denied(ask(&envoy, &parts.url(), &[]).await).0, 302, "and the connection goes on");
    assert_eq!(parts.app.requests(), 1, "no question reaches the app: this was alice when she signed in");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_may_prove_themselves_by_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Callers::create().unwrap();
    let file = folder.path().join("callers.pem");
    std::fs::write(&file, &ours.root).unwrap();
    let more = format!("grpc_client_ca_file: {}\n", file.display());
    let parts = Parts::start(&more).await.unwrap();

    let tls = ours.client_config(&parts.gateway.authority).unwrap();
    let envoy = Envoy::connect(parts.door, Some(&tls)).await.unwrap();
    let answer = envoy.ask(None, question(&parts.url(), &[])).await.unwrap();
    assert_eq!(denied(answer).0, 302, "the certificate is enough");

    let foreign = Callers::create().unwrap().client_config(&parts.gateway.authority).unwrap();
    let none = parts.gateway.authority.client_config(&[b"h2"]).unwrap();
    for (what, tls) in [("a foreign certificate", Some(foreign)), ("none", Some(none)), ("no TLS", None)] {
        let asking = async {
            let envoy = Envoy::connect(parts.door, tls.as_ref()).await?;
            envoy.ask(Some(&service_token()), question(&parts.url(), &[])).await
        };
        assert!(asking.await.is_err(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn authorize_runs_in_a_process_of_its_own_and_forgets_who_signed_out() {
    let app = App::start().await.unwrap();
    let routes = [Route::web("app.localhost", app.address)];
    let gateway = Box::pin(Gateway::start(&routes)).await.unwrap();
    let door = port::reserve().unwrap();
    let more = format!("grpc_address: 127.0.0.1:{door}\ngrpc_insecure: true\n");
    let beside = gateway.spawn_beside(&["--services=authorize"], &more).unwrap();
    let lines = [&beside.output, &beside.errors].map(|log| Box::pin(log.line_with("gateway is up")));
    let [output, errors] = lines;
    tokio::select! { line = output => line.unwrap(), line = errors => line.unwrap() };

    let url = gateway.url("app.localhost").unwrap();
    let alice = Person::new("alice", &gateway.authority).unwrap();
    alice.open(&url).await.unwrap();
    let session = format!("_pomerium={}", alice.cookie(&url, "_pomerium").unwrap());
    let envoy = Envoy::connect(door, None).await.unwrap();
    let sent = [("cookie", session.as_str())];
    assert!(matches!(ask(&envoy, &url, &sent).await, Answer::Ok { .. }));

    let sign_out = gateway.url("authenticate.localhost").unwrap().join("/.pomerium/sign_out").unwrap();
    let asked = alice.open(&sign_out).await.unwrap();
    alice.submit(&asked, &Form::first(&asked.text()).expect("signing out asks once more")).await.unwrap();
    assert_eq!(denied(ask(&envoy, &url, &sent).await).0, 302);

    let own = url.join("/.pomerium/sign_out").unwrap();
    assert_eq!(denied(ask(&envoy, &own, &sent).await).0, 404, "it writes nothing");
}

/// An authority for callers, and a caller with a certificate from it.
struct Callers {
    root: String,
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Callers {
    fn create() -> anyhow::Result<Self> {
        let root_key = KeyPair::generate()?;
        let mut root = CertificateParams::new(Vec::new())?;
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let signed = root.self_signed(&root_key)?;
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(vec!["envoy.corp.test".to_owned()])?;
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = leaf.signed_by(&key, &Issuer::new(root, root_key))?;
        Ok(Self { root: signed.pem(), certificate, key })
    }

    fn client_config(&self, server: &Authority) -> anyhow::Result<Arc<ClientConfig>> {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).map_err(anyhow::Error::msg)?;
        server.client_config_with(&[b"h2"], vec![self.certificate.der().clone()], key)
    }
}
