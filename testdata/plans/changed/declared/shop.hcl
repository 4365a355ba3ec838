# Against live.json: a permission swapped, a link's trust left half made, a port changed, a service taken over that was
# made by hand, an export added beside another manifest's, a source turned from allow to deny, and a volume, a service
# and an intention no longer declared.
manifest "shop" {
  cluster = "east"
  owners  = ["clusters"]
}

auth_group "clusters" {
  permissions = [
    { entity_type = "server", entitlement = "can_view_events" },
    { entity_type = "server", entitlement = "can_view_metrics" },
  ]
}

cluster_link "west" {
  auth_groups = ["clusters"]
}

service "backend" {
  port = 9091
  tags = ["v2"]
}

service "legacy" {
  port = 80
}

exported_services "default" {
  services = [{ name = "backend", consumers = [{ peer = "west" }] }]
}

service_intentions "backend" {
  sources = [
    { name = "frontend", peer = "west", action = "deny" },
    { name = "admin", action = "allow" },
  ]
}
