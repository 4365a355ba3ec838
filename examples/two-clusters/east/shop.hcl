# What the cluster "east" offers and to whom.
manifest "shop" {
  cluster = "east" # the remote that this folder is applied to
}

auth_group "clusters" {
  description = "What linked clusters may do here"
  permissions = [{ entity_type = "server", entitlement = "can_view_metrics" }]
}

cluster_link "west" { # pairs with cluster_link "east" in the manifest whose cluster is "west"
  auth_groups = ["clusters"]
}

service "backend" {
  port   = 19090
  checks = [{ tcp = "127.0.0.1:19090", interval = "1s" }]
}

exported_services "default" {
  services = [{ name = "backend", consumers = [{ peer = "west" }] }]
}

service_intentions "backend" {
  sources = [{ name = "frontend", peer = "west", action = "allow" }]
}

volume "default/orders" {}
