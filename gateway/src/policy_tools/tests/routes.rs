use pomerium_shared::destination::Destination;

use super::{
    super::routes::{Place, RouteError},
    routes,
};

const ROUTES: &str = r#"
- {name: public, from: "https://app.corp.example", prefix: /public, to: "http://a:1", policy: []}
- {name: app, from: "https://app.corp.example", to: "http://a:1", policy: []}
- {name: shadowed, from: "https://app.corp.example", path: /never, to: "http://a:1", policy: []}
- {name: wild, from: "https://*.wild.example:8443", to: "http://a:1", policy: []}
- {name: pattern, from: "https://re.corp.example", regex: "/v[0-9]+/.*", to: "http://a:1", policy: []}
- {name: db, from: "tcp+https://db.corp.example:5432", to: "tcp://a:1", policy: []}
"#;

fn found(route: &str, path: Option<&str>) -> Result<(String, String), RouteError> {
    let routes = routes(ROUTES);
    routes.find(route, path, None).map(|(route, place)| (route.name.clone(), place.to_string()))
}

#[test]
fn a_route_is_found_by_name_id_and_url() {
    for (text, path, name, place) in [
        ("app", None, "app", "https://app.corp.example/"),
        ("public", None, "public", "https://app.corp.example/public/"),
        ("wild", None, "wild", "https://x.wild.example:8443/"),
        ("pattern", Some("/v1/x"), "pattern", "https://re.corp.example/v1/x"),
        ("db", None, "db", "tcp+https://db.corp.example:5432"),
        ("https://app.corp.example/a/../public/x?q#f", None, "public", "https://app.corp.example/public/x"),
        ("https://app.corp.example/x", Some("/public"), "public", "https://app.corp.example/public"),
        ("https://APP.corp.example", None, "app", "https://app.corp.example/"),
        (
            "tcp+https://gateway.corp.example/db.corp.example:5432/",
            None,
            "db",
            "tcp+https://db.corp.example:5432",
        ),
    ] {
        assert_eq!(found(text, path), Ok((name.to_owned(), place.to_owned())), "{text}");
    }
    let routes = routes(ROUTES);
    let id = routes.named("db").unwrap().id.clone();
    assert_eq!(found(&id, None).unwrap().0, "db");
}

#[test]
fn a_route_that_would_not_take_the_request_is_not_explained() {
    let taken = RouteError::TakenBy {
        place: "https://app.corp.example/public/x".to_owned(),
        by: "public".to_owned(),
        name: "app".to_owned(),
    };
    assert_eq!(found("app", Some("/public/x")), Err(taken));
    assert!(matches!(found("shadowed", None), Err(RouteError::Pattern(_))));
    assert!(matches!(found("pattern", None), Err(RouteError::Pattern(_))));
    assert!(matches!(found("pattern", Some("/x")), Err(RouteError::NoneTakes(_))));
    assert!(matches!(found("nobody", None), Err(RouteError::NoSuchName(_))));
    assert!(matches!(found("https://other.example", None), Err(RouteError::NoneTakes(_))));
    assert!(matches!(found("db", Some("/x")), Err(RouteError::BadPath(_))));
    assert!(matches!(found("app", Some("/a%2fb")), Err(RouteError::BadPath(_))));
    for text in
        ["ftp://app.corp.example", "https://", "https://u@app.corp.example", "tcp+https://db.corp.example"]
    {
        assert!(matches!(found(text, None), Err(RouteError::BadUrl(_))), "{text}");
    }
}

#[test]
fn a_recorded_request_goes_where_the_candidate_sends_it() {
    let routes = routes(ROUTES);
    let id = |name: &str| routes.named(name).unwrap().id.clone();
    let of = |id: &str, name: &str, method: &str, host: &str, path: &str| {
        routes.recorded(id, name, method, host, path).map(|route| route.name.clone())
    };
    assert_eq!(of("gone", "app", "GET", "app.corp.example", "/public/x").as_deref(), Some("public"));
    assert_eq!(of(&id("app"), "old name", "GET", "app.corp.example", "/x").as_deref(), Some("app"));
    // The port of the route that took it then counts; what came by another port is another request.
    assert_eq!(of(&id("wild"), "wild", "GET", "a.wild.example", "/").as_deref(), Some("wild"));
    assert_eq!(of("gone", "gone", "GET", "a.wild.example", "/").as_deref(), Some("wild"));
    assert_eq!(of(&id("app"), "app", "GET", "a.wild.example", "/"), None);
    assert_eq!(of("gone", "db", "CONNECT", "db.corp.example", "").as_deref(), Some("db"));
    assert_eq!(of("gone", "gone", "CONNECT", "db.corp.example", "").as_deref(), Some("db"));
    assert_eq!(of(&id("db"), "db", "CONNECT", "other.corp.example", ""), None);
    assert_eq!(of("gone", "gone", "GET", "nowhere.example", "/"), None);
}

#[test]
fn a_path_whose_parameters_matter_is_not_explained() {
    let routes = routes(
        r#"
- {name: admin, from: "https://app.corp.example", prefix: /admin/, to: "http://a:1", policy: []}
- {name: app, from: "https://app.corp.example", to: "http://a:1", policy: []}
"#,
    );
    let found = |text: &str, path| routes.find(text, path, None).map(|(route, _)| route.name.clone());
    assert_eq!(found("https://app.corp.example/page;jsessionid=1", None).as_deref(), Ok("app"));
    assert!(matches!(found("https://app.corp.example/admin;x/y", None), Err(RouteError::BadPath(_))));
    assert!(matches!(found("app", Some("/admin;x/y")), Err(RouteError::BadPath(_))));
}

#[test]
fn a_method_leads_to_the_route_that_takes_it() {
    let routes = routes(
        r#"
- {name: read, from: "https://app.corp.example", methods: [GET, HEAD], to: "http://a:1", policy: []}
- {name: write, from: "https://app.corp.example", methods: [POST], to: "http://a:1", policy: []}
"#,
    );
    let found = |text: &str, method| {
        routes.find(text, None, method).map(|(route, place)| format!("{} {}", route.name, place.method()))
    };
    assert_eq!(found("https://app.corp.example/x", None).as_deref(), Ok("read GET"));
    assert_eq!(found("https://app.corp.example/x", Some("POST")).as_deref(), Ok("write POST"));
    assert_eq!(found("write", None).as_deref(), Ok("write POST"));
    assert!(matches!(found("write", Some("GET")), Err(RouteError::TakenBy { .. })));
    assert!(matches!(found("https://app.corp.example/x", Some("PUT")), Err(RouteError::NoneTakes(_))));
    assert!(matches!(found("write", Some("G T")), Err(RouteError::BadMethod(_))));
    let recorded = |method| routes.recorded("gone", "gone", method, "app.corp.example", "/x");
    assert_eq!(recorded("POST").map(|route| route.name.as_str()), Some("write"));
    assert!(recorded("PUT").is_none());
}

#[test]
fn a_place_is_what_policy_sees() {
    let place = Place::parse("tcp+https://DB.corp.example:5432", None).unwrap();
    assert_eq!(place, Place::Tcp(Destination::new("db.corp.example", 5432).unwrap()));
    assert_eq!((place.host(), place.path(), place.method()), ("db.corp.example", "", "CONNECT"));
}
