manifest "shop" {
  cluster = "east"
  owners  = ["wizard"]
}

auth_group "clusters" {}

cluster_link "west" {
  auth_groups = ["clusters", "cluster"]
}

service "frontend" {
  upstreams = [{ destination_name = "backend", destination_peer = "wset", local_bind_port = 9191 }]
}

service_intentions "backend" {
  sources = [{ name = "frontend", peer = "west", action = "allow" }, { name = "frontend", peer = "north", action = "allow" }]
}

transfer "t" {
  source = "west:default/gone"
  target = "default/copy"
}
