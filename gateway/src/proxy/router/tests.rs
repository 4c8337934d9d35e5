//! The index against the plain search over all routes.

use proptest::prelude::*;

use super::*;
use crate::{
    authorize::Policy,
    config::{Methods, Target},
    session::demand::SignInDemand,
};

fn route(place: usize, from: RouteFrom) -> Arc<Route> {
    Arc::new(Route {
        sign_in: SignInDemand::default(),
        unreachable_grace: std::time::Duration::ZERO,
        client_authority: None,
        id: place.to_string(),
        name: String::new(),
        description: String::new(),
        logo_url: None,
        from_url: String::new(),
        from,
        target: Target::Response { status: http::StatusCode::OK, body: String::new() },
        policy: Policy::default(),
        proxy_protocol: None,
        timeout: None,
        idle_timeout: None,
        allow_websockets: false,
        pass_identity_headers: false,
        set_request_headers: Vec::new(),
        remove_request_headers: Vec::new(),
        set_response_headers: Vec::new(),
        remove_response_headers: Vec::new(),
        rewrite_response_headers: Vec::new(),
        show_error_details: false,
    })
}

fn any_host() -> impl Strategy<Value = HostPattern> {
    let wildcard = |text: &str| HostPattern::Wildcard(regex::Regex::new(text).unwrap());
    prop_oneof![
        prop::sample::select(vec!["a.example", "b.example"]).prop_map(|h| HostPattern::Exact(h.to_owned())),
        Just(wildcard("^.*\\.example$")),
        Just(wildcard("^a.*$")),
    ]
}

fn any_path() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        Just(PathMatch::Any),
        Just(PathMatch::Prefix("/a".to_owned())),
        Just(PathMatch::Exact("/a/b".to_owned())),
        Just(PathMatch::Regex(regex::Regex::new("/[ab]").unwrap())),
    ]
}

fn any_methods() -> impl Strategy<Value = Methods> {
    let some = prop::collection::vec(any_method(), 1..3);
    prop_oneof![Just(Methods::Any), some.prop_map(Methods::Only)]
}

fn any_method() -> impl Strategy<Value = Method> {
    prop::sample::select(vec![Method::GET, Method::POST, Method::OPTIONS])
}

fn any_from() -> impl Strategy<Value = RouteFrom> {
    let destination = prop::sample::select(vec!["db:1", "db:2", "ssh:22"]);
    prop_oneof![
        3 => (any_host(), prop::option::of(Just(8443)), any_path(), any_methods())
            .prop_map(|(host, port, path, methods)| RouteFrom::Http { host, port, path, methods }),
        1 => prop::collection::vec(destination, 1..3).prop_map(|texts| RouteFrom::Tcp {
            destinations: texts.into_iter().map(|text| text.parse().unwrap()).collect(),
        }),
    ]
}

proptest! {
    #[test]
    fn the_index_finds_what_a_search_over_all_routes_finds(
        froms in prop::collection::vec(any_from(), 0..12),
        host in prop::sample::select(vec!["a.example", "b.example", "c.example", "a", "other"]),
        port in prop::sample::select(vec!["", ":8443"]),
        path in prop::sample::select(vec!["/", "/a", "/a/b", "/b", "/c"]),
        method in any_method(),
        to in prop::sample::select(vec!["db:1", "db:2", "ssh:22", "ssh:23"]),
    ) {
        let routes: Vec<_> = froms.into_iter().enumerate().map(|(place, from)| route(place, from)).collect();
        let router = Router::new(routes.clone());
        let authority = Authority::parse(&format!("{host}{port}")).unwrap();
        let path = CanonicalPath::parse(path).unwrap();
        let id = |found: Option<&Arc<Route>>| found.map(|route| route.id.clone());
        let (host, port) = (authority.host(), authority.port());
        let searched = routes.iter().find(|route| takes(route, host, port, path.as_str(), &method));
        prop_assert_eq!(id(router.http(&authority, &path, &method)), id(searched));
        let to: Destination = to.parse().unwrap();
        let searched = routes.iter().find(
            |route| matches!(&route.from, RouteFrom::Tcp { destinations } if destinations.contains(&to)),
        );
        prop_assert_eq!(id(router.tcp(&to)), id(searched));
    }
}

#[test]
fn parameters_of_a_path_matter_where_another_route_or_another_answer_is_behind_them() {
    let policy = |ppl: &str| {
        let node = crate::yaml::parse(ppl).unwrap();
        Policy::build(Some(&node), &crate::authorize::ShortForms::default()).unwrap()
    };
    let on_app = |place: usize, path: PathMatch, policy: Policy| {
        let host = HostPattern::Exact("a.example".to_owned());
        let from = RouteFrom::Http { host, port: None, path, methods: Methods::Any };
        let mut made = route(place, from);
        Arc::get_mut(&mut made).unwrap().policy = policy;
        made
    };
    let admin = PathMatch::Prefix("/admin/".to_owned());
    let login = PathMatch::Exact("/login".to_owned());
    let by_path = policy("[{deny: {or: [{http_path: {starts_with: /files/secret}}]}}]");
    let router = Router::new(vec![
        on_app(0, admin, Policy::default()),
        on_app(1, login, Policy::default()),
        on_app(2, PathMatch::Any, by_path),
    ]);
    let authority = Authority::parse("a.example").unwrap();
    for (path, matters) in [
        ("/admin;x/secret", true),
        ("/admin%3Bx/secret", true),
        ("/login;x", true),
        ("/files;x/secret", true),
        ("/files;x/public", false),
        ("/files/secret;x", false),
        ("/admin/a;x", false),
        ("/page;jsessionid=1", false),
        ("/page", false),
    ] {
        let canonical = CanonicalPath::parse(path).unwrap();
        let taker = router.http(&authority, &canonical, &Method::GET).unwrap();
        let found = router.depends_on_parameters(taker, &authority, &canonical, &Method::GET);
        assert_eq!(found, matters, "{path}");
    }
}
