manifest "shop" {
  cluster = "west"
  owners  = ["clusters"]
}

auth_group "clusters" {
  permissions = [{ entity_type = "server", entitlement = "can_view_metrics" }]
}

cluster_link "east" {
  type        = "bidirectional"
  auth_groups = ["clusters"]
  token_env   = "EAST_TOKEN"
}

service "frontend" {
  port      = 9000
  upstreams = [{ destination_name = "backend", destination_peer = "east", local_bind_port = 9191 }]
}
