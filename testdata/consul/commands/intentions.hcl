Kind = "service-intentions"
Name = "db"
Sources = [
  {
    Name   = "*"
    Action = "deny"
  },
  {
    Name        = "web"
    Action      = "allow"
    Description = "the shop"
  },
  {
    Name   = "frontend"
    Peer   = "west"
    Action = "allow"
  }
]
Meta {
  team = "a"
}
