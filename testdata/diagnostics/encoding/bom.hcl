service "a" {
  prot = 1
}
