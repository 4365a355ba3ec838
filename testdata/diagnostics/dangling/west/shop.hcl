manifest "shop" {
  cluster = "west"
}
