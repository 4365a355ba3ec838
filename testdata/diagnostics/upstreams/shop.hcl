service "frontend" {
  proxy_protocol = "v1"
  upstreams = [
    { destination_name = "a", local_bind_port = 1, local_bind_socket_path = "/run/a.sock" },
    { destination_name = "b", local_bind_socket_path = "run/b.sock", local_bind_socket_mode = "0888" },
    { destination_name = "c", local_bind_port = 3, local_bind_socket_mode = "0600", allowed_uids = [] },
    { destination_name = "d", destination_peer = "west", sameness_group = "all", local_bind_port = 4 },
    { destination_name = "e", local_bind_port = 5, failover = [{ peer = "west" }, { peer = "west" }, {}] },
    { destination_name = "f", local_bind_port = 6, allowed_uids = [-1, "root", 33] },
    { destination_name = "g", local_bind_socket_path = "/run/g.sock", failover = [{ pear = "west" }] },
    { destination_name = "h", destination_peer = "west", local_bind_port = 8, failover = [{ name = "h", peer = "west" }] },
    { destination_name = "i" },
  ]
}

cluster_link "west" {}
