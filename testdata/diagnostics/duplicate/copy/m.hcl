manifest "shop" { cluster = "west" }
