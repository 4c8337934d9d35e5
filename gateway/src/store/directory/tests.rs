use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::{
    scim::{
        filter::{Filter, GroupAttribute},
        resource::{Email, Group, Name},
    },
    store::{
        ProviderTokens,
        tests::places::{Place, on_both},
    },
};

on_both! {
    the_directory_says_the_groups_of_those_whom_it_knows_and_of_nobody_else,
    the_id_goes_before_the_name_and_the_name_before_an_address,
    an_address_of_two_people_gives_the_groups_of_neither_and_keeps_out_if_one_of_them_is_out,
    who_is_deactivated_is_out_at_once_and_old_sessions_do_not_come_back,
    a_session_that_begins_while_its_person_is_out_counts_for_nothing,
    who_is_removed_has_no_session_left,
    who_is_removed_stays_out_until_the_directory_names_them_again_or_is_forgotten,
    letters_that_look_alike_are_different_people,
    a_session_without_an_address_is_nobodys_by_address,
    a_program_is_nobody_in_the_directory,
    names_are_unique_and_members_are_there,
    what_is_looked_for_is_found_in_parts,
    the_directory_survives_a_restart_and_is_seen_from_beside,
}

const NOW: SystemTime = UNIX_EPOCH;

fn user(user_name: &str, external_id: Option<&str>, emails: &[&str]) -> User {
    let email = |value: &&str| Email { value: (*value).to_owned(), kind: None, is_primary: false };
    User {
        user_name: user_name.to_owned(),
        external_id: external_id.map(str::to_owned),
        display_name: None,
        name: Name::default(),
        emails: emails.iter().map(email).collect(),
        is_active: true,
    }
}

fn group(name: &str, members: &[&KeptUser]) -> Group {
    let members = members.iter().map(|user| user.meta.id.clone()).collect();
    Group { display_name: name.to_owned(), external_id: None, members }
}

fn session(id: &str, user_id: &str, email: &str) -> Session {
    Session {
        id: SessionId::new(id),
        user_id: crate::session::UserId::new(user_id),
        idp_id: "idp".to_owned(),
        email: email.to_owned(),
        name: String::new(),
        groups: vec!["claimed".to_owned()],
        claims: [("sub".to_owned(), vec![user_id.into()])].into(),
        issued_at: NOW,
        expires_at: NOW + Duration::from_secs(3600),
        bound_to: None,
        vouched_until: None,
        proof: None,
    }
}

async fn with_alice(place: &Place) -> (Store, SessionId) {
    let store = place.open().await;
    let alice = session("s1", "sub-alice", "alice@corp.example");
    store.put_session(&alice, &ProviderTokens::none()).await.unwrap();
    (store, alice.id)
}

async fn groups_of(store: &Store, id: &SessionId) -> Option<Vec<String>> {
    store.session(id).await.unwrap().map(|session| session.groups.clone())
}

fn refusal<T: std::fmt::Debug>(result: Result<T, DirectoryError>) -> ScimError {
    match result {
        Err(DirectoryError::Refused(refused)) => refused,
        other => panic!("{other:?}"),
    }
}

async fn the_directory_says_the_groups_of_those_whom_it_knows_and_of_nobody_else(place: &Place) {
    let (store, id) = with_alice(place).await;
    assert_eq!(groups_of(&store, &id).await.unwrap(), ["claimed"]);
    let bob = store.add_directory_user(&user("bob@corp.example", None, &[]), NOW).await.unwrap();
    store.add_directory_group(&group("admins", &[&bob]), NOW).await.unwrap();
    assert_eq!(groups_of(&store, &id).await.unwrap(), ["claimed"], "not hers");

    let alice = store.add_directory_user(&user("Alice@corp.example", None, &[]), NOW).await.unwrap();
    assert!(groups_of(&store, &id).await.unwrap().is_empty(), "she is in none");
    let changes = store.changes();
    let before = *changes.borrow();
    let (staff, _) = store.add_directory_group(&group("staff", &[&alice]), NOW).await.unwrap();
    assert_eq!(groups_of(&store, &id).await.unwrap(), ["staff"]);
    assert!(*changes.borrow() > before, "who holds something open hears of it");

    store
        .change_directory_group(&staff.id, |old| Ok(Group { display_name: "crew".to_owned(), ..old }), NOW)
        .await
        .unwrap();
    assert_eq!(groups_of(&store, &id).await.unwrap(), ["crew"]);
    store.remove_directory_group(&staff.id).await.unwrap();
    assert!(groups_of(&store, &id).await.unwrap().is_empty());
}

async fn the_id_goes_before_the_name_and_the_name_before_an_address(place: &Place) {
    let (store, id) = with_alice(place).await;
    let address = user("a1", None, &["ALICE@corp.example"]);
    let named = user("alice@corp.example", None, &["x@corp.example"]);
    let by_id = user("z", Some("sub-alice"), &[]);
    for (name, user) in [("by-address", address), ("by-name", named), ("by-id", by_id)] {
        let kept = store.add_directory_user(&user, NOW).await.unwrap();
        store.add_directory_group(&group(name, &[&kept]), NOW).await.unwrap();
        assert_eq!(groups_of(&store, &id).await.unwrap(), [name]);
    }
}

async fn an_address_of_two_people_gives_the_groups_of_neither_and_keeps_out_if_one_of_them_is_out(
    place: &Place,
) {
    let (store, id) = with_alice(place).await;
    let one = store.add_directory_user(&user("a1", None, &["alice@corp.example"]), NOW).await.unwrap();
    store.add_directory_group(&group("admins", &[&one]), NOW).await.unwrap();
    assert_eq!(groups_of(&store, &id).await.unwrap(), ["admins"]);
    store.add_directory_user(&user("a2", None, &["alice@corp.example"]), NOW).await.unwrap();
    assert!(groups_of(&store, &id).await.unwrap().is_empty());
    let out = |old| Ok(User { is_active: false, ..old });
    store.change_directory_user(&one.meta.id, out, NOW).await.unwrap();
    assert_eq!(groups_of(&store, &id).await, None);
}

async fn who_is_deactivated_is_out_at_once_and_old_sessions_do_not_come_back(place: &Place) {
    let (store, id) = with_alice(place).await;
    let other = session("s2", "sub-bob", "bob@corp.example");
    store.put_session(&other, &ProviderTokens::none()).await.unwrap();
    let alice = store.add_directory_user(&user("alice@corp.example", None, &[]), NOW).await.unwrap();
    assert!(groups_of(&store, &id).await.is_some());
    // Even where the same change gives her another name.
    let out = |old| Ok(User { is_active: false, user_name: "gone".to_owned(), ..old });
    store.change_directory_user(&alice.meta.id, out, NOW).await.unwrap();
    assert_eq!(groups_of(&store, &id).await, None);
    assert!(groups_of(&store, &other.id).await.is_some(), "nobody else is out");

    let back = |old| Ok(User { is_active: true, user_name: "alice@corp.example".to_owned(), ..old });
    store.change_directory_user(&alice.meta.id, back, NOW).await.unwrap();
    assert_eq!(groups_of(&store, &id).await, None);
}

async fn a_session_that_begins_while_its_person_is_out_counts_for_nothing(place: &Place) {
    let (store, id) = with_alice(place).await;
    let out = User { is_active: false, ..user("alice@corp.example", None, &[]) };
    store.add_directory_user(&out, NOW).await.unwrap();
    assert_eq!(groups_of(&store, &id).await, None);
    let late = session("s3", "sub-alice", "alice@corp.example");
    store.put_session(&late, &ProviderTokens::none()).await.unwrap();
    assert_eq!(groups_of(&store, &late.id).await, None);
    assert!(store.is_deactivated(&late).await.unwrap());
    assert!(!store.is_deactivated(&session("s4", "sub-bob", "")).await.unwrap());
}

async fn who_is_removed_has_no_session_left(place: &Place) {
    let (store, id) = with_alice(place).await;
    let alice = store.add_directory_user(&user("a", Some("sub-alice"), &[]), NOW).await.unwrap();
    store.remove_directory_user(&alice.meta.id, NOW).await.unwrap();
    assert_eq!(groups_of(&store, &id).await, None);
    assert_eq!(refusal(store.directory_user(&alice.meta.id).await), ScimError::NotFound);
    assert_eq!(refusal(store.remove_directory_user(&alice.meta.id, NOW).await), ScimError::NotFound);
}

async fn who_is_removed_stays_out_until_the_directory_names_them_again_or_is_forgotten(place: &Place) {
    let store = place.open().await;
    let alice = session("s1", "sub-alice", "alice@corp.example");
    let named = user("alice@corp.example", None, &["a@corp.example"]);
    let kept = store.add_directory_user(&named, NOW).await.unwrap();
    let (staff, _) = store.add_directory_group(&group("staff", &[&kept]), NOW).await.unwrap();
    store.remove_directory_user(&kept.meta.id, NOW).await.unwrap();
    assert!(store.is_deactivated(&alice).await.unwrap(), "her claims do not count again");
    assert_eq!(refusal(store.change_directory_user(&kept.meta.id, Ok, NOW).await), ScimError::NotFound);
    let window = Window { skip: 0, count: 10 };
    let nobody = store.directory_users(&Filter::none(), window).await.unwrap();
    assert_eq!((nobody.total, nobody.items.len()), (0, 0));
    assert!(store.directory_group(&staff.id).await.unwrap().1.members.is_empty());
    let back = |old| Ok(Group { members: [kept.meta.id.clone()].into(), ..old });
    let refused = refusal(store.change_directory_group(&staff.id, back, NOW).await);
    assert!(matches!(refused, ScimError::InvalidValue(_)), "{refused:?}");

    let anew = store.add_directory_user(&user("renamed", None, &["A@corp.example"]), NOW).await.unwrap();
    assert!(!store.is_deactivated(&alice).await.unwrap(), "named again by an address");
    store.add_directory_user(&named, NOW).await.unwrap();
    assert_ne!(anew.meta.id, kept.meta.id);
    store.remove_directory_user(&anew.meta.id, NOW).await.unwrap();
    assert_eq!(store.forget_directory().await.unwrap(), 2);
    assert!(!store.is_deactivated(&alice).await.unwrap());
}

async fn letters_that_look_alike_are_different_people(place: &Place) {
    let store = place.open().await;
    // The Kelvin sign, whose lower case is an ordinary k.
    let kate = session("s1", "sub", "\u{212a}ate@corp.example");
    store.put_session(&kate, &ProviderTokens::none()).await.unwrap();
    let real = store.add_directory_user(&user("kate@corp.example", None, &[]), NOW).await.unwrap();
    store.add_directory_group(&group("admins", &[&real]), NOW).await.unwrap();
    assert_eq!(groups_of(&store, &kate.id).await.unwrap(), ["claimed"]);
}

async fn a_session_without_an_address_is_nobodys_by_address(place: &Place) {
    let store = place.open().await;
    let silent = session("s1", "sub-silent", "");
    store.put_session(&silent, &ProviderTokens::none()).await.unwrap();
    let alice = user("alice@corp.example", None, &["alice@corp.example"]);
    let alice = store.add_directory_user(&alice, NOW).await.unwrap();
    store.add_directory_group(&group("admins", &[&alice]), NOW).await.unwrap();
    assert_eq!(groups_of(&store, &silent.id).await.unwrap(), ["claimed"]);
}

async fn a_program_is_nobody_in_the_directory(place: &Place) {
    let store = place.open().await;
    let job = Session { idp_id: "workload/x".to_owned(), ..session("s1", "workload/ci/job", "") };
    store.put_session(&job, &ProviderTokens::none()).await.unwrap();
    let named_alike = user("j", Some("workload/ci/job"), &[]);
    let named_alike = store.add_directory_user(&named_alike, NOW).await.unwrap();
    store.add_directory_group(&group("admins", &[&named_alike]), NOW).await.unwrap();
    assert_eq!(groups_of(&store, &job.id).await.unwrap(), ["claimed"]);
    store.remove_directory_user(&named_alike.meta.id, NOW).await.unwrap();
    assert_eq!(groups_of(&store, &job.id).await.unwrap(), ["claimed"]);
}

async fn names_are_unique_and_members_are_there(place: &Place) {
    let store = place.open().await;
    let alice = store.add_directory_user(&user("alice", Some("1"), &[]), NOW).await.unwrap();
    let bob = store.add_directory_user(&user("bob", None, &[]), NOW).await.unwrap();
    for taken in [user("ALICE", None, &[]), user("other", Some("1"), &[])] {
        assert_eq!(refusal(store.add_directory_user(&taken, NOW).await), ScimError::Uniqueness);
    }
    let rename = |old| Ok(User { user_name: "Alice".to_owned(), ..old });
    assert_eq!(refusal(store.change_directory_user(&bob.meta.id, rename, NOW).await), ScimError::Uniqueness);
    let (staff, _) = store.add_directory_group(&group("staff", &[&alice]), NOW).await.unwrap();
    assert_eq!(refusal(store.add_directory_group(&group("Staff", &[]), NOW).await), ScimError::Uniqueness);
    let strange =
        |old: Group| Ok(Group { members: ["nobody".to_owned(), bob.meta.id.clone()].into(), ..old });
    assert!(matches!(
        refusal(store.change_directory_group(&staff.id, strange, NOW).await),
        ScimError::InvalidValue(_)
    ));
    let (_, kept) = store.directory_group(&staff.id).await.unwrap();
    assert_eq!(kept, group("staff", &[&alice]), "all of a change or nothing");
}

async fn what_is_looked_for_is_found_in_parts(place: &Place) {
    let store = place.open().await;
    let mut people = Vec::new();
    for name in ["a", "b", "c"] {
        people.push(store.add_directory_user(&user(name, None, &["x@corp.example"]), NOW).await.unwrap());
    }
    store.add_directory_group(&group("one", &[&people[0]]), NOW).await.unwrap();
    store.add_directory_group(&group("two", &[&people[0], &people[1]]), NOW).await.unwrap();
    let all = Window { skip: 0, count: 10 };
    let page = store.directory_users(&Filter::none(), Window { skip: 1, count: 1 }).await.unwrap();
    assert_eq!((page.total, page.items.len()), (3, 1));
    for (filter, total) in [
        ("userName eq \"B\"", 1),
        ("emails.value eq \"X@corp.example\"", 3),
        ("userName eq \"' OR 1=1 --\"", 0),
    ] {
        let filter = Filter::of_users(filter).unwrap();
        assert_eq!(store.directory_users(&filter, all).await.unwrap().total, total, "{filter:?}");
    }
    let member = |user: &KeptUser| Filter { all: vec![(GroupAttribute::Member, user.meta.id.clone())] };
    assert_eq!(store.directory_groups(&member(&people[0]), all).await.unwrap().total, 2);
    assert_eq!(store.directory_groups(&member(&people[2]), all).await.unwrap().total, 0);
    let kept = store.directory_user(&people[0].meta.id).await.unwrap();
    assert_eq!(kept.groups.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
}

async fn the_directory_survives_a_restart_and_is_seen_from_beside(place: &Place) {
    let store = place.open().await;
    let alice = session("s1", "sub-alice", "alice@corp.example");
    store.put_session(&alice, &ProviderTokens::none()).await.unwrap();
    let kept = store.add_directory_user(&user("a", Some("sub-alice"), &[]), NOW).await.unwrap();
    store.add_directory_group(&group("staff", &[&kept]), NOW).await.unwrap();
    let beside = place.open_beside().await;
    assert_eq!(groups_of(&beside, &alice.id).await.unwrap(), ["staff"]);
    let reader = place.reader().await;
    let groups = |session: Option<Session>| session.map(|session| session.groups).unwrap_or_default();
    let person = reader.person("alice@corp.example").await.unwrap().unwrap();
    assert_eq!(groups(person.session), ["staff"]);
    assert_eq!(groups(reader.people().await.unwrap().remove(0).session), ["staff"]);
    store.close().await;
    let store = place.open().await;
    assert_eq!(groups_of(&store, &alice.id).await.unwrap(), ["staff"]);
}
