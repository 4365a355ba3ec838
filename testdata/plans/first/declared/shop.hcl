manifest "shop" {
  cluster = "east"
}

auth_group "clusters" {
  description = "What linked clusters may do here"
  permissions = [
    { entity_type = "server", entitlement = "can_view_metrics" },
    { entity_type = "server", entitlement = "can_view_resources" },
  ]
}

cluster_link "west" {
  auth_groups = ["clusters"]
}

service "backend" {
  port   = 9090
  checks = [{ tcp = "127.0.0.1:9090", interval = "10s" }]
}

exported_services "default" {
  services = [{ name = "backend", consumers = [{ peer = "west" }] }]
}

service_intentions "backend" {
  sources = [
    { name = "frontend", peer = "west", action = "allow" },
    { name = "*", action = "deny" },
  ]
}

volume "default/orders" {}

transfer "orders-to-west" {
  source = "east:default/orders"
  target = "west:default/orders"
  mode   = "refresh"
}
