# py-consul 1.8, unmodified, used as its README shows it. Arguments: the port of the plain-HTTP listener and a bearer
# token; or an HTTPS port, a certificate, its key, what the agent's certificate is checked against, and its name.
import sys
import threading

import consul
import requests
from consul import Check
from consul.exceptions import ACLPermissionDenied, BadRequest, ConsulException


class Named(requests.adapters.HTTPAdapter):
    """Expects this name in the agent's certificate, as `CONSUL_TLS_SERVER_NAME` says it to `consul`."""

    def __init__(self, name):
        self.name = name
        super().__init__()

    def init_poolmanager(self, *args, **kwargs):
        super().init_poolmanager(*args, server_hostname=self.name, assert_hostname=self.name, **kwargs)


def same(found, wanted):
    if found != wanted:
        raise AssertionError(f"found {found!r} and not {wanted!r}")


def fails(kind, words, call):
    try:
        answer = call()
    except kind as error:
        if words not in str(error):
            raise AssertionError(f"{words!r} is not in {error}") from error
        return
    raise AssertionError(f"taken: {answer!r}")


if len(sys.argv) == 3:
    port, token = sys.argv[1:]
    c = consul.Consul(port=int(port), token=token)
    # Some of its calls take no token and send none, to /v1/agent/self for example. This listener always asks for one.
    c.http.session.headers["X-Consul-Token"] = token
else:
    port, crt, key, ca, name = sys.argv[1:]
    c = consul.Consul(port=int(port), scheme="https", verify=ca, cert=(crt, key))
    c.http.session.mount("https://", Named(name))

# Status and the agent itself.
assert ":" in c.status.leader(), c.status.leader()
assert c.status.peers(), c.status.peers()
node = c.agent.self()["Config"]["NodeName"]
dc = c.agent.self()["Config"]["Datacenter"]
same(c.catalog.datacenters(), [dc])
assert [m["Name"] for m in c.agent.members()] == [node], c.agent.members()

# Config entries: written, read, listed, guarded, deleted.
sources = [
    {"Name": "*", "Action": "deny"},
    {"Name": "web", "Peer": "west", "Action": "allow"},
    {"Name": "batch", "Action": "allow", "Description": "at night"},
]
assert c.config.set("service-intentions", "db", {"Sources": sources, "Meta": {"team": "a"}}) is True
entry = c.config.get("service-intentions", "db")
same((entry["Kind"], entry["Name"], entry["Meta"]), ("service-intentions", "db", {"team": "a"}))
same([s["Precedence"] for s in entry["Sources"]], [9, 9, 8])
same({s["Type"] for s in entry["Sources"]}, {"consul"})
same({s.get("Peer", "") for s in entry["Sources"] if s["Name"] == "web"}, {"west"})
same([s["Name"] for s in entry["Sources"]][-1], "*")
index = entry["ModifyIndex"]
assert 0 < entry["CreateIndex"] <= index, entry
# What was read can be written back, and moves nothing.
assert c.config.set("service-intentions", "db", entry) is True
same(c.config.get("service-intentions", "db")["ModifyIndex"], index)
assert c.config.set("service-intentions", "db", {"Sources": sources[:1]}, cas=0) is False
assert c.config.set("service-intentions", "db", {"Sources": sources[:2]}, cas=index + 1000) is False
assert c.config.set("service-intentions", "db", {"Sources": sources[:2]}, cas=index) is True
assert c.config.get("service-intentions", "db")["ModifyIndex"] > index
same([e["Name"] for e in c.config.list("service-intentions")], ["db"])
assert c.config.set("service-defaults", "web", {"Protocol": "HTTP"}) is True
same(c.config.get("service-defaults", "web")["Protocol"], "http")
export = {"Services": [{"Name": "web", "Consumers": [{"Peer": "west"}]}]}
assert c.config.set("exported-services", "default", export) is True
same(c.config.get("exported-services", "default")["Services"], export["Services"])
same(c.config.get("service-intentions", "nothing"), None)
same(c.config.list("sameness-group"), [])
fails(BadRequest, "Request decoding failed: invalid config entry kind: nonsense", lambda: c.config.set("nonsense", "x"))
fails(BadRequest, 'invalid config key "Sauces"', lambda: c.config.set("service-intentions", "x", {"Sauces": []}))
fails(ConsulException, "At least one source is required", lambda: c.config.set("service-intentions", "x"))
fails(ConsulException, "Name must be \"default\"", lambda: c.config.set("exported-services", "x", export))
assert c.config.delete("service-intentions", "db", cas=1) is False
assert c.config.delete("service-intentions", "db") is True
same(c.config.get("service-intentions", "db"), None)
assert c.config.delete("service-intentions", "db") is True
assert c.config.delete("exported-services", "default") is True
assert c.config.delete("service-defaults", "web") is True

# Intentions, one by one.
ixn = c.connect.intentions
assert ixn.check("web", "db") is False
assert ixn.upsert("web", "db", action="allow", description="the shop") is True
found = ixn.read("web", "db")
same((found["SourceName"], found["DestinationName"], found["Action"]), ("web", "db", "allow"))
same((found["Precedence"], found["Description"], found["SourceType"]), (9, "the shop", "consul"))
same((found["SourceNS"], found["DestinationNS"]), ("default", "default"))
assert ixn.upsert("*", "db", action="deny") is True
assert ixn.check("web", "db") is True
assert ixn.check("web", "db", source_type="consul") is True
assert ixn.check("other", "db") is False
same([(i["SourceName"], i["Precedence"]) for i in ixn.match("destination", "db")["db"]], [("web", 9), ("*", 8)])
same([i["DestinationName"] for i in ixn.match("source", "web")["web"]], ["db", "db"])
same([i["SourceName"] for i in ixn.list()], ["web", "*"])
same([i["SourceName"] for i in ixn.list(filter_expr='Action == "allow"')], ["web"])
fails(ConsulException, "500 Failed to create boolean expression evaluator", lambda: ixn.list(filter_expr="Action =="))
assert ixn.upsert("web", "db", action="deny") is True
assert ixn.check("web", "db") is False
fails(ConsulException, "Action must be set to 'allow' or 'deny'", lambda: ixn.upsert("web", "db", action="maybe"))
assert ixn.delete("web", "db") is True
assert ixn.delete("web", "db") is True
same(ixn.read("web", "db"), None)
assert ixn.delete("*", "db") is True
same(c.config.get("service-intentions", "db"), None)

# Services and their checks.
register = c.agent.service.register
assert register("web", service_id="web-1", port=9001, tags=["v1"], meta={"a": "b"}, check=Check.ttl("10m")) is True
assert register("web", service_id="web-2", address="127.0.0.2", port=9002, tags=["v2"]) is True
mine = c.agent.services()
same(sorted(mine), ["web-1", "web-2"])
first = mine["web-1"]
same((first["ID"], first["Service"], first["Port"], first["Tags"]), ("web-1", "web", 9001, ["v1"]))
same(first["Meta"], {"a": "b"})
same(mine["web-2"]["Address"], "127.0.0.2")
same(sorted(c.agent.services(filter_expr='Port == 9002')), ["web-2"])
same(c.agent.service_definition("web-1")["Service"], "web")
same(c.agent.service_definition("nothing"), None)
_, services = c.catalog.services()
same(services["web"], ["v1", "v2"])
_, rows = c.catalog.service("web")
same([(r["ServiceID"], r["ServicePort"], r["ServiceTags"]) for r in rows], [("web-1", 9001, ["v1"]), ("web-2", 9002, ["v2"])])
same([r["ServiceID"] for r in c.catalog.service("web", tag="v2")[1]], ["web-2"])
same([n["Node"] for n in c.catalog.nodes()[1]], [node])
assert set(c.catalog.node(node)[1]["Services"]) >= {"web-1", "web-2"}


def status():
    return {check["Status"] for check in c.health.checks("web")[1] if check["ServiceID"] == "web-1"}


def passing():
    return [row["Service"]["ID"] for row in c.health.service("web", passing=True)[1]]


same((status(), passing()), ({"critical"}, ["web-2"]))
same(c.agent.checks()["service:web-1"]["Status"], "critical")
assert c.agent.check.ttl_pass("service:web-1", notes="well") is True
same((status(), passing()), ({"passing"}, ["web-1", "web-2"]))
same(c.agent.checks()["service:web-1"]["Output"], "well")
assert c.agent.check.ttl_warn("service:web-1") is True
same((status(), passing()), ({"warning"}, ["web-2"]))
index, rows = c.health.service("web")
same([row["Service"]["ID"] for row in rows], ["web-1", "web-2"])
same({row["Node"]["Node"] for row in rows}, {node})
assert int(index) > 0, index
# A blocking query waits for what is to come, and answers with it.
answers = []
asking = threading.Thread(target=lambda: answers.append(c.health.service("web", index=index, wait="20s")))
asking.start()
assert c.agent.check.ttl_fail("service:web-1", notes="ill") is True
asking.join(timeout=15)
assert answers, "the query still waits"
later, rows = answers[0]
assert int(later) > int(index), (later, index)
same({check["Status"] for row in rows for check in row["Checks"] if check["ServiceID"] == "web-1"}, {"critical"})
same([check["CheckID"] for check in c.health.state("critical")[1]], ["service:web-1"])
same([check["CheckID"] for check in c.health.node(node)[1] if check["ServiceID"]], ["service:web-1"])
assert c.agent.check.register("second", Check.ttl("10m"), check_id="second", service_id="web-2", notes="a note") is True
same(c.agent.checks()["second"]["ServiceID"], "web-2")
same(passing(), [])
assert c.agent.check.ttl_pass("second") is True
same(passing(), ["web-2"])
assert c.agent.check.deregister("second") is True
assert "second" not in c.agent.checks()
assert c.agent.service.maintenance("web-2", True, reason="cleaning") is True
same(passing(), [])
assert c.agent.service.maintenance("web-2", False) is True
same(passing(), ["web-2"])
fails(BadRequest, "Missing service name", lambda: register("", service_id="x"))
fails(BadRequest, "Invalid service address", lambda: register("x", address="0.0.0.0"))
same(register("http", port=9003, check=Check.http("http://127.0.0.1:9/", "10s", timeout="1s", header={"x-a": ["b"]})), True)
same(register("tcp", port=9004, check=Check.tcp("127.0.0.1", 9, "10s", timeout="1s")), True)
same(c.agent.checks()["service:http"]["Type"], "http")
same(c.agent.checks()["service:tcp"]["Type"], "tcp")
fails(BadRequest, "", lambda: register("script", check=Check.script(["true"], "10s")))

# Connect: the CA, a leaf, and whether it may connect.
roots = c.connect.ca.roots()
same(roots["ActiveRootID"], [r["ID"] for r in roots["Roots"] if r["Active"]][0])
assert roots["Roots"][0]["RootCert"].startswith("-----BEGIN CERTIFICATE"), roots
same(c.agent.connect.ca.roots()["TrustDomain"], roots["TrustDomain"])
leaf = c.agent.connect.ca.leaf("web")
assert leaf["CertPEM"].startswith("-----BEGIN CERTIFICATE") and "PRIVATE KEY" in leaf["PrivateKeyPEM"]
same(leaf["Service"], "web")
assert leaf["ServiceURI"] == f"spiffe://{roots['TrustDomain']}/ns/default/dc/{dc}/svc/web", leaf["ServiceURI"]


def may():
    return c.agent.connect.authorize("db", leaf["ServiceURI"], leaf["SerialNumber"])


same(may()["Authorized"], False)
assert ixn.upsert("web", "db", action="allow") is True
allowed = may()
same(allowed["Authorized"], True)
assert "Matched L4 intention: default/web => default/db" in allowed["Reason"], allowed
assert ixn.delete("web", "db") is True
fails(BadRequest, "not a valid", lambda: c.agent.connect.authorize("db", "http://x", "00"))

for service in ["web-1", "web-2", "http", "tcp"]:
    assert c.agent.service.deregister(service) is True
same(c.agent.services(), {})
same(c.catalog.service("web")[1], [])
same(c.agent.service_definition("web-1"), None)

if len(sys.argv) == 3:
    stranger = consul.Consul(port=int(port), token="nonsense")
    fails(ACLPermissionDenied, "ACL not found", lambda: stranger.config.list("service-intentions"))
    nobody = consul.Consul(port=int(port))
    fails(ConsulException, "", lambda: nobody.config.list("service-intentions"))
print("done")
