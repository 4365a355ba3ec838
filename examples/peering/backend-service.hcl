service {
  name = "backend-service"
  port = 19290

  check {
    tcp      = "127.0.0.1:19290"
    interval = "1s"
  }
}
