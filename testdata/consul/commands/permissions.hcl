Kind = "service-intentions"
Name = "web"
Sources = [
  {
    Name = "shop"
    Permissions = [
      {
        Action = "allow"
        HTTP {
          PathPrefix = "/orders"
          Methods    = ["GET"]
        }
      }
    ]
  }
]
