manifest "shop" { # owner of all that this folder declares
  cluster     = "east"
  description = "The shop's backend"
}

locals {
  port = 9090
}

auth_group "clusters" {
  description = "What linked clusters may do here"
  permissions = [
    { entity_type = "server", entitlement = "can_view_metrics" },
    { entity_type = "storage_volume", entitlement = "can_view", entity = "orders", project = "default", pool = "default" },
  ]
}

cluster_link "west" { # pairs with cluster_link "east" of the manifest whose cluster is "west"
  auth_groups = ["clusters"]
}

service "backend" {
  port   = local.port
  tags   = ["v1", "shop"]
  meta   = { team = "orders" }
  checks = [{ tcp = "127.0.0.1:${local.port}", interval = "10s" }]
}

exported_services "default" {
  services = [{ name = "backend", consumers = [{ peer = "west" }] }]
}

service_intentions "backend" {
  sources = [
    { name = "frontend", peer = "west", action = "allow", description = "The shop window" },
    { name = "*", action = "deny" },
  ]
}

volume "default/orders" {}

transfer "orders-to-west" {
  source = "east:default/orders"
  target = "west:default/orders"
  mode   = "refresh"
}

transfer "web-to-west" {
  source        = "east:web"
  target        = "west:web-copy"
  connect       = "push"
  instance_only = true
}

transfer "monday-to-west" {
  source             = "default/orders"
  snapshot           = "monday"
  target             = "west:default/monday"
  mode               = "copy"
  allow_inconsistent = true
}
