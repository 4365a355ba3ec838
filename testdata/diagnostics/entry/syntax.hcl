Kind = "service-intentions"
Name = web
Sources = [
  { Name = "a" Action = "allow" }
  { Name = "b", Action = }
]
Meta {
  a = "\q"
}
Description = "open
