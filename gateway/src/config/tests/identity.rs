//! Keys of sessions, of what a route asks of a sign-in, and of workloads.

use super::*;

#[test]
fn a_time_of_day_alone_ends_a_session_and_a_length_may_stand_beside_it() {
    let alone = good("session_expires_at: 03:00 Europe/Zurich\n").settings.cookie;
    assert!(alone.expire.is_none() && alone.expire_at.is_some());
    let both = good("session_expires_at: 03:00 Europe/Zurich\ncookie_expire: 8h\n").settings.cookie;
    assert_eq!(both.expire, Some(Duration::from_secs(8 * 3600)));
    assert_eq!(both.expire_at, alone.expire_at);
}

#[test]
fn a_route_may_ask_for_a_recent_and_strong_sign_in() {
    let asked =
        "to: http://a\n  sign_in_max_age: 15m\n  sign_in_acr_values: [phr, phrh]\n  sign_in_prompt: login\n";
    let demand = good(&route(asked)).settings.routes[0].sign_in.clone();
    assert_eq!(demand.max_age_seconds, Some(900));
    assert_eq!(demand.acr_values, ["phr", "phrh"]);
    assert_eq!(demand.prompt.map(|prompt| prompt.as_str()), Some("login"));
    for (wrong, why) in [
        ("sign_in_max_age: 10s", "must be at least 1m"),
        ("sign_in_max_age: 0", "must be at least 1m"),
        ("sign_in_prompt: none", "expected one of login, consent, select_account"),
        ("sign_in_acr_values: ['a b']", "expected a name without spaces"),
    ] {
        let said = errors(&route(&format!("to: http://a\n  {wrong}\n")));
        assert!(said.contains(why), "{wrong}: {said}");
    }
}

#[test]
fn workload_issuers_are_read_and_an_unbound_one_is_refused() {
    let text = "workload_issuers:\n- name: github\n  issuer: https://token.actions.githubusercontent.com\n  \
                audience: gateway\n  claims: {repository: [corp/app, corp/lib]}\n  groups: [ci]\n  expire: 10m\n";
    let issuers = good(text).settings.workload_issuers;
    assert_eq!(
        (issuers[0].name.as_str(), issuers[0].audiences.as_slice()),
        ("github", ["gateway".to_owned()].as_slice())
    );
    assert_eq!(
        issuers[0].claims,
        [("repository".to_owned(), vec!["corp/app".to_owned(), "corp/lib".to_owned()])]
    );
    assert_eq!((issuers[0].groups.len(), issuers[0].expire), (1, Duration::from_secs(600)));
    for (changed, why) in [
        (text.replace("  audience: gateway\n", ""), "audience: is missing"),
        (text.replace("issuer: https", "issuer: http"), "must begin with https://"),
        (text.replace("name: github", "name: git/hub"), "must be of letters"),
        (text.replace("groups", "group"), "did you mean \"groups\"?"),
        (format!("{text}{}", text.split_once('\n').unwrap().1), "another entry has this name"),
        ("workload_issuers: {}\n".to_owned(), "expected a list of issuers"),
    ] {
        let said = errors(&changed);
        assert!(said.contains(why), "{changed}: {said}");
    }
}
