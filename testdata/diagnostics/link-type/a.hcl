cluster_link "west" {
  type = "one-way"
}

cluster_link "south" {
  type        = "unidirectional"
  auth_groups = ["clusters"]
  token_env   = "TOKEN"
}

cluster_link "north" {
  type        = "public"
  auth_groups = []
  address     = "north.example.com:0"
  config      = { "volatile.addresses" = "a:1" }
}

cluster_link "east" {
  fingerprint = "abc"
}

auth_group "clusters" {
  permissions = [{ entity_type = "server", entitlement = "can_view_metrics" }]
}
