manifest "shop" { cluster = "west" }

service "backend" {}
