use proptest::prelude::*;

use super::*;

const GATEWAY: &str = "https://gate.example";

fn gateway(signed_in: bool) -> GatewayStatus {
    GatewayStatus {
        gateway: GATEWAY.to_owned(),
        signed_in,
        person: signed_in.then(|| "alice@corp.example".to_owned()),
        expires: signed_in.then(|| "2026-11-28T11:26:38Z".to_owned()),
        transport: Transport::Quic,
        round_trip_ms: Some(12),
        ..GatewayStatus::default()
    }
}

fn heard(gateways: Vec<GatewayStatus>) -> Event {
    Event::Heard(Some(DaemonStatus { gateways, ..DaemonStatus::default() }))
}

fn route(name: &str, kind: &str, from: &str) -> Route {
    serde_json::from_value(serde_json::json!({"name": name, "type": kind, "from": from})).unwrap()
}

/// All that a menu says, and all that it can do.
fn flat(menu: &[Entry]) -> (String, Vec<Action>) {
    let (mut text, mut actions) = (String::new(), Vec::new());
    for entry in menu {
        match entry {
            Entry::Text(line) => text.push_str(&format!("{line}\n")),
            Entry::Line => {}
            Entry::Do(line, action) => {
                text.push_str(&format!("{line}\n"));
                actions.push(action.clone());
            }
            Entry::More(line, more) => {
                let (below, some) = flat(more);
                text.push_str(&format!("{line}\n{below}"));
                actions.extend(some);
            }
        }
    }
    (text, actions)
}

#[test]
fn the_light_is_that_of_the_gateway_that_fares_worst() {
    let mut state = State::default();
    assert_eq!(state.view().light, Light::Off);
    let silent = GatewayStatus { round_trip_ms: None, ..gateway(true) };
    for (gateways, light) in [
        (vec![], Light::SignedOut),
        (vec![gateway(true)], Light::Good),
        (vec![gateway(true), silent], Light::Trouble),
        (vec![gateway(true), gateway(false)], Light::SignedOut),
    ] {
        state.handle(heard(gateways));
        assert_eq!(state.view().light, light);
    }
    state.handle(Event::Heard(None));
    assert_eq!(state.view().light, Light::Off);
}

#[test]
fn routes_are_asked_for_once_a_sign_in_and_can_be_copied_and_opened() {
    let mut state = State::default();
    let list = vec![Effect::ListRoutes(GATEWAY.to_owned())];
    assert_eq!(state.handle(heard(vec![gateway(true)])), list);
    let routes = vec![
        route("wiki", "http", "https://wiki.example"),
        route("db", "tcp", "tcp+https://db.example:5432"),
        route("x; reboot", "tcp", "tcp+https://x.example:1"),
    ];
    state.handle(Event::Routes(GATEWAY.to_owned(), routes));
    let held = RouteStatus {
        destination: "db.example:5432".to_owned(),
        listen: Some("127.70.1.2:5432".to_owned()),
        ..RouteStatus::default()
    };
    let with_forward = GatewayStatus { routes: vec![held], ..gateway(true) };
    assert_eq!(state.handle(heard(vec![with_forward])), []);
    let (text, actions) = flat(&state.view().menu);
    assert!(
        text.contains("alice@corp.example, until Nov 28, 11:26 UTC") && text.contains("QUIC, 12 ms"),
        "{text}"
    );
    for action in [
        Action::Open("https://wiki.example".to_owned()),
        Action::Copy("127.70.1.2:5432".to_owned()),
        Action::Copy("pomerium-cli connect 'x; reboot'".to_owned()),
    ] {
        assert!(actions.contains(&action), "{actions:?}");
    }
    state.handle(heard(vec![gateway(false)]));
    assert_eq!(state.handle(heard(vec![gateway(true)])), list, "somebody else may have signed in");
}

#[test]
fn impatient_clicks_open_one_window() {
    let mut state = State::default();
    state.handle(heard(vec![gateway(false)]));
    let sign_in = Action::SignIn(GATEWAY.to_owned());
    assert!(flat(&state.view().menu).1.contains(&sign_in));
    assert_eq!(state.handle(Event::Clicked(sign_in.clone())), [Effect::SignIn(GATEWAY.to_owned())]);
    assert_eq!(state.handle(Event::Clicked(sign_in.clone())), []);
    let (text, actions) = flat(&state.view().menu);
    assert!(text.contains("look at your browser") && !actions.contains(&sign_in), "{text}");
    assert_eq!(state.handle(Event::Done(sign_in.clone())), [Effect::Look], "what came of it shows at once");
    assert_eq!(state.handle(Event::Tick), [], "one question at a time");
    assert!(flat(&state.view().menu).1.contains(&sign_in), "one that failed may be tried again");
}

#[test]
fn a_page_that_waits_can_be_opened_again() {
    let mut state = State::default();
    let page = "https://id.example/x".to_owned();
    state.handle(heard(vec![GatewayStatus { sign_in_page: Some(page.clone()), ..gateway(false) }]));
    assert!(flat(&state.view().menu).1.contains(&Action::Open(page)));
}

#[test]
fn a_refusal_is_told_once_with_its_reason_and_the_newest_first() {
    let mut state = State::default();
    let refused = |total, why: &str| {
        let route = RouteStatus {
            destination: "db:1".to_owned(),
            streams_total: total,
            last_end: Some(why.to_owned()),
            ..RouteStatus::default()
        };
        heard(vec![GatewayStatus { routes: vec![route], ..gateway(true) }])
    };
    let why = |number: u64| {
        format!("pomerium-cli: cannot connect: you are not allowed (403); request id: {number}\n  Ask.")
    };
    for _ in 0..2 {
        state.handle(refused(1, &why(1)));
    }
    state.handle(refused(2, "stream ended: app"));
    assert_eq!(state.refusals.len(), 1);
    for number in 3..20 {
        state.handle(refused(number, &why(number)));
    }
    assert_eq!(state.refusals.len(), REFUSALS_MAX);
    let (text, _) = flat(&state.view().menu);
    let place = |id: &str| text.find(id).unwrap_or_else(|| panic!("{id}: {text}"));
    assert!(place("id: 19") < place("id: 18") && !text.contains("Ask."), "{text}");
}

#[derive(Debug, Clone)]
enum Step {
    Hear(Option<Vec<bool>>),
    Routes(u8),
    Click(u8),
    Done,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        proptest::option::of(proptest::collection::vec(any::<bool>(), 0..3)).prop_map(Step::Hear),
        any::<u8>().prop_map(Step::Routes),
        any::<u8>().prop_map(Step::Click),
        Just(Step::Done),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_there_is_a_way_on(steps in proptest::collection::vec(step(), 0..40)) {
        let mut state = State::default();
        let (mut begun, mut ended) = (0, 0);
        for step in steps {
            let effects = match step {
                Step::Hear(gateways) => state.handle(match gateways {
                    None => Event::Heard(None),
                    Some(all) => heard(all.into_iter().map(gateway).collect()),
                }),
                Step::Routes(count) => {
                    let routes = (0..count).map(|n| route(&format!("r{n}"), "tcp", "tcp+https://a:1")).collect();
                    state.handle(Event::Routes(GATEWAY.to_owned(), routes))
                }
                Step::Click(which) => {
                    let (_, actions) = flat(&state.view().menu);
                    state.handle(Event::Clicked(actions[usize::from(which) % actions.len()].clone()))
                }
                Step::Done => {
                    ended += usize::from(state.busy.contains(GATEWAY));
                    state.handle(Event::Done(Action::SignIn(GATEWAY.to_owned())))
                }
            };
            begun += effects.iter().filter(|effect| matches!(effect, Effect::SignIn(_) | Effect::SignOut(_))).count();
            if state.status.is_none() {
                (begun, ended) = (0, 0);
            }
            prop_assert!(begun <= ended + 1, "two at a time");
            let view = state.view();
            let (text, actions) = flat(&view.menu);
            prop_assert!(actions.contains(&Action::Quit) && !view.title.is_empty());
            prop_assert!(text.lines().all(|line| line.chars().count() <= LABEL_LEN_MAX + 1));
        }
    }
}
