# The app on cluster-02: its port there, and where it finds cluster-01's backend-service.
manifest "frontend" {
  cluster = "cluster-02"
}

service "frontend-service" {
  port = 19200
  upstreams = [
    { destination_name = "backend-service", destination_peer = "cluster-01", local_bind_port = 19291 },
  ]
}
