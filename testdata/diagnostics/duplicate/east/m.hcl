manifest "shop" {
  cluster = "east"
}

service "backend" {}
service "backend" {}

exported_services "default" {
  services = [{ name = "backend", consumers = [{ peer = "west" }] }]
}

exported_services "default" {
  services = [{ name = "backend", consumers = [{ peer = "north" }] }]
}

service_intentions "backend" {
  sources = [{ name = "a", action = "allow" }]
}

cluster_link "west" {}
cluster_link "north" {}
cluster_link "east" {}
cluster_link "self" { cluster = "east" }

service "u1" {
  upstreams = [{ destination_name = "backend", local_bind_port = 9191 }]
}

service "u2" {
  upstreams = [{ destination_name = "backend", local_bind_port = 9191, local_bind_address = "127.0.0.1" }]
}
