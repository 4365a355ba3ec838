Name = "db"
