Kind = "service-intentions"
Name = "db
