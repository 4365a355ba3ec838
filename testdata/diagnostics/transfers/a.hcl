volume "default/orders" {}

transfer "kinds" {
  source = "default/orders"
  target = "west:orders"
}

transfer "itself" {
  source = "web"
  target = "web"
}

transfer "names" {
  source = "east:my_web"
  target = "we st:default/orders"
}

transfer "flags" {
  source        = "default/orders"
  target        = "west:default/orders"
  mode          = "copy"
  connect       = "pul"
  instance_only = true
  prune         = true
  volume_only   = "yes"
}

transfer "nothing-to-prune" {
  source      = "default/orders"
  target      = "west:default/orders"
  volume_only = true
  prune       = true
}

transfer "snapshot" {
  source        = "web"
  snapshot      = "monday"
  target        = "west:web"
  instance_only = true
}

transfer "good" {
  source   = "web"
  snapshot = "monday"
  target   = "west:web"
  mode     = "copy"
}

transfer "unknown" {
  source    = "default/orders"
  target    = "west:default/orders"
  snapshots = false
}
