//! A directory pushes people and groups (SCIM 2.0), and what it says holds at once.

use http::{Method, Request, StatusCode, header};
use serde_json::{Value, json};
use support::{
    app::App,
    cli::Cli,
    crowd::Crowd,
    echo::Echo,
    gateway::{Gateway, Options, Route},
    http::{Page, send},
    person::Person,
};

const DESTINATION: &str = "echo.corp.test:7";

/// Whoever is in the group `crew`, which no claim names.
const CREW: &str = "[{allow: {and: [{groups: {has: crew}}]}}]";

const TOKEN: &str = "the-directory-of-the-tests-own-token";

/// A directory with a bearer token.
struct Directory<'a> {
    gateway: &'a Gateway,
    host: &'static str,
    bearer: &'static str,
}

impl<'a> Directory<'a> {
    fn of(gateway: &'a Gateway) -> Self {
        Self { gateway, host: "authenticate.localhost", bearer: TOKEN }
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Page {
        let url = self.gateway.url(self.host).unwrap().join("/scim/v2/").unwrap().join(path).unwrap();
        let request = Request::builder()
            .method(method)
            .uri(url.as_str())
            .header(header::AUTHORIZATION, format!("Bearer {}", self.bearer))
            .header(header::CONTENT_TYPE, "application/scim+json")
            .body(if body.is_null() { String::new() } else { body.to_string() }.into())
            .unwrap();
        send(&self.gateway.authority.client_config(&[b"http/1.1"]).unwrap(), request).await.unwrap()
    }

    /// Makes a resource, and gives its id.
    async fn create(&self, path: &str, body: Value) -> String {
        let page = self.send(Method::POST, path, &body).await;
        assert_eq!(page.status, StatusCode::CREATED, "{}", page.text());
        assert_eq!(page.headers[header::CONTENT_TYPE], "application/scim+json");
        let created = document(&page);
        assert_eq!(page.headers[header::LOCATION], created["meta"]["location"].as_str().unwrap());
        created["id"].as_str().unwrap().to_owned()
    }

    async fn patch(&self, path: &str, operation: Value) {
        let page = self.send(Method::PATCH, path, &json!({"Operations": [operation]})).await;
        assert!(page.status.is_success(), "{}", page.text());
    }
}

fn document(page: &Page) -> Value {
    serde_json::from_slice(&page.body).unwrap_or_else(|error| panic!("{error}: {}", page.text()))
}

fn options() -> Options<'static> {
    Options { more: "scim_token: the-directory-of-the-tests-own-token\n", ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_directory_says_of_somebody_holds_at_once() {
    let (app, echo) = (App::start().await.unwrap(), Echo::start().await.unwrap());
    let routes = [
        Route::web("app.localhost", app.address).policy(CREW),
        Route::tcp(DESTINATION, echo.address).policy(CREW),
    ];
    let gateway = Gateway::start_with(&routes, &options()).await.unwrap();
    let directory = Directory::of(&gateway);
    let alice = Person::new("alice", &gateway.authority).unwrap();
    let url = gateway.url("app.localhost").unwrap();
    assert_eq!(alice.open(&url).await.unwrap().status, StatusCode::FORBIDDEN, "she is in no such group");

    let user = directory.create("Users", json!({"userName": "alice@corp.example", "active": true})).await;
    let group = directory.create("Groups", json!({"displayName": "crew"})).await;
    assert_eq!(alice.open(&url).await.unwrap().status, StatusCode::FORBIDDEN, "she is not in it");
    let (user_path, group_path) = (format!("Users/{user}"), format!("Groups/{group}"));
    let join = json!({"op": "add", "path": "members", "value": [{"value": user}]});
    directory.patch(&group_path, join.clone()).await;
    assert_eq!(alice.open(&url).await.unwrap().status, StatusCode::OK);

    let cli = Cli::new(&gateway, "alice").unwrap();
    let (_client, port) = cli.listen(DESTINATION).await.unwrap();
    let crowd = Crowd::open(port, 2).await.unwrap();
    let leave = json!({"op": "remove", "path": format!("members[value eq \"{user}\"]")});
    directory.patch(&group_path, leave).await;
    crowd.ends().await.unwrap();
    gateway.log().line_with(&["stream ended", "\"reason\":\"policy\""]).await.unwrap();
    assert_eq!(alice.open(&url).await.unwrap().status, StatusCode::FORBIDDEN);

    directory.patch(&group_path, join).await;
    let crowd = Crowd::open(port, 2).await.unwrap();
    directory.patch(&user_path, json!({"op": "Replace", "path": "active", "value": "False"})).await;
    crowd.ends().await.unwrap();
    gateway.log().line_with(&["stream ended", "\"reason\":\"session\""]).await.unwrap();
    let page = alice.open(&url).await.unwrap();
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    assert!(page.text().contains("deactivated"), "{}", page.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_finds_replaces_and_removes_what_it_pushed() {
    let gateway = Gateway::start_with(&[], &options()).await.unwrap();
    let directory = Directory::of(&gateway);
    let get = |path: &'static str| directory.send(Method::GET, path, &Value::Null);
    assert_eq!(document(&get("ServiceProviderConfig").await)["patch"]["supported"], true);
    assert_eq!(document(&get("Schemas").await)["totalResults"], 2);
    assert_eq!(document(&get("ResourceTypes/User").await)["endpoint"], "/Users");

    let user = json!({"userName": "bob@corp.example", "externalId": "00u2", "name": {"givenName": "Bob"}});
    let id = directory.create("Users", user.clone()).await;
    let again = directory.send(Method::POST, "Users", &user).await;
    assert_eq!((again.status, &document(&again)["scimType"]), (StatusCode::CONFLICT, &json!("uniqueness")));
    let found = document(&get("Users?filter=userName%20eq%20%22BOB%40corp.example%22&count=1").await);
    assert_eq!((&found["totalResults"], &found["Resources"][0]["id"]), (&json!(1), &json!(id)));
    let odd = get("Users?filter=userName%20co%20%22b%22").await;
    assert_eq!((odd.status, &document(&odd)["scimType"]), (StatusCode::BAD_REQUEST, &json!("invalidFilter")));

    let path = format!("Users/{id}");
    let replaced = json!({"userName": "robert@corp.example", "active": false});
    let replaced = directory.send(Method::PUT, &path, &replaced).await;
    assert_eq!((replaced.status, &document(&replaced)["active"]), (StatusCode::OK, &json!(false)));
    let deleted = directory.send(Method::DELETE, &path, &Value::Null).await;
    assert_eq!((deleted.status, deleted.body.len()), (StatusCode::NO_CONTENT, 0));
    let gone = directory.send(Method::GET, &path, &Value::Null).await;
    assert_eq!((gone.status, &document(&gone)["status"]), (StatusCode::NOT_FOUND, &json!("404")));
    let odd = directory.send(Method::PUT, "Users", &user).await;
    assert_eq!(odd.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_directory_reads_or_writes_it() {
    let app = App::start().await.unwrap();
    let routes = [Route::web("app.localhost", app.address)];
    let gateway = Gateway::start_with(&routes, &options()).await.unwrap();
    let directory = Directory::of(&gateway);
    let id = directory.create("Users", json!({"userName": "bob@corp.example"})).await;

    let stranger = Directory { bearer: "the-directory-of-the-tests-own-tokem", ..Directory::of(&gateway) };
    let admin = json!({"userName": "mallory@corp.example"});
    for (method, path) in [
        (Method::GET, "Users".to_owned()),
        (Method::GET, format!("Users/{id}")),
        (Method::GET, "Groups".to_owned()),
        (Method::GET, "ServiceProviderConfig".to_owned()),
        (Method::GET, "Nothing".to_owned()),
        (Method::POST, "Users".to_owned()),
        (Method::PUT, format!("Users/{id}")),
        (Method::PATCH, format!("Users/{id}")),
        (Method::DELETE, format!("Users/{id}")),
    ] {
        let page = stranger.send(method, &path, &admin).await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED, "{path}");
        assert!(page.headers[header::WWW_AUTHENTICATE].to_str().unwrap().starts_with("Bearer"));
        assert!(!page.text().contains("bob"), "{}", page.text());
    }

    // A person's session counts for nothing there.
    let alice = Person::new("alice", &gateway.authority).unwrap();
    alice.open(&gateway.url("app.localhost").unwrap()).await.unwrap();
    let users = gateway.url("authenticate.localhost").unwrap().join("/scim/v2/Users").unwrap();
    assert_eq!(alice.get(&users).await.unwrap().status, StatusCode::UNAUTHORIZED);

    // Elsewhere the path is an app's: no directory is on its host.
    let elsewhere = Directory { host: "app.localhost", ..Directory::of(&gateway) };
    let page = elsewhere.send(Method::GET, "Users", &Value::Null).await;
    assert!(page.status.is_redirection() || page.status == StatusCode::UNAUTHORIZED, "{}", page.status);
    assert!(!page.text().contains("bob"), "{}", page.text());
    assert_eq!(document(&directory.send(Method::GET, "Users", &Value::Null).await)["totalResults"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_there_is_no_directory() {
    let gateway = Gateway::start(&[]).await.unwrap();
    let page = Directory::of(&gateway).send(Method::GET, "Users", &Value::Null).await;
    assert_eq!(page.status, StatusCode::NOT_FOUND);
}
