Kind = "exported-services"
Name = "default"
Services = [
  {
    Name      = "web"
    Namespace = "default"
    Consumers = [{ Peer = "west" }]
  }
]
