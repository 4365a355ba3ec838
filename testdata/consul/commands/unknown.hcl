Kind = "service-intentions"
Name = "db"
Sauces = []
