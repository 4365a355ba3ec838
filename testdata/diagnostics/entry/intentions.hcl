kind = "service-intentions"
name = "db"
sources {
  name = "web"
  action = "alow"
}
sources = [
  { name = "api", action = "deny", peer = "*" },
  { name = "api", action = "deny", namespace = "other" },
  { name = "api", action = "allow" },
  { name = "l7", permissions = [{ action = "allow" http { path_prefix = "x" methods = ["GET", "get", "YOINK"] } }] },
]
