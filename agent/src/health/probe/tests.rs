use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

async fn answers(status: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 6\r\n\r\nI am\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    port
}

async fn probe(probe: Probe, limit_ms: u64) -> (Status, String) {
    let found = run(&Check::new(probe, 1_000, limit_ms), Duration::from_millis(limit_ms)).await;
    (found.status, found.output.to_string())
}

#[tokio::test]
async fn tells_apart_what_answers_well_badly_late_and_not_at_all() {
    let well = answers("204 No Content").await;
    let (status, output) = probe(Probe::Tcp(format!("127.0.0.1:{well}")), 5_000).await;
    assert_eq!((status, output), (Status::Passing, format!("TCP connect 127.0.0.1:{well}: Success")));
    let url = format!("http://127.0.0.1:{well}/ready");
    let (status, output) = probe(Probe::Http(format!("{url}?x=1")), 5_000).await;
    assert_eq!(
        (status, output.starts_with(&format!("HTTP GET {url}: 204 No Content"))),
        (Status::Passing, true)
    );

    let ill = answers("503 Service Unavailable").await;
    let (status, output) = probe(Probe::Http(format!("http://localhost:{ill}")), 5_000).await;
    assert_eq!(status, Status::Critical);
    assert!(output.contains("503 Service Unavailable Output: I am"), "{output}");
    let busy = answers("429 Too Many Requests").await;
    assert_eq!(probe(Probe::Http(format!("http://localhost:{busy}")), 5_000).await.0, Status::Warning);
    let (status, output) = probe(Probe::Http(format!("https://127.0.0.1:{well}")), 5_000).await;
    assert_eq!(status, Status::Critical);
    assert!(output.starts_with("TLS failed"), "{output}");

    // Bound and never accepting: connects, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let (status, output) = probe(Probe::Http(format!("http://{address}/")), 50).await;
    assert_eq!((status, output.as_str()), (Status::Critical, "no answer within 50 ms"));
    drop(silent);
    let (status, output) = probe(Probe::Tcp(address.to_string()), 5_000).await;
    assert_eq!(status, Status::Critical);
    assert!(output.starts_with("cannot connect to"), "{output}");
}

#[tokio::test]
async fn asks_what_the_check_says_over_tls_too() {
    let signed = rcgen::generate_simple_self_signed(["instance.example".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut heard = vec![0; 4096];
            let length = stream.read(&mut heard).await.unwrap_or_default();
            let heard = String::from_utf8_lossy(&heard[..length]).into_owned();
            let said = heard.starts_with("POST /ready") && heard.contains("x-probe: yes");
            let status = if said { "200 OK" } else { "400 Bad Request" };
            let _ =
                stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    let mut check = Check::new(Probe::Http(format!("https://{address}/ready")), 1_000, 5_000);
    let limit = Duration::from_secs(5);
    let found = run(&check, limit).await;
    assert_eq!(found.status, Status::Critical);
    assert!(found.output.starts_with("TLS failed"), "{}", found.output);
    check.request = Some(Box::new(HttpRequest {
        method: "POST".to_owned(),
        header: [("x-probe".to_owned(), vec!["yes".to_owned()])].into(),
        tls_skip_verify: true,
        ..HttpRequest::default()
    }));
    let found = run(&check, limit).await;
    assert_eq!(found.status, Status::Passing, "{}", found.output);
}

#[tokio::test]
async fn asks_nothing_where_clouds_give_out_credentials_and_shows_no_query() {
    let limit = Duration::from_secs(5);
    let ask = |url: &str| Check::new(Probe::Http(url.to_owned()), 1_000, 5_000);
    for url in ["http://169.254.169.254/latest", "http://[::ffff:169.254.169.254]/", "http://[fe80::1]/"] {
        let found = run(&ask(url), limit).await;
        assert!(found.output.contains("link-local"), "{url}: {}", found.output);
    }
    let well = answers("200 OK").await;
    let found = run(&ask(&format!("http://127.0.0.1:{well}/ready?key=secret")), limit).await;
    assert_eq!(found.status, Status::Passing);
    assert!(found.output.contains("/ready: 200") && !found.output.contains("secret"), "{}", found.output);
}
