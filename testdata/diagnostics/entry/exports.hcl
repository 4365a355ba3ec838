Kind = "exported-services"
Name = "defualt"
Partition = "west"
Services = [
  {
    Name = "web"
    Namespace = "team-a"
    Consumers = [{ Peer = "*" }, { PeerName = "a" }, { Peer = "b" Partition = "c" }, { SamenessGroup = "g" }]
  },
  { Name = "db" },
  { Consumers = [{ Peer = "west" }] },
]
