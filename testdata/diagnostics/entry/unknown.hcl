Kind = "service-intention"
Name = "web"
