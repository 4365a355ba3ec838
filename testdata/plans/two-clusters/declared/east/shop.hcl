manifest "shop" {
  cluster = "east"
}

cluster_link "west" {}
