//! How one root of the mesh CA follows another: announced first, so that peers know it before it signs, and the one before
//! it stays until what it signed has ended. Unless that one's key may be in other hands: then it goes at once.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::root::{self, RootRecord};
use super::{LEAF_LIFE, MeshAuthority, MeshError, Root, Roots};
use crate::task::Tasks;
use crate::trust::Permission;
use crate::wire::bundle::MAX_ROOTS;

/// How long a new root is in the bundle before it signs, so that peers know it by then.
pub(super) const ANNOUNCED: SignedDuration = SignedDuration::from_mins(5);
/// A root with less than this left is followed by another.
const RENEW_ROOT: SignedDuration = SignedDuration::from_hours(365 * 24);
/// How often it is looked whether a root is to begin, to end, or to be followed.
const ROUND: Duration = Duration::from_secs(30);

/// What becomes of the roots before the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// They are trusted until the last that they signed has ended.
    Stay,
    /// They are trusted no more, and nothing that they signed is.
    Go,
}

impl MeshAuthority {
    /// Has roots begin, end and be followed in their time.
    pub fn start(self: &Arc<Self>, tasks: &Tasks) {
        let (authority, ending) = (Arc::clone(self), tasks.ending());
        tasks.spawn("mesh CA", async move {
            loop {
                let due = due(&authority.roots(), Timestamp::now());
                if ending.run_until_cancelled(tokio::time::sleep(due)).await.is_none() {
                    return;
                }
                if let Err(error) = authority.settle(Timestamp::now()).await {
                    tracing::error!(%error, "the mesh CA's roots could not be looked at");
                    if ending.run_until_cancelled(tokio::time::sleep(ROUND)).await.is_none() {
                        return;
                    }
                }
            }
        });
    }

    /// Has another root follow the one that signs.
    pub async fn rotate(
        &self,
        permit: &dyn Permission,
        before: Before,
        now: Timestamp,
    ) -> Result<(), MeshError> {
        let by = permit.caller();
        match before {
            Before::Stay => {
                // Each that follows takes a place in the bundle for days.
                if let Some(next) = self.roots().all.last().filter(|root| root.active_from > now) {
                    return Err(MeshError::Announced(next.active_from));
                }
                tracing::info!(%by, "another root of the mesh CA follows");
                self.follow_with(now, now + ANNOUNCED).await
            }
            Before::Go => {
                tracing::warn!(%by, "the roots of the mesh CA are withdrawn, and another signs at once");
                self.replace(now).await
            }
        }
    }

    pub(super) async fn settle(&self, now: Timestamp) -> Result<(), MeshError> {
        let roots = self.roots();
        let ended = |root: &Arc<Root>| root.ends.is_some_and(|ends| ends <= now);
        if roots.all.iter().any(ended) {
            self.change(|record| record.roots.retain(|root| root.ends.is_none_or(|ends| ends > now))).await?;
        }
        let newest_from = roots.all.last().map(|root| root.active_from);
        let waiting = newest_from.is_some_and(|from| from > now);
        match roots.active(now) {
            None => self.follow_with(now, now).await?,
            Some(active) if !waiting && active.not_after < now + RENEW_ROOT => {
                self.follow_with(now, now + ANNOUNCED).await?;
            }
            // One that was announced signs from now on: who waits for its leaf gets a new one.
            Some(active) if active.active_from > now - SignedDuration::from_secs(60) => {
                self.roots.send_modify(|_| {});
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// A new root that signs from `from` on. Those before it stay in the bundle until what they signed has ended.
    pub(super) async fn follow_with(&self, now: Timestamp, from: Timestamp) -> Result<(), MeshError> {
        let domain = self.roots().domain.clone();
        let next = root::create(&self.dir, &domain, now)?;
        let changed = self
            .change(|record| {
                for root in &mut record.roots {
                    root.ends.get_or_insert(from + LEAF_LIFE);
                }
                let spare = (record.roots.len() + 1).saturating_sub(MAX_ROOTS);
                record.roots.drain(..spare);
                record.roots.push(RootRecord::beginning(&next, from));
            })
            .await;
        if changed.is_err() {
            root::discard(&self.dir, &next);
        }
        changed
    }

    /// A new root, and no other.
    async fn replace(&self, now: Timestamp) -> Result<(), MeshError> {
        let domain = self.roots().domain.clone();
        let next = root::create(&self.dir, &domain, now)?;
        let changed = self.change(|record| record.roots = vec![RootRecord::beginning(&next, now)]).await;
        if changed.is_err() {
            root::discard(&self.dir, &next);
        }
        changed
    }
}

/// How long until there is something to look at: a root that begins or ends, or the next round.
fn due(roots: &Roots, now: Timestamp) -> Duration {
    let moments = roots.all.iter().flat_map(|root| [Some(root.active_from), root.ends]).flatten();
    let left = moments.filter(|moment| *moment > now).map(|moment| moment.duration_since(now)).min();
    // A moment later, so that it is over by then.
    let left =
        left.and_then(|left| Duration::try_from(left).ok()).map(|left| left + Duration::from_millis(1));
    left.map_or(ROUND, |left| left.min(ROUND))
}
