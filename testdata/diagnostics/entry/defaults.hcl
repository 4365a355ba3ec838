Kind = "proxy-defaults"
Name = "web"
Protocol = "http"
