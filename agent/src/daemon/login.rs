//! Keeps the identity provider that logins are judged by the one that is set.

use std::sync::Arc;

use crate::settings::Settings;
use crate::task::Tasks;
use crate::trust::oidc::Logins;

/// Takes what is set now, and every change of it.
pub(super) fn follow(logins: &Arc<Logins>, settings: &Arc<Settings>, tasks: &Tasks) {
    let mut changed = settings.changed();
    logins.set_provider(changed.borrow_and_update().oidc(), None);
    let (logins, ending) = (Arc::clone(logins), tasks.ending());
    tasks.spawn("logins", async move {
        loop {
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { return },
                () = ending.cancelled() => return,
            }
            let config = changed.borrow_and_update().oidc();
            logins.set_provider(config, None);
        }
    });
}
