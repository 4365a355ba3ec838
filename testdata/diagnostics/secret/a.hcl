cluster_link "eyJzZXJ2ZXJfbmFtZSI6ImVhc3QiLCJmaW5nZXJwcmludCI6IjEyMzQ1Njc4OTAiLCJzZWNyZXQiOiJhYmMxMjMifQ==" {
}

cluster_link "west" {
  token      = "eyJzZXJ2ZXJfbmFtZSI6ImVhc3QiLCJmaW5nZXJwcmludCI6IjEyMzQ1Njc4OTAiLCJzZWNyZXQiOiJhYmMxMjMifQ=="
  token_file = "eyJzZXJ2ZXJfbmFtZSI6ImVhc3QiLCJmaW5nZXJwcmludCI6IjEyMzQ1Njc4OTAiLCJzZWNyZXQiOiJhYmMxMjMifQ=="
  cluster    = "eyJzZXJ2ZXJfbmFtZSI6ImVhc3QiLCJmaW5nZXJwcmludCI6IjEyMzQ1Njc4OTAiLCJzZWNyZXQiOiJhYmMxMjMifQ=="
}

service "backend" {
  meta = { token = "eyJzZXJ2ZXJfbmFtZSI6ImVhc3QiLCJmaW5nZXJwcmludCI6IjEyMzQ1Njc4OTAiLCJzZWNyZXQiOiJhYmMxMjMifQ==" }, port = 1
}

service "b" {
  tagz = ["eyJzZXJ2ZXJfbmFtZSI6ImVhc3QiLCJmaW5nZXJwcmludCI6IjEyMzQ1Njc4OTAiLCJzZWNyZXQiOiJhYmMxMjMifQ=="]
  description = <<-END
    -----BEGIN PRIVATE KEY-----
    c2hvcnQ=
    -----END PRIVATE KEY-----
  END
}

eyJzZXJ2ZXJfbmFtZSI6ImVhc3QiLCJmaW5nZXJwcmludCI6IjEyMzQ1Njc4OTAiLCJzZWNyZXQiOiJhYmMxMjMifQ== "x" {}

auth_group "g" {
  description = env("TOKEN")
  permissions = [{ entity_type = "eyJzZXJ2ZXJfbmFtZSI6ImVhc3QiLCJmaW5nZXJwcmludCI6IjEyMzQ1Njc4OTAiLCJzZWNyZXQiOiJhYmMxMjMifQ==", entitlement = "can_view" }, { entity_type = "server", entitlement = "eyJzZXJ2ZXJfbmFtZSI6ImVhc3QiLCJmaW5nZXJwcmludCI6IjEyMzQ1Njc4OTAiLCJzZWNyZXQiOiJhYmMxMjMifQ==" }]
}
