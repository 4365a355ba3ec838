//! `?project=`: which project a request is about, asked of every request under `/1.0`.

use axum::Extension;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use schema::name::ProjectName;

use crate::api::ApiState;
use crate::api::lxd::answer::LxdError;
use crate::trust::entity::DEFAULT_PROJECT;
use crate::trust::{Access, Caller, Who};

/// Refuses a request about a project that is not there, or that the caller is not let into. Who is unknown hears
/// nothing about projects.
pub async fn check(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Response {
    if let Some(project) = named(request.uri().query().unwrap_or_default())
        && caller.is_trusted()
    {
        if let Who::Client { access: Access::Projects(projects), .. } = &caller.who
            && !projects.iter().any(|own| own.as_str() == project)
        {
            // LXD's words; a name that is none is not repeated.
            let shown = project.parse::<ProjectName>().map(|name| name.to_string()).unwrap_or_default();
            let message = format!("User does not have permission for project {shown:?}");
            return LxdError::new(StatusCode::FORBIDDEN, message).into_response();
        }
        if !state.projects.contains(&project) {
            return LxdError::new(StatusCode::NOT_FOUND, "Project not found").into_response();
        }
    }
    next.run(request).await
}

/// The project that a query names.
fn named(query: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("project="))?;
    // Names need no escapes; what has some is no name, and is found nowhere.
    (!value.is_empty()).then(|| value.to_owned())
}

pub fn default_project() -> ProjectName {
    DEFAULT_PROJECT.parse().unwrap_or_else(|_| unreachable!("a constant name is a name"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_project_is_found_wherever_it_is_named() {
        assert_eq!(super::named("recursion=1&project=blah").as_deref(), Some("blah"));
        assert_eq!(super::named("all-projects=true&project="), None);
        assert_eq!(super::named("myproject=x"), None);
    }
}
