# What a peer exports, seen by py-consul. Arguments: an HTTPS port, a certificate, its key, what the agent's certificate
# is checked against, and its name; the peer, and its one exported service.
import sys

import consul
import requests


class Named(requests.adapters.HTTPAdapter):
    """Expects this name in the agent's certificate, as `CONSUL_TLS_SERVER_NAME` says it to `consul`."""

    def __init__(self, name):
        self.name = name
        super().__init__()

    def init_poolmanager(self, *args, **kwargs):
        super().init_poolmanager(*args, server_hostname=self.name, assert_hostname=self.name, **kwargs)


port, crt, key, ca, name, peer, service = sys.argv[1:]
c = consul.Consul(port=int(port), scheme="https", verify=ca, cert=(crt, key))
c.http.session.mount("https://", Named(name))
index, rows = c.health.service(service, peer=peer)
while not rows or any(check["Status"] != "passing" for check in rows[0]["Checks"]):
    before, (index, rows) = index, c.health.service(service, peer=peer, index=index, wait="15s")
    assert int(index) >= int(before), "the index went backwards"
for part in (rows[0]["Node"], rows[0]["Service"], *rows[0]["Checks"]):
    assert part["PeerName"] == peer, part
assert rows[0]["Service"]["Service"] == service, rows
assert [row["Service"]["ID"] for row in c.health.service(service, peer=peer, passing=True)[1]] == [
    row["Service"]["ID"] for row in rows
]
# Without the peer's name there is no such service here.
assert c.health.service(service)[1] == []
assert c.health.service("nothing", peer=peer)[1] == []
print("done")
