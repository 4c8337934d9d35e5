pub(super) mod places;
mod postgres;

use std::{os::unix::fs::PermissionsExt, path::Path, time::Duration};

use self::places::{Place, on_both};
use super::*;
use crate::session::UserId;

on_both! {
    a_session_its_tokens_keys_and_single_uses_survive_a_restart,
    what_was_acknowledged_is_there_without_an_orderly_close,
    tokens_moved_to_another_session_do_not_open,
    what_one_process_ends_has_ended_in_the_one_beside_it,
    a_provider_ends_its_own_session_and_what_it_never_named_with_its_person,
    a_refresh_never_brings_back_an_ended_session_nor_moves_its_end,
    one_of_many_at_once_claims_and_a_row_goes_when_it_expires,
    only_sessions_with_a_refresh_token_come_due,
    people_are_read_with_their_newest_session_beside_an_open_store,
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn session(id: &str) -> Session {
    Session {
        id: SessionId::new(id),
        user_id: UserId::new("u1"),
        idp_id: "idp".into(),
        email: "alice@example.com".into(),
        name: "Alice".into(),
        groups: vec!["staff".into()],
        claims: [("email".to_owned(), vec!["alice@example.com".into()])].into(),
        issued_at: at(1_000),
        expires_at: at(51_400),
        bound_to: None,
        vouched_until: Some(at(4_600)),
        proof: None,
    }
}

fn tokens() -> ProviderTokens {
    ProviderTokens {
        access: Secret::new("access-canary".into()),
        refresh: Some(Secret::new("refresh-canary".into())),
        id_token: Secret::new("id-canary".into()),
        access_expires_at: Some(at(4_600)),
    }
}

fn folder_holds(folder: &Path, needle: &[u8]) -> bool {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .any(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
}

async fn a_session_its_tokens_keys_and_single_uses_survive_a_restart(place: &Place) {
    let store = place.open().await;
    store.put_session(&session("s1"), &tokens()).await.unwrap();
    let key = store.named_key("shared", || vec![7; 32]).await.unwrap();
    assert!(store.claim_once("k", at(100), at(1)).await.unwrap());
    store.close().await;
    drop(store);

    let store = place.open().await;
    assert_eq!(store.session(&SessionId::new("s1")).await.unwrap(), Some(Arc::new(session("s1"))));
    assert_eq!(store.tokens(&SessionId::new("s1")).await.unwrap(), Some(tokens()));
    assert_eq!(store.named_key("shared", || vec![8; 32]).await.unwrap(), key);
    assert!(!store.claim_once("k", at(100), at(2)).await.unwrap());
    assert_eq!(store.users().await.unwrap().len(), 1);
}

async fn what_was_acknowledged_is_there_without_an_orderly_close(place: &Place) {
    let first = place.open().await;
    first.put_session(&session("s1"), &tokens()).await.unwrap();
    let second = place.open().await;
    assert_eq!(second.session(&SessionId::new("s1")).await.unwrap(), Some(Arc::new(session("s1"))));
}

#[tokio::test]
async fn files_are_closed_to_others_and_hold_no_token_in_clear() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("state");
    let store = Store::open(&folder).await.unwrap();
    store.put_session(&session("s1"), &tokens()).await.unwrap();
    store.named_key("shared", || b"key-canary-key-canary".to_vec()).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for entry in std::fs::read_dir(&folder).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    assert!(folder_holds(&folder, b"alice@example.com"), "the search itself works");
    for canary in [&b"access-canary"[..], b"refresh-canary", b"id-canary", b"key-canary"] {
        assert!(!folder_holds(&folder, canary));
    }
}

#[tokio::test]
async fn a_foreign_master_key_opens_nothing_and_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await.unwrap();
    store.put_session(&session("s1"), &tokens()).await.unwrap();
    store.close().await;
    std::fs::write(folder.path().join(MASTER_KEY_FILE), [9; 32]).unwrap();
    let store = Store::open(folder.path()).await.unwrap();
    assert!(matches!(store.tokens(&SessionId::new("s1")).await, Err(StoreError::Sealed(_))));
    store.close().await;
    std::fs::write(folder.path().join(MASTER_KEY_FILE), b"short").unwrap();
    assert!(matches!(Store::open(folder.path()).await, Err(StoreError::Folder(_))));
    assert_eq!(std::fs::read(folder.path().join(MASTER_KEY_FILE)).unwrap(), b"short");
}

async fn tokens_moved_to_another_session_do_not_open(place: &Place) {
    let store = place.open().await;
    store.put_session(&session("s1"), &tokens()).await.unwrap();
    store.put_session(&session("s2"), &tokens()).await.unwrap();
    sqlx::query("UPDATE sessions SET tokens_sealed = (SELECT tokens_sealed FROM sessions WHERE id = 's1')")
        .execute(&store.inner.pool)
        .await
        .unwrap();
    assert!(store.tokens(&SessionId::new("s1")).await.is_ok());
    assert!(matches!(store.tokens(&SessionId::new("s2")).await, Err(StoreError::Sealed(_))));
    let due = store.sessions_due_for_refresh("idp", at(9_999)).await.unwrap();
    assert_eq!(due.len(), 1, "the damaged row does not hold up the sound one");
}

#[tokio::test]
async fn an_ended_session_is_gone_from_the_cache_and_followers_hear_of_it() {
    let store = Store::in_memory().await.unwrap();
    let changes = store.changes();
    store.put_session(&session("s1"), &tokens()).await.unwrap();
    let id = SessionId::new("s1");
    assert!(store.session(&id).await.unwrap().is_some());
    assert!(store.cache().sessions.contains_key(&id));
    let before = *changes.borrow();
    assert!(store.end_session(&id).await.unwrap());
    assert!(*changes.borrow() > before);
    assert_eq!(store.session(&id).await.unwrap(), None);
    assert!(!store.end_session(&id).await.unwrap());
}

async fn what_one_process_ends_has_ended_in_the_one_beside_it(place: &Place) {
    let writer = place.open().await;
    let beside = place.open_beside().await;
    writer.put_session(&session("s1"), &tokens()).await.unwrap();
    let id = SessionId::new("s1");
    assert!(beside.session(&id).await.unwrap().is_some());
    assert!(writer.end_session(&id).await.unwrap());
    assert_eq!(beside.session(&id).await.unwrap(), None);
}

async fn a_provider_ends_its_own_session_and_what_it_never_named_with_its_person(place: &Place) {
    let store = place.open().await;
    let with = |id: &str, claims: &[(&str, serde_json::Value)]| {
        let claims = claims.iter().map(|(name, value)| ((*name).to_owned(), vec![value.clone()]));
        Session { claims: claims.collect(), ..session(id) }
    };
    let (alice, first) = (("sub", "alice".into()), ("sid", "1".into()));
    let all = [
        with("named", &[alice.clone(), first.clone()]),
        with("other", &[alice.clone(), ("sid", "2".into())]),
        with("unnamed", std::slice::from_ref(&alice)),
        with("number", &[("sub", 7.into())]),
        Session { issued_at: at(2_000), ..with("later", &[alice, first]) },
    ];
    for one in &all {
        store.put_session(one, &tokens()).await.unwrap();
    }
    let end = async |subject, sid| store.end_provider_sessions("idp", subject, sid, at(1_000)).await.unwrap();
    assert_eq!(end(None, None).await, 0);
    assert_eq!(end(Some("7"), None).await, 0, "a number is no subject");
    assert_eq!(end(Some("bob"), Some("1")).await, 0);
    assert_eq!(end(Some("alice"), Some("1")).await, 2, "its own, and the one whose name it never told");
    assert_eq!(end(None, Some("1")).await, 0, "what began later is not meant");
    let renewed = with("other", &[("sub", "alice".into()), ("sid", "3".into())]);
    assert!(store.replace_session(&renewed, &tokens()).await.unwrap());
    assert_eq!(end(None, Some("2")).await, 0);
    assert_eq!(end(Some("alice"), None).await, 1);
}

async fn a_refresh_never_brings_back_an_ended_session_nor_moves_its_end(place: &Place) {
    let store = place.open().await;
    store.put_session(&session("s1"), &tokens()).await.unwrap();
    let changed = Session { email: "new@example.com".into(), expires_at: at(999_999), ..session("s1") };
    assert!(store.replace_session(&changed, &tokens()).await.unwrap());
    let kept = store.session(&changed.id).await.unwrap().unwrap();
    assert_eq!((kept.email.as_str(), kept.expires_at), ("new@example.com", at(51_400)));
    store.end_session(&changed.id).await.unwrap();
    assert!(!store.replace_session(&changed, &tokens()).await.unwrap());
    assert_eq!(store.session(&changed.id).await.unwrap(), None);
}

async fn one_of_many_at_once_claims_and_a_row_goes_when_it_expires(place: &Place) {
    let store = place.open().await;
    let claims = (0..8).map(|_| store.claim_once("k", at(100), at(1)));
    let won = futures_util::future::join_all(claims)
        .await
        .into_iter()
        .filter(|claim| *claim.as_ref().unwrap())
        .count();
    assert_eq!(won, 1);
    store.claim_once("other", at(300), at(101)).await.unwrap();
    let rows: i64 =
        sqlx::query_scalar("SELECT count(*) FROM claimed").fetch_one(&store.inner.pool).await.unwrap();
    assert_eq!(rows, 1);
}

async fn only_sessions_with_a_refresh_token_come_due(place: &Place) {
    let store = place.open().await;
    store.put_session(&session("s1"), &tokens()).await.unwrap();
    store.put_session(&session("s2"), &ProviderTokens { refresh: None, ..tokens() }).await.unwrap();
    assert!(store.sessions_due_for_refresh("idp", at(4_600)).await.unwrap().is_empty());
    let due = store.sessions_due_for_refresh("idp", at(4_601)).await.unwrap();
    assert_eq!(due.iter().map(|due| due.session.id.as_str()).collect::<Vec<_>>(), ["s1"]);
    assert_eq!(store.purge_expired(Duration::ZERO, at(51_400)).await.unwrap(), 2);
    assert_eq!(store.session(&SessionId::new("s1")).await.unwrap(), None);
}

/// Names, sizes and contents of the files of a folder.
fn files_of(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

async fn people_are_read_with_their_newest_session_beside_an_open_store(place: &Place) {
    let store = place.open().await;
    let bob = Session { user_id: UserId::new("u2"), email: "bob@example.com".into(), ..session("b1") };
    let newer = Session { issued_at: at(2_000), groups: vec!["sre".into()], ..session("s2") };
    for one in [&session("s1"), &newer, &bob] {
        store.put_session(one, &tokens()).await.unwrap();
    }
    store.end_session(&bob.id).await.unwrap();

    let reader = place.reader().await;
    for who in ["u1", "alice@example.com"] {
        assert_eq!(reader.person(who).await.unwrap().unwrap().session.as_ref(), Some(&newer), "{who}");
    }
    assert_eq!(reader.person("bob@example.com").await.unwrap().unwrap().session, None);
    assert_eq!(reader.person("ALICE@example.com").await.unwrap(), None, "another address");
    let people = reader.people().await.unwrap();
    let found: Vec<_> = people.iter().map(|known| (known.user.id.as_str(), known.session.clone())).collect();
    assert_eq!(found, [("u1", Some(newer)), ("u2", None)]);
    reader.close().await;
}

#[tokio::test]
async fn reading_people_makes_and_changes_nothing() {
    let empty = tempfile::tempdir().unwrap();
    assert!(StoreReader::open(empty.path()).await.unwrap().is_none());
    assert_eq!(files_of(empty.path()), []);

    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await.unwrap();
    store.put_session(&session("s1"), &tokens()).await.unwrap();
    store.close().await;
    let database = |files: Vec<(String, Vec<u8>)>| files.into_iter().find(|(name, _)| name == DATABASE_FILE);
    let before = database(files_of(folder.path()));
    let reader = StoreReader::open(folder.path()).await.unwrap().unwrap();
    assert_eq!(reader.people().await.unwrap().len(), 1);
    assert!(sqlx::query("DELETE FROM users").execute(&reader.pool).await.is_err());
    reader.close().await;
    assert_eq!(database(files_of(folder.path())), before);
}

#[tokio::test]
async fn sessions_from_before_their_claims_had_columns_are_found_by_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await.unwrap();
    let claims = [("sub".to_owned(), vec!["alice".into()]), ("sid".to_owned(), vec![7.into()])].into();
    store.put_session(&Session { claims, ..session("s1") }, &tokens()).await.unwrap();
    for undo in [
        "DROP INDEX sessions_by_subject",
        "DROP INDEX sessions_by_provider_session",
        "ALTER TABLE sessions DROP COLUMN subject",
        "ALTER TABLE sessions DROP COLUMN provider_session",
        "DROP INDEX directory_users_by_name",
        "DELETE FROM _sqlx_migrations WHERE version = 9",
        "CREATE INDEX sessions_by_subject ON sessions (idp_id, json_extract(claims_json, '$.sub[0]'))",
        "CREATE INDEX sessions_by_provider_session ON sessions (idp_id, json_extract(claims_json, '$.sid[0]'))",
    ] {
        sqlx::query(undo).execute(&store.inner.pool).await.unwrap();
    }
    store.close().await;
    let store = Store::open(folder.path()).await.unwrap();
    assert_eq!(store.end_provider_sessions("idp", None, Some("7"), at(9_999)).await.unwrap(), 0);
    assert_eq!(store.end_provider_sessions("idp", Some("alice"), Some("1"), at(9_999)).await.unwrap(), 1);
}

mod devices {
    use pomerium_shared::posture::PostureReport;
    use tokio_util::{sync::CancellationToken, task::TaskTracker};

    use super::*;
    use crate::device::{Device, Thumbprint};

    on_both! {
        the_first_bound_session_enrols_its_device_and_the_next_keeps_it,
        a_device_is_its_persons_alone,
        whoever_follows_hears_of_posture_and_approval_and_reads_the_new,
        a_removed_device_takes_its_sessions_along_and_nobody_elses,
        idle_devices_of_one_person_are_bounded,
        what_another_process_changes_is_heard_of,
    }

    fn bound(id: &str, key: &[u8]) -> Session {
        Session { bound_to: Some(Thumbprint::of(key)), ..session(id) }
    }

    async fn device(store: &Store) -> Device {
        store.device_of(&bound("s1", b"a"), at(0)).await.unwrap().unwrap()
    }

    async fn the_first_bound_session_enrols_its_device_and_the_next_keeps_it(place: &Place) {
        let store = place.open().await;
        store.put_session(&session("s0"), &tokens()).await.unwrap();
        assert_eq!(store.device_of(&session("s0"), at(0)).await.unwrap(), None);
        store.put_session(&bound("s1", b"a"), &tokens()).await.unwrap();
        assert!(store.approve_device(&device(&store).await, true).await.unwrap());
        store.put_session(&bound("s2", b"a"), &tokens()).await.unwrap();
        assert!(device(&store).await.is_approved);
        assert_eq!(store.devices(None).await.unwrap().len(), 1);
        assert_eq!(store.devices(Some(&UserId::new("other"))).await.unwrap(), []);
    }

    async fn a_device_is_its_persons_alone(place: &Place) {
        let store = place.open().await;
        store.put_session(&bound("s1", b"a"), &tokens()).await.unwrap();
        store.approve_device(&device(&store).await, true).await.unwrap();
        let bobs = Session { user_id: UserId::new("u2"), ..bound("s2", b"a") };
        store.put_session(&bobs, &tokens()).await.unwrap();
        assert!(!store.device_of(&bobs, at(0)).await.unwrap().unwrap().is_approved);
    }

    async fn whoever_follows_hears_of_posture_and_approval_and_reads_the_new(place: &Place) {
        let store = place.open().await;
        store.put_session(&bound("s1", b"a"), &tokens()).await.unwrap();
        let known = device(&store).await;
        let mut changes = store.changes();
        let report = PostureReport { firewall: Some(false), ..PostureReport::default() };
        assert!(store.put_posture(&known, &report, at(2_000)).await.unwrap());
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert_eq!(device(&store).await.posture, Some((report, at(2_000))));
        store.approve_device(&known, true).await.unwrap();
        assert!(changes.has_changed().unwrap());
        assert!(device(&store).await.is_approved);
    }

    async fn a_removed_device_takes_its_sessions_along_and_nobody_elses(place: &Place) {
        let store = place.open().await;
        for session in [bound("s1", b"a"), bound("s2", b"a"), bound("s3", b"b"), session("s4")] {
            store.put_session(&session, &tokens()).await.unwrap();
        }
        assert_eq!(store.remove_device(&device(&store).await).await.unwrap(), 2);
        assert_eq!(store.device_of(&bound("s1", b"a"), at(0)).await.unwrap(), None);
        for (id, is_there) in [("s1", false), ("s2", false), ("s3", true), ("s4", true)] {
            assert_eq!(store.session(&SessionId::new(id)).await.unwrap().is_some(), is_there, "{id}");
        }
    }

    async fn idle_devices_of_one_person_are_bounded(place: &Place) {
        let store = place.open().await;
        for number in 0..50_u8 {
            let session = bound(&number.to_string(), &[number]);
            store.put_session(&session, &tokens()).await.unwrap();
            store.end_session(&session.id).await.unwrap();
        }
        assert!(store.devices(None).await.unwrap().len() <= 33);
    }

    async fn what_another_process_changes_is_heard_of(place: &Place) {
        let gateway = place.open().await;
        gateway.put_session(&bound("s1", b"a"), &tokens()).await.unwrap();
        let known = device(&gateway).await;
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        let mut changes = gateway.changes();
        tracker.spawn(gateway.clone().follow_outside_changes(stop.clone()));

        let command = place.open().await;
        command.approve_device(&known, true).await.unwrap();
        let heard = async {
            // The first look may come after the first announcement: announce until one is heard.
            loop {
                command.announce_outside_change().await.unwrap();
                let patience = Duration::from_millis(500);
                if tokio::time::timeout(patience, changes.changed()).await.is_ok() {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), heard).await.unwrap();
        assert!(device(&gateway).await.is_approved);
        stop.cancel();
        tracker.close();
        tracker.wait().await;
    }

    #[tokio::test]
    async fn a_store_from_before_devices_is_brought_up_to_date() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        store.put_session(&session("s1"), &tokens()).await.unwrap();
        for undo in [
            "DROP TABLE devices",
            "DROP TABLE outside_changes",
            "DELETE FROM _sqlx_migrations WHERE version = 4",
        ] {
            sqlx::query(undo).execute(&store.inner.pool).await.unwrap();
        }
        store.close().await;
        let store = Store::open(folder.path()).await.unwrap();
        assert_eq!(store.session(&SessionId::new("s1")).await.unwrap(), Some(Arc::new(session("s1"))));
        store.put_session(&bound("s2", b"a"), &tokens()).await.unwrap();
        assert_eq!(store.devices(None).await.unwrap().len(), 1);
    }
}
