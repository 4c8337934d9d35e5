//! Devices: enrolled with the first session that is bound to them, approved by an administrator, and what they report.

use std::time::SystemTime;

use pomerium_shared::posture::PostureReport;
use sqlx::{AnyConnection, Row, any::AnyRow};

use super::{Store, StoreError, flag, from_millis, to_millis, within_limit};
use crate::{
    device::{Device, DeviceKind},
    session::{Session, SessionId, UserId},
};

/// Devices of one person that are neither approved nor in use, at most: older ones are forgotten.
const IDLE_DEVICES_MAX: i64 = 32;

/// Devices kept for reading without the database, at most; the cache starts anew when it is full.
const CACHED_DEVICES_MAX: usize = 10_000;

/// Names one device of one person.
pub(super) type DeviceKey = (UserId, String);

/// The device of a session that has just begun, new or known.
pub(super) async fn enrol(connection: &mut AnyConnection, session: &Session) -> Result<(), StoreError> {
    let Some(key) = &session.bound_to else { return Ok(()) };
    sqlx::query(
        "INSERT INTO devices (user_id, id, name, kind, is_approved, enrolled_at_ms) VALUES ($1, $2, '', $3, 0, $4) \
         ON CONFLICT (user_id, id) DO NOTHING",
    )
    .bind(session.user_id.as_str())
    .bind(key.as_str())
    .bind(DeviceKind::ClientKey.as_str())
    .bind(to_millis(session.issued_at))
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "DELETE FROM devices WHERE user_id = $1 AND is_approved = 0 \
         AND id NOT IN (SELECT bound_to FROM sessions WHERE user_id = $1 AND bound_to IS NOT NULL) \
         AND id NOT IN (SELECT id FROM devices WHERE user_id = $1 ORDER BY enrolled_at_ms DESC, id LIMIT $2)",
    )
    .bind(session.user_id.as_str())
    .bind(IDLE_DEVICES_MAX)
    .execute(connection)
    .await?;
    Ok(())
}

impl Store {
    /// The device that a session is bound to, or that its browser has proved to be; `None` when there is none, or the
    /// device was removed.
    ///
    /// # Errors
    /// [`StoreError::Database`]: nothing is known, which is not "no".
    pub async fn device_of(&self, session: &Session, now: SystemTime) -> Result<Option<Device>, StoreError> {
        let (id, is_client) = match (&session.bound_to, session.proof_at(now)) {
            (Some(key), _) => (key.as_str(), true),
            (None, Some(proof)) => (proof.device_id.as_str(), false),
            (None, None) => return Ok(None),
        };
        let device = within_limit(self.device((session.user_id.clone(), id.to_owned()))).await?;
        // An authenticator chooses its id, and might choose the one of its person's approved client.
        Ok(device.filter(|device| (device.kind == DeviceKind::ClientKey) == is_client))
    }

    async fn device(&self, name: DeviceKey) -> Result<Option<Device>, StoreError> {
        let generation = {
            let cache = self.cache();
            if let Some(device) = cache.devices.get(&name) {
                return Ok(Some(device.clone()));
            }
            cache.generation
        };
        let row = sqlx::query("SELECT * FROM devices WHERE user_id = $1 AND id = $2")
            .bind(name.0.as_str())
            .bind(&name.1)
            .fetch_optional(&self.inner.pool)
            .await?;
        let Some(device) = row.as_ref().map(device_of_row).transpose()? else { return Ok(None) };
        let mut cache = self.cache();
        // Something was written since: what was read may be what was revoked.
        if cache.may_keep(generation) {
            if cache.devices.len() >= CACHED_DEVICES_MAX {
                cache.devices.clear();
            }
            cache.devices.insert(name, device.clone());
        }
        Ok(Some(device))
    }

    /// Everybody's devices, or those of one person, by person and age.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Malformed`].
    pub async fn devices(&self, of: Option<&UserId>) -> Result<Vec<Device>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM devices WHERE user_id = $1 OR $1 IS NULL ORDER BY user_id, enrolled_at_ms, id",
        )
        .bind(of.map(UserId::as_str))
        .fetch_all(&self.inner.pool)
        .await?;
        rows.iter().map(device_of_row).collect()
    }

    /// Keeps what a device reports of itself; `false` when there is no such device. The machine's own name becomes the
    /// device's.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn put_posture(
        &self,
        device: &Device,
        report: &PostureReport,
        received_at: SystemTime,
    ) -> Result<bool, StoreError> {
        let report_it = sqlx::query(
            "UPDATE devices SET posture_json = $3, posture_at_ms = $4, name = $5 WHERE user_id = $1 AND id = $2",
        );
        let report_it = report_it
            .bind(device.user_id.as_str())
            .bind(&device.id)
            .bind(serde_json::to_string(report).map_err(StoreError::Malformed)?)
            .bind(to_millis(received_at))
            .bind(&report.hostname);
        let changed = self.write(report_it).await?;
        self.note_device_change(device);
        Ok(changed == 1)
    }

    /// Approves a device, or takes the approval back; `false` when there is no such device.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn approve_device(&self, device: &Device, is_approved: bool) -> Result<bool, StoreError> {
        let approve = sqlx::query("UPDATE devices SET is_approved = $3 WHERE user_id = $1 AND id = $2")
            .bind(device.user_id.as_str())
            .bind(&device.id)
            .bind(i64::from(is_approved));
        let changed = self.write(approve).await?;
        self.note_device_change(device);
        Ok(changed == 1)
    }

    /// Forgets a device and ends the sessions that are bound to it; says how many those were. Those whose browser proved to
    /// be it go on without it. Its person may enrol it again.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn remove_device(&self, device: &Device) -> Result<usize, StoreError> {
        let mut transaction = self.begin_write().await?;
        let ended = sqlx::query("DELETE FROM sessions WHERE user_id = $1 AND bound_to = $2 RETURNING id")
            .bind(device.user_id.as_str())
            .bind(&device.id)
            .fetch_all(&mut *transaction)
            .await?;
        let unproven = sqlx::query(
            "UPDATE sessions SET proven_device = NULL, proven_until_ms = NULL WHERE user_id = $1 AND proven_device = $2 \
             RETURNING id",
        )
        .bind(device.user_id.as_str())
        .bind(&device.id)
        .fetch_all(&mut *transaction)
        .await?;
        sqlx::query("DELETE FROM devices WHERE user_id = $1 AND id = $2")
            .bind(device.user_id.as_str())
            .bind(&device.id)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        self.note_device_change(device);
        for row in ended.iter().chain(&unproven) {
            self.note_change(&SessionId::new(row.try_get::<String, _>("id")?));
        }
        Ok(ended.len())
    }

    /// Called after the database has the change: forgets the device and tells who follows.
    fn note_device_change(&self, device: &Device) {
        self.forget(|cache| {
            cache.devices.remove(&(device.user_id.clone(), device.id.clone()));
        });
    }
}

fn device_of_row(row: &AnyRow) -> Result<Device, StoreError> {
    let kind: String = row.try_get("kind")?;
    let report: Option<String> = row.try_get("posture_json")?;
    let received_at: Option<i64> = row.try_get("posture_at_ms")?;
    let posture = match (report, received_at) {
        (Some(report), Some(at)) => {
            Some((serde_json::from_str(&report).map_err(StoreError::Malformed)?, from_millis(at)))
        }
        _ => None,
    };
    Ok(Device {
        id: row.try_get("id")?,
        user_id: UserId::new(row.try_get::<String, _>("user_id")?),
        name: row.try_get("name")?,
        kind: kind.parse().map_err(StoreError::Device)?,
        is_approved: flag(row, "is_approved")?,
        enrolled_at: from_millis(row.try_get("enrolled_at_ms")?),
        posture,
    })
}
