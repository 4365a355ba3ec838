# What the cluster "west" uses.
manifest "shop" {
  cluster = "west"
}

auth_group "clusters" {
  description = "What linked clusters may do here"
  permissions = [{ entity_type = "server", entitlement = "can_view_metrics" }]
}

cluster_link "east" {
  auth_groups = ["clusters"]
}

service "frontend" {
  port = 19000
  upstreams = [
    { destination_name = "backend", destination_peer = "east", local_bind_port = 19191 },
  ]
}
