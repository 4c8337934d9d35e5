//! Several gateways over one PostgreSQL.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    places::{Place, SHARED_SECRET},
    *,
};

/// Under which a state must come.
const LIMIT: Duration = Duration::from_secs(20);

async fn place() -> (Place, Secret<Url>) {
    let place = Place::postgres().await;
    let Place::Postgres(url) = &place else { unreachable!("it was asked for") };
    let url = url.clone();
    (place, url)
}

/// A gateway that hears of changes.
struct Gateway {
    store: Store,
    _follower: JoinSet<()>,
}

impl Gateway {
    async fn start(place: &Place) -> Self {
        let store = place.open().await;
        let mut follower = JoinSet::new();
        follower.spawn(store.clone().follow_outside_changes(CancellationToken::new()));
        let gateway = Self { store, _follower: follower };
        gateway.hears(true).await;
        gateway
    }

    async fn hears(&self, is_current: bool) {
        let mut changes = self.store.changes();
        let heard = changes.wait_for(|_| self.store.cache().is_current == is_current);
        tokio::time::timeout(LIMIT, heard).await.unwrap().unwrap();
    }

    async fn reads(&self, id: &str) -> Option<Arc<Session>> {
        self.store.session(&SessionId::new(id)).await.unwrap()
    }

    fn kept(&self) -> BTreeSet<String> {
        self.store.cache().sessions.keys().map(ToString::to_string).collect()
    }

    /// Waits until the gateway keeps these sessions for reading and no others.
    async fn keeps(&self, ids: &[&str]) {
        let mut changes = self.store.changes();
        let ids: BTreeSet<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        let kept = changes.wait_for(|_| self.kept() == ids);
        let kept = tokio::time::timeout(LIMIT, kept).await.is_ok();
        assert!(kept, "{:?}", self.kept());
    }
}

#[tokio::test]
async fn gateways_that_start_at_once_end_with_the_same_tables_and_keys() {
    let (_place, url) = place().await;
    let start = async |octet: u8| {
        let store = Store::open_postgres(&url, &SHARED_SECRET).await.unwrap();
        store.named_key("shared", || vec![octet; 32]).await.unwrap().expose().clone()
    };
    let keys: BTreeSet<Vec<u8>> = join_all((0..5).map(start)).await.into_iter().collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
}

#[tokio::test]
async fn a_gateway_with_another_secret_does_not_start_and_tokens_rest_sealed() {
    let (place, url) = place().await;
    let store = place.open().await;
    store.put_session(&session("s1"), &tokens()).await.unwrap();
    let opened = Store::open_postgres(&url, &Secret::new([8; 32])).await;
    assert!(matches!(opened, Err(StoreError::Sealed(_))), "{opened:?}");
    let sealed: Vec<u8> =
        sqlx::query_scalar("SELECT tokens_sealed FROM sessions").fetch_one(&store.inner.pool).await.unwrap();
    assert!(!sealed.windows(13).any(|window| window == b"access-canary"));
}

#[tokio::test]
async fn what_one_gateway_ends_the_other_forgets_and_nothing_else() {
    let (place, _) = place().await;
    let (one, other) = (Gateway::start(&place).await, Gateway::start(&place).await);
    for id in ["s1", "s2"] {
        one.store.put_session(&session(id), &tokens()).await.unwrap();
        // Told of both, before anything is read.
        for gateway in [&one, &other] {
            let mut changes = gateway.store.changes();
            let known = async {
                while gateway.reads(id).await.is_none() {
                    changes.changed().await.unwrap();
                }
            };
            tokio::time::timeout(LIMIT, known).await.unwrap();
        }
    }
    for gateway in [&one, &other] {
        // A notification of the sign-in may still come and take it out again.
        let all = async {
            while gateway.kept().len() < 2 {
                gateway.reads("s1").await.unwrap();
                gateway.reads("s2").await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, all).await.unwrap();
    }
    assert!(one.store.end_session(&SessionId::new("s1")).await.unwrap());
    for gateway in [&one, &other] {
        gateway.keeps(&["s2"]).await;
        assert_eq!(gateway.reads("s1").await, None);
    }
}

#[tokio::test]
async fn nothing_is_kept_while_nobody_tells_of_changes() {
    let (place, _) = place().await;
    let deaf = place.open().await;
    deaf.put_session(&session("s1"), &tokens()).await.unwrap();
    assert!(deaf.session(&SessionId::new("s1")).await.unwrap().is_some());
    assert!(deaf.cache().sessions.is_empty());

    let gateway = Gateway::start(&place).await;
    gateway.reads("s1").await.unwrap();
    gateway.keeps(&["s1"]).await;

    // The connection that listens is lost, and no other one is to be had for now.
    let door = async |is_open: bool| {
        sqlx::query("UPDATE pg_database SET datallowconn = $1 WHERE datname = current_database()")
            .bind(is_open)
            .execute(&deaf.inner.pool)
            .await
            .unwrap();
    };
    door(false).await;
    let listening = "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity \
         WHERE datname = current_database() AND (query LIKE 'LISTEN%' OR query = 'SELECT 1')";
    assert_eq!(sqlx::query(listening).fetch_all(&deaf.inner.pool).await.unwrap().len(), 1);
    gateway.hears(false).await;
    assert!(gateway.reads("s1").await.is_some(), "it is read from the database");
    assert!(gateway.kept().is_empty());

    door(true).await;
    gateway.hears(true).await;
    gateway.reads("s1").await.unwrap();
    gateway.keeps(&["s1"]).await;
}

#[tokio::test]
async fn one_gateway_refreshes_a_session_and_who_comes_late_leaves_it_alone() {
    let (place, _) = place().await;
    let (one, other) = (place.open().await, place.open().await);
    one.put_session(&session("s1"), &tokens()).await.unwrap();
    let due = one.sessions_due_for_refresh("idp", at(4_601)).await.unwrap().remove(0);
    assert!(one.take_refresh(&due, at(4_600)).await.unwrap());
    assert!(!other.take_refresh(&due, at(4_601)).await.unwrap());
    one.leave_refresh(&due).await.unwrap();
    assert!(other.take_refresh(&due, at(4_602)).await.unwrap(), "the provider was silent: the next may try");
    let fresh = ProviderTokens { refresh: Some(Secret::new("next".into())), ..tokens() };
    other.replace_session(&due.session, &fresh).await.unwrap();
    other.leave_refresh(&due).await.unwrap();
    assert!(!one.take_refresh(&due, at(4_603)).await.unwrap(), "with tokens that are used up");
}

#[tokio::test]
async fn who_dies_amid_a_write_holds_nobody_up_for_ever() {
    let (place, _) = place().await;
    let (one, other) = (place.open().await, place.open().await);
    let hung = one.begin_write().await.unwrap();
    let refused = other.put_session(&session("s1"), &tokens()).await;
    assert!(matches!(refused, Err(StoreError::Database(_))), "within the time that a lock is waited for");
    drop(hung);
    other.put_session(&session("s1"), &tokens()).await.unwrap();
}
