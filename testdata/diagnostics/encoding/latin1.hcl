auth_group "a" {
  description = "café"
}
