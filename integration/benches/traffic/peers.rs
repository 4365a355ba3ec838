//! The others, as Debian builds them, each set up twice: A takes what is in the clear to B over mutual TLS 1.3, with a
//! client certificate; B insists on that one and goes on in the clear.
//!
//! What they do by themselves to be fast is left to them: haproxy and nginx resume TLS sessions between A and B.

use std::fmt::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use integration::{LIMIT, certificate, free_port, wait_for};

use super::contender::{Contender, Process};
use super::load;

/// The cipher that our own links agree on, too.
const CIPHER: &str = "TLS_AES_256_GCM_SHA384";

/// Whether one of this name was asked for.
type Chosen<'a> = &'a dyn Fn(&str) -> bool;

/// A chain of ports: the app's, the one of TLS, the server's.
struct Way {
    name: &'static str,
    app: u16,
    tls: u16,
    server: u16,
}

impl Way {
    fn to(name: &'static str, server: u16) -> Self {
        Self { name, app: free_port(), tls: free_port(), server }
    }
}

/// A folder of its own with the certificates `a` and `b`, each also with its key in one file.
fn folder(within: &Path, name: &str) -> PathBuf {
    let folder = within.join(name);
    for end in ["a", "b"] {
        certificate::p256(&folder, end);
        let read =
            |suffix: &str| std::fs::read_to_string(folder.join(format!("{end}.{suffix}"))).expect("a file");
        certificate::write_secret(&folder.join(format!("{end}.pem")), &(read("crt") + &read("key")));
    }
    folder
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("a file");
    path
}

/// Waits until requests go through.
fn ready(name: &'static str, ways: &[Way], processes: Vec<u32>, children: Vec<Process>) -> Contender {
    let (web, bulk) = (ways[0].app, ways.get(1).map(|way| way.app));
    wait_for(&format!("{name} answers"), LIMIT, || {
        load::once(&mut TcpStream::connect(("127.0.0.1", web)).ok()?).ok()
    });
    Contender::new(name, web, bulk, processes, children)
}

pub fn haproxy(within: &Path, origin: u16, receiver: u16, chosen: Chosen) -> Option<Contender> {
    let ways = [Way::to("web", origin), Way::to("bulk", receiver)];
    chosen("haproxy").then(|| haproxies("haproxy", within, &ways, "mode tcp"))
}

pub fn haproxy_http(within: &Path, origin: u16, _receiver: u16, chosen: Chosen) -> Option<Contender> {
    let how = "mode http\n  http-reuse always";
    chosen("haproxy_http").then(|| haproxies("haproxy_http", within, &[Way::to("web", origin)], how))
}

fn haproxies(name: &'static str, within: &Path, ways: &[Way], how: &str) -> Contender {
    let folder = folder(within, name);
    let head = format!(
        "global
  nbthread 1
  maxconn 8000
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-bind-ciphersuites {CIPHER}
  ssl-default-server-options ssl-min-ver TLSv1.3
  ssl-default-server-ciphersuites {CIPHER}
defaults
  {how}
  backlog 4096
  timeout connect 10s
  timeout client 10m
  timeout server 10m
"
    );
    let (mut a, mut b) = (head.clone(), head);
    for Way { name, app, tls, server } in ways {
        let dir = folder.display();
        write!(
            a,
            "listen {name}\n  bind 127.0.0.1:{app}\n  \
             server b 127.0.0.1:{tls} ssl crt {dir}/a.pem ca-file {dir}/b.crt verify required verifyhost b\n"
        )
        .expect("a text takes it");
        write!(
            b,
            "listen {name}\n  bind 127.0.0.1:{tls} ssl crt {dir}/b.pem ca-file {dir}/a.crt verify required\n  \
             server s 127.0.0.1:{server}\n"
        )
        .expect("a text takes it");
    }
    let children: Vec<Process> = [("b.cfg", b), ("a.cfg", a)]
        .into_iter()
        .map(|(file, text)| {
            Process::start(Command::new("haproxy").args(["-q", "-db", "-f"]).arg(write(&folder, file, &text)))
        })
        .collect();
    ready(name, ways, children.iter().map(Process::pid).collect(), children)
}

pub fn nginx(within: &Path, origin: u16, receiver: u16, chosen: Chosen) -> Option<Contender> {
    chosen("nginx").then(|| {
        let ways = [Way::to("web", origin), Way::to("bulk", receiver)];
        let folder = folder(within, "nginx");
        let dir = folder.display();
        let (mut a, mut b) = (String::new(), String::new());
        for Way { app, tls, server, .. } in &ways {
            write!(
                a,
                "server {{ listen 127.0.0.1:{app} backlog=4096; proxy_pass 127.0.0.1:{tls}; proxy_ssl on;
    proxy_ssl_certificate {dir}/a.crt; proxy_ssl_certificate_key {dir}/a.key; proxy_ssl_protocols TLSv1.3;
    proxy_ssl_conf_command Ciphersuites {CIPHER};
    proxy_ssl_verify on; proxy_ssl_trusted_certificate {dir}/b.crt; proxy_ssl_name b; }}\n"
            )
            .expect("a text takes it");
            writeln!(b, "server {{ {} proxy_pass 127.0.0.1:{server}; }}", tls_listener(&folder, *tls))
                .expect("a text takes it");
        }
        let module = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;";
        let stream = |servers: &str| format!("stream {{\n{servers}}}\n");
        nginxes("nginx", &folder, &ways, module, [stream(&b), stream(&a)])
    })
}

pub fn nginx_http(within: &Path, origin: u16, _receiver: u16, chosen: Chosen) -> Option<Contender> {
    chosen("nginx_http").then(|| {
        let ways = [Way::to("web", origin)];
        let folder = folder(within, "nginx_http");
        let dir = folder.display();
        let Way { app, tls, server, .. } = &ways[0];
        let a = format!(
            "upstream up {{ server 127.0.0.1:{tls}; keepalive 64; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{app} backlog=4096;
    location / {{ proxy_pass https://up; {KEPT}
      proxy_ssl_certificate {dir}/a.crt; proxy_ssl_certificate_key {dir}/a.key; proxy_ssl_protocols TLSv1.3;
      proxy_ssl_conf_command Ciphersuites {CIPHER};
      proxy_ssl_verify on; proxy_ssl_trusted_certificate {dir}/b.crt; proxy_ssl_name b; }} }}\n"
        );
        let b = format!(
            "upstream up {{ server 127.0.0.1:{server}; keepalive 64; keepalive_requests 1000000000; }}
  server {{ {} location / {{ proxy_pass http://up; {KEPT} }} }}\n",
            tls_listener(&folder, *tls)
        );
        let http = |servers: &str, end: &str| {
            format!(
                "http {{ access_log off; keepalive_requests 1000000000;
  client_body_temp_path {dir}/{end}1; proxy_temp_path {dir}/{end}2; fastcgi_temp_path {dir}/{end}3;
  uwsgi_temp_path {dir}/{end}4; scgi_temp_path {dir}/{end}5;
  {servers}}}\n"
            )
        };
        nginxes("nginx_http", &folder, &ways, "", [http(&b, "b"), http(&a, "a")])
    })
}

const KEPT: &str = "proxy_http_version 1.1; proxy_set_header Connection \"\";";

fn tls_listener(folder: &Path, port: u16) -> String {
    format!(
        "listen 127.0.0.1:{port} ssl backlog=4096; ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites {CIPHER};
    ssl_certificate {dir}/b.crt; ssl_certificate_key {dir}/b.key;
    ssl_client_certificate {dir}/a.crt; ssl_verify_client on;",
        dir = folder.display()
    )
}

fn nginxes(name: &'static str, folder: &Path, ways: &[Way], module: &str, blocks: [String; 2]) -> Contender {
    let dir = folder.display();
    let children: Vec<Process> = ["b", "a"]
        .into_iter()
        .zip(blocks)
        .map(|(end, block)| {
            let text = format!(
                "{module}\nworker_processes 1;\ndaemon off;\nuser root;\npid {dir}/{end}.pid;\n\
                 error_log {dir}/{end}.log crit;\nworker_rlimit_nofile 20000;\n\
                 events {{ worker_connections 16000; }}\n{block}"
            );
            let config = write(folder, &format!("{end}.conf"), &text);
            Process::start(
                Command::new("nginx").arg("-c").arg(config).arg("-p").arg(folder).args(["-e", "stderr"]),
            )
        })
        .collect();
    let workers =
        children.iter().map(|child| wait_for("nginx has a worker", LIMIT, || child.worker())).collect();
    ready(name, ways, workers, children)
}

pub fn stunnel(within: &Path, origin: u16, receiver: u16, chosen: Chosen) -> Option<Contender> {
    chosen("stunnel").then(|| {
        let ways = [Way::to("web", origin), Way::to("bulk", receiver)];
        let folder = folder(within, "stunnel");
        let dir = folder.display();
        let head =
            format!("foreground = yes\npid =\ndebug = 2\nsslVersionMin = TLSv1.3\nciphersuites = {CIPHER}\n");
        let (mut a, mut b) = (head.clone(), head);
        for Way { name, app, tls, server } in &ways {
            write!(
                a,
                "[{name}]\nclient = yes\naccept = 127.0.0.1:{app}\nconnect = 127.0.0.1:{tls}\n\
                 cert = {dir}/a.pem\nverifyPeer = yes\nCAfile = {dir}/b.crt\n"
            )
            .expect("a text takes it");
            write!(
                b,
                "[{name}]\naccept = 127.0.0.1:{tls}\nconnect = 127.0.0.1:{server}\n\
                 cert = {dir}/b.pem\nverifyPeer = yes\nCAfile = {dir}/a.crt\n"
            )
            .expect("a text takes it");
        }
        let children: Vec<Process> = [("b.conf", b), ("a.conf", a)]
            .into_iter()
            .map(|(file, text)| Process::start(Command::new("stunnel4").arg(write(&folder, file, &text))))
            .collect();
        ready("stunnel", &ways, children.iter().map(Process::pid).collect(), children)
    })
}
