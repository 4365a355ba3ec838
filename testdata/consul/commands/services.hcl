services {
  name = "web"
  id   = "web-1"
  port = 9001
  tags = ["v1"]
  meta {
    team = "a"
  }
  check {
    ttl = "10m"
  }
}
services {
  name = "mail"
  port = 9002
}
