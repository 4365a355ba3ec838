auth_group "g" {
  permissions = [
    { entity_type = "servr", entitlement = "can_edit" },
    { entity_type = "image", entitlement = "can_edit" },
    { entity_type = "server", entitlement = "can_veiw_metrics" },
    { entity_type = "server", entitlement = "admin", entity = "x" },
    { entity_type = "instance", entitlement = "can_exec", entity = "c1" },
    { entity_type = "storage_volume", entitlement = "can_view" },
    { entity_type = "cluster_link", entitlement = "can_view" },
    { entitlement = "admin" },
  ]
}

auth_group "h" {
  permissions {
    entity_type = "project"
    entitlement = "operator"
    entity      = "default"
  }
  permissions {
    entity_type = "server"
  }
}
