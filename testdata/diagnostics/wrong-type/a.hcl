service "a" {
  port      = "9090"
  tags      = "v1"
  meta      = ["x"]
  checks    = [{ tcp = "127.0.0.1", interval = 10 }, { http = "ftps://x/" }, {}]
  upstreams = [{ destination_name = true, local_bind_port = 70000, local_bind_address = "0.0.0.0" }, "db"]
}

service "b" {
  port    = 80.5
  address = "0.0.0.0"
  checks  = [{ tcp = "[::1]:80", interval = "1ms", timeout = "soon" }]
}

cluster_link "west" {
  type        = "bidirectionel"
  auth_groups = [1, "", "a b"]
}

transfer "t" {
  source = "default/a"
  target = "default/a"
  mode   = "move"
}

transfer "u" {
  source = "default/orders/monday"
}

volume "orders" {}

volume "default/" {}

cluster_link "-west" {}

service "a" "b" {}

service {}
