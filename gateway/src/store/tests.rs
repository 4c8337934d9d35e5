use std::{os::unix::fs::PermissionsExt, path::Path, time::Duration};

use super::*;
use crate::session::UserId;

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

#[tokio::test]
async fn a_session_its_tokens_keys_and_single_uses_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await.unwrap();
    store.put_session(&session("s1"), &tokens()).await.unwrap();
    let key = store.named_key("shared", || vec![7; 32]).await.unwrap();
    assert!(store.claim_once("k", at(100), at(1)).await.unwrap());
    store.close().await;
    drop(store);

    let store = Store::open(folder.path()).await.unwrap();
    assert_eq!(store.session(&SessionId::new("s1")).await.unwrap(), Some(session("s1")));
    assert_eq!(store.tokens(&SessionId::new("s1")).await.unwrap(), Some(tokens()));
    assert_eq!(store.named_key("shared", || vec![8; 32]).await.unwrap(), key);
    assert!(!store.claim_once("k", at(100), at(2)).await.unwrap());
    assert_eq!(store.users().await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_was_acknowledged_is_there_without_an_orderly_close() {
    let folder = tempfile::tempdir().unwrap();
    let first = Store::open(folder.path()).await.unwrap();
    first.put_session(&session("s1"), &tokens()).await.unwrap();
    let second = Store::open(folder.path()).await.unwrap();
    assert_eq!(second.session(&SessionId::new("s1")).await.unwrap(), Some(session("s1")));
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

#[tokio::test]
async fn tokens_moved_to_another_session_do_not_open() {
    let store = Store::in_memory().await.unwrap();
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

#[tokio::test]
async fn what_one_process_ends_has_ended_in_the_one_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let writer = Store::open(folder.path()).await.unwrap();
    let beside = Store::open_beside(folder.path()).await.unwrap();
    writer.put_session(&session("s1"), &tokens()).await.unwrap();
    let id = SessionId::new("s1");
    assert!(beside.session(&id).await.unwrap().is_some());
    assert!(writer.end_session(&id).await.unwrap());
    assert_eq!(beside.session(&id).await.unwrap(), None);
}

#[tokio::test]
async fn a_refresh_never_brings_back_an_ended_session_nor_moves_its_end() {
    let store = Store::in_memory().await.unwrap();
    store.put_session(&session("s1"), &tokens()).await.unwrap();
    let changed = Session { email: "new@example.com".into(), expires_at: at(999_999), ..session("s1") };
    assert!(store.replace_session(&changed, &tokens()).await.unwrap());
    let kept = store.session(&changed.id).await.unwrap().unwrap();
    assert_eq!((kept.email.as_str(), kept.expires_at), ("new@example.com", at(51_400)));
    store.end_session(&changed.id).await.unwrap();
    assert!(!store.replace_session(&changed, &tokens()).await.unwrap());
    assert_eq!(store.session(&changed.id).await.unwrap(), None);
}

#[tokio::test]
async fn one_of_many_at_once_claims_and_a_row_goes_when_it_expires() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await.unwrap();
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

#[tokio::test]
async fn only_sessions_with_a_refresh_token_come_due() {
    let store = Store::in_memory().await.unwrap();
    store.put_session(&session("s1"), &tokens()).await.unwrap();
    store.put_session(&session("s2"), &ProviderTokens { refresh: None, ..tokens() }).await.unwrap();
    assert!(store.sessions_due_for_refresh("idp", at(4_600)).await.unwrap().is_empty());
    let due = store.sessions_due_for_refresh("idp", at(4_601)).await.unwrap();
    assert_eq!(due.iter().map(|due| due.session.id.as_str()).collect::<Vec<_>>(), ["s1"]);
    assert_eq!(store.purge_expired(at(51_400)).await.unwrap(), 2);
    assert_eq!(store.session(&SessionId::new("s1")).await.unwrap(), None);
}
