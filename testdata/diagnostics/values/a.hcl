locals {
  a    = local.b
  b    = local.a
  text = "x"
}

locals {
  words = ["x"]
  text  = "z"
}

auth_group "a" {
  description = local.txet
}

auth_group "b" {
  description = upper("x")
}

auth_group "c" {
  description = env("HOME", "x")
}

auth_group "d" {
  description = "${env("COMITY_NOT_SET")}!"
}

auth_group "e" {
  description = [for x in local.words : x][0]
}

auth_group "f" {
  description = words
}

auth_group "g" {
  description = local.words
}

auth_group "h" {
  description = "a ${local.words} b"
}

auth_group "i" {
  description = local.words[3]
}

auth_group "j" {
  description = "%{ if true }x%{ endif }"
}

cluster_link "k" {
  type = local.words[0]
}
