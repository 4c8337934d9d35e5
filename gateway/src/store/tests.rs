use super::*;
use crate::session::{Session, SessionId, UserId};

fn session(id: &str, expires_in: u64) -> Session {
    Session {
        id: SessionId::new(id),
        user_id: UserId::new("alice"),
        idp_id: "idp".to_owned(),
        email: "alice@corp.example".to_owned(),
        name: "Alice".to_owned(),
        groups: vec!["ops".to_owned()],
        claims: [("groups".to_owned(), vec![serde_json::json!("ops")])].into(),
        issued_at: from_unix(1_800_000_000),
        expires_at: from_unix(1_800_000_000 + expires_in),
    }
}

fn from_unix(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[tokio::test]
async fn sessions_and_secrets_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = ProviderTokens { refresh_token: Some("refresh".to_owned()), ..ProviderTokens::default() };
    let store = Store::open(folder.path()).await.unwrap();
    store.put_session(&session("s1", 60), &tokens, None).await.unwrap();
    let secret = store.secret("shared").await.unwrap();
    store.close().await;
    let store = Store::open(folder.path()).await.unwrap();
    assert_eq!(store.session(&SessionId::new("s1")).await.unwrap(), Some(session("s1", 60)));
    assert_eq!(store.tokens(&SessionId::new("s1")).await.unwrap(), Some(tokens));
    assert_eq!(store.secret("shared").await.unwrap(), secret);
}

#[tokio::test]
async fn only_the_gateway_may_read_its_files_and_tokens_are_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await.unwrap();
    let tokens = ProviderTokens { access_token: "very-secret-token".to_owned(), ..ProviderTokens::default() };
    store.put_session(&session("s1", 60), &tokens, None).await.unwrap();
    store.close().await;
    for file in ["pomerium.db", "master.key"] {
        let mode = fs::metadata(folder.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let bytes = fs::read(folder.path().join("pomerium.db")).unwrap();
    assert!(!bytes.windows(17).any(|window| window == b"very-secret-token"));
}

#[tokio::test]
async fn an_ended_session_is_gone_and_watchers_hear_of_it() {
    let store = Store::in_memory().await.unwrap();
    store.put_session(&session("s1", 60), &ProviderTokens::default(), None).await.unwrap();
    let mut changes = store.changes();
    changes.mark_unchanged();
    store.end_session(&SessionId::new("s1")).await.unwrap();
    assert!(changes.has_changed().unwrap());
    assert_eq!(store.session(&SessionId::new("s1")).await.unwrap(), None);
}

#[tokio::test]
async fn what_may_be_used_once_is_used_once() {
    let store = Store::in_memory().await.unwrap();
    let (now, later) = (from_unix(100), from_unix(160));
    assert!(store.claim_once("a", later, now).await.unwrap());
    assert!(!store.claim_once("a", later, now).await.unwrap());
    assert!(store.claim_once("b", later, now).await.unwrap());
}

#[tokio::test]
async fn sessions_to_refresh_come_in_order() {
    let store = Store::in_memory().await.unwrap();
    let base = 1_800_000_000;
    for (id, refresh_in) in [("late", Some(50)), ("first", Some(1)), ("never", None), ("second", Some(2))] {
        let at = refresh_in.map(|seconds| from_unix(base + seconds));
        store.put_session(&session(id, 60), &ProviderTokens::default(), at).await.unwrap();
    }
    let due = store.sessions_to_refresh(from_unix(base + 10), 10).await.unwrap();
    let ids: Vec<&str> = due.iter().map(|s| s.id.as_str()).collect();
    assert_eq!(ids, ["first", "second"]);
}
