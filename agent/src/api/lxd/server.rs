//! `/1.0`: what this server is, whether it knows the caller (anybody may ask that), and what is set.

use std::fs;
use std::sync::{Arc, LazyLock};

use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use serde_json::{Map, Value};

use super::answer::sync;
use super::etag;
use crate::api::ApiState;
use crate::api::request::Connection;
use crate::authorize::{Entitlement, Entity};
use crate::trust::Caller;
use crate::wire::lxd::server::{Environment, ServerInfo, Text};

mod remembered;
mod settings;

use remembered::Basis;

/// What clients may count on, by LXD's names. Only what works is named.
const EXTENSIONS: &[&str] = &[
    "api_filtering",
    "auth_oidc_sessions",
    "backup_compression_algorithm",
    "backup_override_name",
    "certificate_project",
    "certificate_token",
    "cluster_migration_inconsistent_copy",
    "container_backup",
    "container_copy_project",
    "container_full",
    "container_incremental_copy",
    "container_last_used_at",
    "container_only_migration",
    "container_protection_delete",
    "container_push",
    "container_push_target",
    "container_stateless_copy",
    "custom_volume_backup",
    "custom_volume_refresh",
    "custom_volume_snapshot_expiry",
    "entity_description",
    "etag",
    "event_lifecycle",
    "event_lifecycle_name_and_project",
    "event_lifecycle_requestor_address",
    "event_project",
    "instance_all_projects",
    "instance_allow_inconsistent_copy",
    "instance_get_full",
    "instance_pool_move",
    "instance_project_move",
    "instances",
    "migration_progress",
    "oidc",
    "oidc_scopes",
    "operation_description",
    "operation_requestor",
    "patch",
    "profile_usedby",
    "projects",
    "remote_token_expiry",
    "resources",
    "snapshot_expiry",
    "snapshot_expiry_creation",
    "snapshot_schedule_aliases",
    "snapshot_scheduling",
    "storage",
    "storage_api_local_volume_handling",
    "storage_api_remote_volume_handling",
    "storage_api_volume_rename",
    "storage_api_volume_snapshots",
    "storage_volume_state",
];

pub fn router() -> Router<ApiState> {
    Router::new().route("/", get(show).put(settings::put).patch(settings::patch))
}

/// `GET /`: the one version. lxc fetches it to see the certificate.
pub async fn versions() -> Response {
    sync(["/1.0"])
}

async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Extension(connection): Extension<Arc<Connection>>,
) -> Response {
    let trusted = caller.is_trusted();
    let basis = Basis {
        settings: state.settings.current(),
        shown: state.server.current(),
        addresses: state.addresses.current(),
        server: state.name.clone(),
        edits: state.permit(&caller, Entitlement::CanEdit, Entity::Server).is_ok(),
        trusted,
        logins: state.logins.is_usable(),
        client_certificate: connection.certificate().is_some(),
        method: caller.method().filter(|_| trusted),
        name: trusted.then(|| caller.username()),
    };
    remembered::answer(basis, answer)
}

fn answer(basis: &Basis) -> Response {
    let entries = basis.settings.entries();
    let info = ServerInfo {
        config: if basis.edits {
            Some(shown(entries.iter().map(|(key, value)| (key.as_str(), value.as_str()))))
        } else {
            basis
                .settings
                .public_login()
                .map(|public| shown(public.iter().map(|(key, value)| (*key, value.as_str()))))
        },
        api_extensions: EXTENSIONS.iter().copied().map(Text::Borrowed).collect(),
        api_status: "stable".into(),
        api_version: "1.0".into(),
        auth: if basis.trusted { "trusted" } else { "untrusted" }.into(),
        public: false,
        auth_methods: if basis.logins {
            vec!["tls".into(), "bearer".into(), "oidc".into()]
        } else {
            vec!["tls".into(), "bearer".into()]
        },
        client_certificate: basis.client_certificate,
        auth_user_name: basis.name.clone(),
        auth_user_method: basis.method.map(Into::into),
        environment: basis.trusted.then(|| environment(basis)),
    };
    if basis.edits { etag::put(sync(info), entries) } else { sync(info) }
}

/// Settings as they are shown: of a secret, that there is one (LXD: hidden values).
fn shown<'a>(entries: impl Iterator<Item = (&'a str, &'a str)>) -> Map<String, Value> {
    let shown = entries.map(|(key, value)| {
        let value = if crate::settings::is_secret(key) { settings::HIDDEN } else { value };
        (key.to_owned(), Value::from(value))
    });
    shown.collect()
}

fn environment(basis: &Basis) -> Environment {
    let machine: &'static Machine = &MACHINE;
    Environment {
        addresses: basis.addresses.to_vec(),
        architectures: vec![std::env::consts::ARCH.into()],
        certificate: basis.shown.pem.clone(),
        certificate_fingerprint: basis.shown.fingerprint.to_string(),
        driver: Text::default(),
        driver_version: Text::default(),
        kernel: machine.kernel.as_str().into(),
        kernel_architecture: std::env::consts::ARCH.into(),
        kernel_version: machine.kernel_version.as_str().into(),
        os_name: machine.os_name.as_str().into(),
        os_version: machine.os_version.as_str().into(),
        project: "default".into(),
        server: "comity".into(),
        server_clustered: false,
        server_name: basis.server.to_string(),
        server_pid: std::process::id(),
        server_version: env!("CARGO_PKG_VERSION").into(),
        storage: "dir".into(),
        storage_version: "1".into(),
    }
}

/// What does not change while the agent runs. What is not known is empty.
struct Machine {
    kernel: String,
    kernel_version: String,
    os_name: String,
    os_version: String,
}

static MACHINE: LazyLock<Machine> = LazyLock::new(|| {
    let line = |path| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        let value = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().trim_matches('"').to_owned()
    };
    Machine {
        kernel: line("/proc/sys/kernel/ostype"),
        kernel_version: line("/proc/sys/kernel/osrelease"),
        os_name: field("NAME"),
        os_version: field("VERSION_ID"),
    }
});
