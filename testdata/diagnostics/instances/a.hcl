service "web" {
  port   = 80
  checks = [{ ttl = "30s", interval = "10s" }, { id = "one", tcp = "127.0.0.1:80", http = "http://127.0.0.1/" }]
}
service "web" {
  id                = "web-2"
  address           = "0.0.0.0"
  socket_path       = "relative"
  weights           = { passing = 0 }
  tagged_addresses  = { lan = { port = 1 }, wan = "10.0.0.1" }
  connect           = { native = "yes" }
  checks = [
    { id = "beat", ttl = "10ms" },
    { id = "beat", ttl = "30s", status = "fine", failures_before_warning = 3 },
    { id = "beat", ttl = "30s", deregister_critical_service_after = "5m" },
    { args = ["/bin/true"], interval = "10s" },
    { http = "https://user:secret@127.0.0.1/", header = { "X A" = ["b"] }, method = "get" },
  ]
}
service "api" {
  id = "web-2"
}
service "web-2" {}
service "web" {
  id = "a/b"
}
