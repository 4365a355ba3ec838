manifest "shop" {
  clustre = "east"
}

auth_group "clusters" {
  permissions = [{ entity_type = "server", entitlment = "can_view_metrics" }]
}

cluster_link "west" {
  auth_gruops = ["clusters"]
}

servce "backend" {
  port = 9090
}

service "backend" {
  prot   = 9090
  colour = "red"
}
