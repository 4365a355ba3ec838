//! pylxd 2.4, unmodified, against an agent.

use integration::{Agent, Http, own_only, pylxd, python};

const PROGRAM: &str = r#"
import sys, warnings
warnings.filterwarnings("ignore")
from pylxd import Client
from pylxd.exceptions import LXDAPIException, NotFound
endpoint, crt, key, server, other = sys.argv[1:6]

client = Client(endpoint=endpoint, cert=(crt, key), verify=server)
assert client.trusted, "trusted"
assert client.host_info["api_version"] == "1.0"
assert client.host_info["environment"]["server_name"] == "east"
mine = client.certificates.all()
assert any(c.fingerprint for c in mine), mine

made = client.certificates.create("", open(other, "rb").read())
found = client.certificates.get(made.fingerprint)
assert found.type == "client" and found.certificate.startswith("-----BEGIN"), found
found.delete()
try:
    client.certificates.get(made.fingerprint)
    raise SystemExit("it is still there")
except NotFound:
    pass

token = client.certificates.create_token(name="pylxd-token")
assert isinstance(token, str) and len(token) > 100, "a token"
running = client.api.operations.get(params={"recursion": 1}).json()["metadata"]["running"]
assert running[0]["class"] == "token", running
client.api.operations[running[0]["id"]].delete()

anonymous = Client(endpoint=endpoint, verify=server)
assert not anonymous.trusted
try:
    anonymous.certificates.all()
    raise SystemExit("a stranger saw the certificates")
except LXDAPIException as error:
    assert error.response.status_code == 403, error
print("done")
"#;

#[test]
fn pylxd_manages_certificates_tokens_and_operations() {
    let (false, Some(interpreter)) = (own_only(), pylxd()) else { return };
    let agent = Agent::start("east");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let client = integration::certificate::p256(folder.path(), "client");
    integration::certificate::p256(folder.path(), "other");
    let body = serde_json::json!({
        "type": "client", "name": "python", "certificate": integration::http::der_base64(&client),
    });
    Http::socket(&agent).post("/1.0/certificates", &body).expect(201);
    // Python checks the name: the certificate has those of the machine's addresses that the agent was told.
    let path = |name: &str| folder.path().join(name).to_str().expect("temporary paths are UTF-8").to_owned();
    let server = agent.data_dir().join("cluster.crt");
    let endpoint = format!("https://{}", agent.address());
    let files = [path("client.crt"), path("client.key"), server.display().to_string(), path("other.crt")];
    let [crt, key, server, other] = files.each_ref().map(String::as_str);
    let done = python(&interpreter, PROGRAM, &[&endpoint, crt, key, server, other]).success();
    assert_eq!(done.stdout.trim(), "done");
}
