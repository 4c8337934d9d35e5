use std::{collections::HashSet, time::UNIX_EPOCH};

use pomerium_shared::wireguard::{PeerState, PrivateKey};

use super::*;
use crate::store::{
    ProviderTokens,
    tests::places::{Place, on_both},
};

on_both! {
    addresses_are_of_one_peer_and_free_again_when_it_is_removed,
    a_person_has_so_many_peers_and_no_more,
    a_key_is_one_persons_and_never_anybodys_again,
    nobody_touches_somebody_elses_peer,
    a_peer_stands_on_the_newest_sign_in_and_waits_for_the_next_when_that_ends,
    a_session_that_lapsed_is_kept_for_its_peers_until_the_grace_is_over,
    a_peer_of_other_networks_does_not_come_in,
    what_another_process_does_with_peers_is_heard,
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

const FIVE: NonZeroU32 = NonZeroU32::new(5).unwrap();

fn session(id: &str, user: &str, issued: u64) -> Session {
    Session {
        id: SessionId::new(id),
        user_id: UserId::new(user),
        idp_id: "idp".into(),
        email: format!("{user}@example.com"),
        name: user.to_owned(),
        groups: vec![],
        claims: [].into(),
        issued_at: at(issued),
        expires_at: at(issued + 1_000),
        bound_to: None,
        vouched_until: None,
        proof: None,
    }
}

fn new_peer(seed: u8) -> NewPeer {
    NewPeer { name: "phone".parse().unwrap(), public_key: PrivateKey::from_random([seed; 32]).public_key() }
}

async fn signed_in(store: &Store, session: &Session) {
    store.put_session(session, &ProviderTokens::none()).await.unwrap();
}

async fn add(store: &Store, session: &Session, seed: u8) -> Result<Peer, AddPeerError> {
    store.add_peer(session, &new_peer(seed), &Networks::default(), FIVE, at(10)).await
}

/// Who may come in at a moment, by the session that each stands on.
async fn admitted(store: &Store, grace: u64, now: u64) -> Vec<String> {
    let grace = Duration::from_secs(grace);
    let all = store.admitted_peers(&Networks::default(), grace, at(now)).await.unwrap();
    all.into_iter().map(|admitted| admitted.session_id.to_string()).collect()
}

#[tokio::test]
async fn a_peer_survives_a_restart_and_its_secret_rests_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await.unwrap();
    let alice = session("s1", "alice", 0);
    signed_in(&store, &alice).await;
    let peer = add(&store, &alice, 1).await.unwrap();
    store.close().await;
    let store = Store::open(folder.path()).await.unwrap();
    assert_eq!(store.peers_of(&alice).await.unwrap(), [(peer.clone(), Some(at(1_000)))]);
    store.close().await;
    let secret = peer.preshared_key.expose();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    }
}

async fn addresses_are_of_one_peer_and_free_again_when_it_is_removed(place: &Place) {
    let store = place.open().await;
    let alice = session("s1", "alice", 0);
    signed_in(&store, &alice).await;
    // Room for two.
    let networks = Networks::new("10.9.0.0/29".parse().unwrap(), "fd00::/64".parse().unwrap()).unwrap();
    let add = async |seed| store.add_peer(&alice, &new_peer(seed), &networks, FIVE, at(10)).await;
    let (one, two) = (add(1).await.unwrap(), add(2).await.unwrap());
    let all: HashSet<IpAddr> =
        [&one, &two].iter().flat_map(|p| [p.addresses.v4.into(), IpAddr::from(p.addresses.v6)]).collect();
    assert_eq!(all.len(), 4);
    assert!(matches!(add(3).await, Err(AddPeerError::Exhausted)));
    assert!(store.remove_peer(&alice, &one.id, at(11)).await.unwrap());
    assert_eq!(add(3).await.unwrap().addresses, one.addresses);
}

async fn a_person_has_so_many_peers_and_no_more(place: &Place) {
    let store = place.open().await;
    let (alice, bob) = (session("s1", "alice", 0), session("s2", "bob", 0));
    signed_in(&store, &alice).await;
    signed_in(&store, &bob).await;
    let mut tasks = tokio::task::JoinSet::new();
    for seed in 1..=8 {
        let (store, alice) = (store.clone(), alice.clone());
        tasks.spawn(async move { add(&store, &alice, seed).await.is_ok() });
    }
    let added = tasks.join_all().await.into_iter().filter(|added| *added).count();
    assert_eq!(added, 5, "at once or one after the other");
    assert!(matches!(add(&store, &alice, 9).await, Err(AddPeerError::Limit)));
    // A revoked one still takes a place: it is in the list until it is removed.
    let first = store.peers_of(&alice).await.unwrap()[0].0.clone();
    assert!(store.revoke_peer(&first.id, at(11)).await.unwrap());
    assert!(matches!(add(&store, &alice, 9).await, Err(AddPeerError::Limit)));
    assert!(add(&store, &bob, 9).await.is_ok());
}

async fn a_key_is_one_persons_and_never_anybodys_again(place: &Place) {
    let store = place.open().await;
    let (alice, bob) = (session("s1", "alice", 0), session("s2", "bob", 0));
    signed_in(&store, &alice).await;
    signed_in(&store, &bob).await;
    let peer = add(&store, &alice, 1).await.unwrap();
    for who in [&alice, &bob] {
        assert!(matches!(add(&store, who, 1).await, Err(AddPeerError::KeyKnown)));
    }
    assert!(store.remove_peer(&alice, &peer.id, at(11)).await.unwrap());
    for who in [&alice, &bob] {
        assert!(matches!(add(&store, who, 1).await, Err(AddPeerError::KeyKnown)), "it was removed");
    }
}

async fn nobody_touches_somebody_elses_peer(place: &Place) {
    let store = place.open().await;
    let (alice, bob) = (session("s1", "alice", 0), session("s2", "bob", 0));
    // The same id at another provider is another person.
    let other = Session { idp_id: "other".into(), ..session("s3", "alice", 0) };
    for session in [&alice, &bob, &other] {
        signed_in(&store, session).await;
    }
    let peer = add(&store, &alice, 1).await.unwrap();
    let name: PeerName = "mine".parse().unwrap();
    for stranger in [&bob, &other] {
        assert_eq!(store.peers_of(stranger).await.unwrap(), []);
        assert!(!store.rename_peer(stranger, &peer.id, &name).await.unwrap());
        assert!(!store.remove_peer(stranger, &peer.id, at(11)).await.unwrap());
    }
    assert_eq!(admitted(&store, 0, 20).await, ["s1"], "another person's sign-in moves nothing");
    assert!(store.rename_peer(&alice, &peer.id, &name).await.unwrap());
    assert_eq!(store.peers_of(&alice).await.unwrap()[0].0.name, name);
    assert!(!store.remove_peer(&alice, &PeerId::new("none"), at(11)).await.unwrap());
}

async fn a_peer_stands_on_the_newest_sign_in_and_waits_for_the_next_when_that_ends(place: &Place) {
    let store = place.open().await;
    let first = session("s1", "alice", 0);
    signed_in(&store, &first).await;
    let peer = add(&store, &first, 1).await.unwrap();
    let mut changes = store.changes();
    changes.mark_unchanged();
    signed_in(&store, &session("s2", "alice", 100)).await;
    assert!(changes.has_changed().unwrap());
    assert_eq!(admitted(&store, 0, 200).await, ["s2"]);

    changes.mark_unchanged();
    assert!(store.end_session(&SessionId::new("s2")).await.unwrap());
    assert!(changes.has_changed().unwrap());
    assert_eq!(admitted(&store, 1_000, 200).await, [""; 0], "no grace for what was ended");
    assert_eq!(store.peers_of(&first).await.unwrap()[0].0.session_id, None, "it stays in the list");

    let renewed = session("s1", "alice", 300);
    assert!(store.renew_session(&renewed, &ProviderTokens::none()).await.unwrap());
    assert_eq!(admitted(&store, 0, 400).await, ["s1"]);

    changes.mark_unchanged();
    assert!(store.revoke_peer(&peer.id, at(401)).await.unwrap());
    assert!(changes.has_changed().unwrap());
    assert!(!store.revoke_peer(&peer.id, at(402)).await.unwrap());
    signed_in(&store, &session("s3", "alice", 500)).await;
    assert_eq!(admitted(&store, 0, 600).await, [""; 0], "a sign-in does not undo an administrator's word");
}

async fn a_session_that_lapsed_is_kept_for_its_peers_until_the_grace_is_over(place: &Place) {
    let store = place.open().await;
    let (alice, bob) = (session("s1", "alice", 0), session("s2", "bob", 0));
    signed_in(&store, &alice).await;
    signed_in(&store, &bob).await;
    let peer = add(&store, &alice, 1).await.unwrap();
    assert_eq!(admitted(&store, 0, 999).await, ["s1"]);
    assert_eq!(admitted(&store, 0, 1_000).await, [""; 0]);
    let grace = Duration::from_secs(100);
    assert_eq!(store.purge_expired(grace, at(1_050)).await.unwrap(), 1, "bob's");
    assert_eq!(admitted(&store, 100, 1_099).await, ["s1"]);
    assert_eq!(admitted(&store, 100, 1_100).await, [""; 0]);
    let kept = store.session(&alice.id).await.unwrap().unwrap();
    let behind = crate::wireguard_peer::session_behind((*kept).clone(), grace);
    assert!(behind.is_valid_at(at(1_099)) && !behind.is_valid_at(at(1_100)));
    assert_eq!(store.purge_expired(grace, at(1_100)).await.unwrap(), 1);
    let (peer, ends) = (peer, store.peers_of(&alice).await.unwrap()[0].1);
    assert_eq!(peer.state(&Networks::default(), ends, grace, at(1_100)), PeerState::SignedOut);
}

async fn a_peer_of_other_networks_does_not_come_in(place: &Place) {
    let store = place.open().await;
    let alice = session("s1", "alice", 0);
    signed_in(&store, &alice).await;
    let peer = add(&store, &alice, 1).await.unwrap();
    let others = Networks::new("10.0.0.0/16".parse().unwrap(), "fd12::/64".parse().unwrap()).unwrap();
    assert_eq!(store.admitted_peers(&others, Duration::ZERO, at(20)).await.unwrap(), []);
    assert_eq!(peer.state(&others, Some(at(1_000)), Duration::ZERO, at(20)), PeerState::Misplaced);
}

async fn what_another_process_does_with_peers_is_heard(place: &Place) {
    let gateway = place.open().await;
    let alice = session("s1", "alice", 0);
    signed_in(&gateway, &alice).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let mut follower = tokio::task::JoinSet::new();
    follower.spawn(gateway.clone().follow_outside_changes(stop.clone()));
    let mut changes = gateway.changes();
    let other = place.open().await;
    let heard = async |changes: &mut tokio::sync::watch::Receiver<u64>| {
        tokio::time::timeout(Duration::from_secs(2), changes.changed()).await.is_ok()
    };
    // Until the follower has looked once: it compares with that.
    let mut seed = 1;
    let peer = loop {
        let peer = add(&other, &alice, seed).await.unwrap();
        if heard(&mut changes).await {
            break peer;
        }
        other.remove_peer(&alice, &peer.id, at(11)).await.unwrap();
        seed += 1;
    };
    assert_eq!(admitted(&gateway, 0, 20).await, ["s1"]);
    signed_in(&other, &session("s2", "alice", 100)).await;
    assert!(heard(&mut changes).await, "a sign-in elsewhere");
    assert_eq!(admitted(&gateway, 0, 120).await, ["s2"]);
    assert!(other.revoke_peer(&peer.id, at(121)).await.unwrap());
    assert!(heard(&mut changes).await, "an administrator's word");
    assert_eq!(admitted(&gateway, 0, 122).await, [""; 0]);
    stop.cancel();
    follower.join_all().await;
}
