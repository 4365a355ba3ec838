//! Taking a connection over from HTTP, for protocols that speak both ways.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;

use super::problem::Problem;

/// The answer that agrees to speak `protocol`, and what becomes the connection once that answer is sent.
pub fn take_over(request: &mut Request, protocol: &'static str) -> Result<(Response, OnUpgrade), Problem> {
    let asked = request.headers().get(header::UPGRADE).is_some_and(|asked| asked == protocol);
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let (true, Some(upgrade)) = (asked, upgrade) else {
        let message = format!("this is spoken over HTTP/1.1 with `Upgrade: {protocol}`");
        return Err(Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", message)
            .hint("Use the same version of comity on both sides."));
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(protocol));
    Ok((response, upgrade))
}
