//! Sign-ins that a device has begun and a person finishes elsewhere (RFC 8628): each is decided once and fetched once.

use std::time::{Duration, SystemTime};

use sqlx::Row;

use super::{Store, StoreError, to_millis};
use crate::session::SessionId;

/// Waiting at once; strangers can begin them, so there is a limit.
const WAITING_MAX: i64 = 1_000;
/// By how much a device that asks too fast is slowed down (RFC 8628, 3.5).
const SLOW_DOWN: Duration = Duration::from_secs(5);

/// A sign-in that has just begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceCode {
    /// SHA-256 of the device code.
    pub code_hash: String,
    /// What the person types.
    pub user_code: String,
    /// The host that the device speaks to.
    pub host: String,
    /// When it is over.
    pub expires_at: SystemTime,
    /// Between two questions of the device, at least.
    pub interval: Duration,
}

/// What a device that asks is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DevicePoll {
    /// No such code, or not any more.
    Gone,
    /// Nobody has decided yet.
    Pending,
    /// It asks too often; the interval has grown.
    TooFast,
    /// The person said no. The code is used up.
    Denied,
    /// The person said yes: their session, and the host that it is for. The code is used up.
    Approved(SessionId, String),
}

impl Store {
    /// Keeps a sign-in that has begun; `false` when too many wait already.
    ///
    /// # Errors
    /// [`StoreError::Database`], also for a code that there is already.
    pub async fn add_device_code(&self, code: &DeviceCode, now: SystemTime) -> Result<bool, StoreError> {
        let mut transaction = self.begin_write().await?;
        sqlx::query("DELETE FROM device_codes WHERE expires_at_ms <= $1")
            .bind(to_millis(now))
            .execute(&mut *transaction)
            .await?;
        let done = sqlx::query(
            "INSERT INTO device_codes (code_hash, user_code, host, expires_at_ms, poll_after_ms, interval_ms) \
             SELECT $1, $2, $3, $4, $5, $6 WHERE (SELECT count(*) FROM device_codes) < $7",
        )
        .bind(&code.code_hash)
        .bind(&code.user_code)
        .bind(&code.host)
        .bind(to_millis(code.expires_at))
        .bind(to_millis(now))
        .bind(millis(code.interval))
        .bind(WAITING_MAX)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Decides on a code that waits: approved for a session, or denied. `false` when none of this name waits any more.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn decide_device_code(
        &self,
        user_code: &str,
        session: Option<&SessionId>,
        now: SystemTime,
    ) -> Result<bool, StoreError> {
        let decide = sqlx::query(
            "UPDATE device_codes SET is_approved = $2, session_id = $3 \
             WHERE user_code = $1 AND is_approved IS NULL AND expires_at_ms > $4",
        );
        let decide = decide
            .bind(user_code)
            .bind(i64::from(session.is_some()))
            .bind(session.map(SessionId::as_str))
            .bind(to_millis(now));
        Ok(self.write(decide).await? == 1)
    }

    /// What the device with this code is told now.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn poll_device_code(&self, code_hash: &str, now: SystemTime) -> Result<DevicePoll, StoreError> {
        // Taken and removed in one step: of two that ask at once, one gets it.
        let mut transaction = self.begin_write().await?;
        let decided = sqlx::query(
            "DELETE FROM device_codes WHERE code_hash = $1 AND is_approved IS NOT NULL AND expires_at_ms > $2 \
             RETURNING session_id, host",
        )
        .bind(code_hash)
        .bind(to_millis(now))
        .fetch_optional(&mut *transaction)
        .await?;
        if let Some(row) = decided {
            transaction.commit().await?;
            let host = row.try_get("host")?;
            return Ok(match row.try_get::<Option<String>, _>("session_id")? {
                Some(id) => DevicePoll::Approved(SessionId::new(id), host),
                None => DevicePoll::Denied,
            });
        }
        let waiting = sqlx::query(
            "SELECT poll_after_ms, interval_ms FROM device_codes WHERE code_hash = $1 AND expires_at_ms > $2",
        )
        .bind(code_hash)
        .bind(to_millis(now))
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = waiting else { return Ok(DevicePoll::Gone) };
        let (poll_after, interval): (i64, i64) = (row.try_get("poll_after_ms")?, row.try_get("interval_ms")?);
        let is_too_fast = to_millis(now) < poll_after;
        let interval = if is_too_fast { interval.saturating_add(millis(SLOW_DOWN)) } else { interval };
        sqlx::query("UPDATE device_codes SET poll_after_ms = $2, interval_ms = $3 WHERE code_hash = $1")
            .bind(code_hash)
            .bind(to_millis(now).saturating_add(interval))
            .bind(interval)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(if is_too_fast { DevicePoll::TooFast } else { DevicePoll::Pending })
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::places::{Place, on_both};

    on_both! {
        a_code_is_decided_once_and_fetched_once,
        a_hasty_device_is_slowed_down_and_a_late_one_gets_nothing,
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn code(name: &str) -> DeviceCode {
        DeviceCode {
            code_hash: format!("hash of {name}"),
            user_code: name.to_owned(),
            host: "app.example.com".to_owned(),
            expires_at: at(600),
            interval: Duration::from_secs(5),
        }
    }

    async fn a_code_is_decided_once_and_fetched_once(place: &Place) {
        let store = place.open().await;
        assert!(store.add_device_code(&code("A"), at(0)).await.unwrap());
        let poll = async |seconds| store.poll_device_code("hash of A", at(seconds)).await.unwrap();
        let (alice, mallory) = (SessionId::new("alice"), SessionId::new("mallory"));
        assert_eq!(poll(0).await, DevicePoll::Pending);
        assert!(store.decide_device_code("A", Some(&alice), at(1)).await.unwrap());
        assert!(!store.decide_device_code("A", Some(&mallory), at(1)).await.unwrap());
        assert_eq!(poll(5).await, DevicePoll::Approved(alice, "app.example.com".to_owned()));
        assert_eq!(poll(10).await, DevicePoll::Gone);
    }

    async fn a_hasty_device_is_slowed_down_and_a_late_one_gets_nothing(place: &Place) {
        let store = place.open().await;
        assert!(store.add_device_code(&code("A"), at(0)).await.unwrap());
        let poll = async |seconds| store.poll_device_code("hash of A", at(seconds)).await.unwrap();
        assert_eq!(poll(0).await, DevicePoll::Pending);
        assert_eq!(poll(4).await, DevicePoll::TooFast);
        assert_eq!(poll(13).await, DevicePoll::TooFast, "the interval is 10 seconds now");
        assert_eq!(poll(28).await, DevicePoll::Pending);
        assert!(!store.decide_device_code("A", None, at(600)).await.unwrap());
        assert_eq!(poll(600).await, DevicePoll::Gone);
    }

    #[tokio::test]
    async fn strangers_cannot_fill_the_store() {
        let store = Store::in_memory().await.unwrap();
        for n in 0..WAITING_MAX {
            assert!(store.add_device_code(&code(&n.to_string()), at(0)).await.unwrap());
        }
        assert!(!store.add_device_code(&code("more"), at(599)).await.unwrap());
        assert!(
            store
                .add_device_code(&DeviceCode { expires_at: at(1_200), ..code("later") }, at(600))
                .await
                .unwrap()
        );
    }
}
