//! nginx as Debian builds it, with one worker, in the foreground.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use integration::{LIMIT, free_port, wait_for};

/// A running nginx. Killed when dropped.
pub struct Nginx {
    pub address: String,
    child: Child,
}

impl Nginx {
    /// Serves `body` as `/1.0`, with the certificate of the agent whose data folder is given, to `client` alone.
    pub fn start(folder: &Path, data_dir: &Path, client: &Path, body: &[u8]) -> Self {
        let port = free_port();
        let served = folder.join("www");
        std::fs::create_dir_all(&served).expect("a folder");
        std::fs::write(served.join("1.0"), body).expect("a file");
        // A worker that is not root must reach it.
        let config = format!(
            "worker_processes 1;
daemon off;
user root;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  default_type application/json;
  keepalive_requests 1000000000;
  open_file_cache max=16 inactive=600s;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{
    listen 127.0.0.1:{port} ssl http2 backlog=4096;
    ssl_certificate {data}/cluster.crt;
    ssl_certificate_key {data}/cluster.key;
    ssl_protocols TLSv1.3;
    ssl_ecdh_curve X25519;
    ssl_session_tickets off;
    ssl_session_cache off;
    ssl_client_certificate {client};
    ssl_verify_client on;
    location = /1.0 {{ root {served}; }}
  }}
}}
",
            folder = folder.display(),
            data = data_dir.display(),
            client = client.display(),
            served = served.display(),
        );
        let path = folder.join("nginx.conf");
        std::fs::write(&path, config).expect("a file");
        let child = Command::new("nginx")
            .arg("-c")
            .arg(&path)
            .arg("-p")
            .arg(folder)
            .args(["-e", "stderr"])
            .stdin(Stdio::null())
            .spawn()
            .expect("nginx is installed by integration/bench");
        let address = format!("127.0.0.1:{port}");
        wait_for("nginx listens", LIMIT, || std::net::TcpStream::connect(&address).ok());
        Self { address, child }
    }

    /// The process that serves.
    pub fn worker(&self) -> u32 {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        let text = std::fs::read_to_string(children).expect("nginx runs");
        text.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("nginx has a worker")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It ends its worker before itself, which a kill would leave behind.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
