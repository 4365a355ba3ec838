//! One probe of one instance.

use std::io;
use std::time::Duration;

use http::{Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use schema::kind::service::Probe;
use tokio::net::TcpStream;

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    #[error("no answer in time")]
    Timeout,
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("not a URL that can be probed: http://HOST[:PORT]/PATH is")]
    Url,
    #[error("HTTP failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("answered {0}, where 2xx is well")]
    Status(StatusCode),
}

/// Asks once, for `timeout` at most.
pub(super) async fn run(probe: &Probe, timeout: Duration) -> Result<(), ProbeError> {
    let asked = async {
        match probe {
            Probe::Tcp(address) => connect(address).await.map(drop),
            Probe::Http(url) => get(url).await,
        }
    };
    tokio::time::timeout(timeout, asked).await.unwrap_or(Err(ProbeError::Timeout))
}

async fn connect(address: &str) -> Result<TcpStream, ProbeError> {
    TcpStream::connect(address).await.map_err(ProbeError::Connect)
}

/// A redirection is not followed: it says nothing of the instance that was asked.
async fn get(url: &str) -> Result<(), ProbeError> {
    let url: Uri = url.parse().map_err(|_| ProbeError::Url)?;
    let authority = url.authority().filter(|_| url.scheme_str() == Some("http")).ok_or(ProbeError::Url)?;
    let stream = connect(&format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80))).await?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(header::HOST, authority.as_str())
        .header(header::USER_AGENT, "comity")
        .header(header::CONNECTION, "close")
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|_| ProbeError::Url)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Driven here, beside the request, so that both end with the probe; the body is of no interest. A connection
    // that ends may have brought the answer with it, so the request has the last word.
    let mut response = std::pin::pin!(sender.send_request(request));
    let response = tokio::select! {
        response = &mut response => response?,
        ended = connection => {
            ended?;
            response.await?
        }
    };
    if response.status().is_success() { Ok(()) } else { Err(ProbeError::Status(response.status())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn answers(status: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream
                    .write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes())
                    .await;
            }
        });
        port
    }

    #[tokio::test]
    async fn tells_apart_what_answers_well_badly_late_and_not_at_all() {
        let limit = Duration::from_secs(5);
        let well = answers("204 No Content").await;
        run(&Probe::Tcp(format!("127.0.0.1:{well}")), limit).await.unwrap();
        run(&Probe::Http(format!("http://127.0.0.1:{well}/ready?x=1")), limit).await.unwrap();

        let ill = answers("503 Service Unavailable").await;
        let error = run(&Probe::Http(format!("http://localhost:{ill}")), limit).await.unwrap_err();
        assert!(matches!(error, ProbeError::Status(StatusCode::SERVICE_UNAVAILABLE)), "{error}");
        let error = run(&Probe::Http(format!("https://127.0.0.1:{well}")), limit).await.unwrap_err();
        assert!(matches!(error, ProbeError::Url), "{error}");

        // Bound and never accepting: connects, and never answers.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        let error =
            run(&Probe::Http(format!("http://{address}/")), Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, ProbeError::Timeout), "{error}");
        drop(silent);
        let error = run(&Probe::Tcp(address.to_string()), limit).await.unwrap_err();
        assert!(matches!(error, ProbeError::Connect(_)), "{error}");
    }
}
