manifest "shop" {
  cluster = "east"
}

service "backend" {
  port = 9090
}
