cluster_link "west" {
  type = "unidirectional"
}

cluster_link "north" {
  type        = "public"
  auth_groups = []
}
