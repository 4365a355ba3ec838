manifest "billing" { cluster = "east" }

service "backend" {}
