manifest "shop" {
  cluster = "west"
}

cluster_link "east" {}
