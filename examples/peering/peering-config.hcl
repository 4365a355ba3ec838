# What cluster-01 offers to cluster-02.
Kind = "exported-services"
Name = "default"
Services = [
  {
    Name      = "backend-service"
    Namespace = "default"

    Consumers = [
      {
        # The name that the peering was given here.
        Peer = "cluster-02"
      }
    ]
  }
]
