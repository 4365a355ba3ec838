manifest "shop" {}

volume "default/orders" {
  config = {
    "size"               = "10GiB"
    "snapshots.schedule" = "@daily, 30 12 * * 1-5"
    "snapshots.expiry"   = "2w 3d"
    "snapshots.pattern"  = "daily-%d"
    "user.owner"         = "shop"
    "security.shifted"   = true
  }
}

volume "default/wrong" {
  config = {
    "snapshot.expiry"    = "1w"
    "snapshots.expiry"   = "soon"
    "snapshots.schedule" = "61 * * * *"
    "snapshots.pattern"  = "{{ config.secret }}"
    "size"               = "10 parsecs"
    "volatile.uuid"      = "mine"
    "user.list"          = ["a"]
  }
}
