//! Tokens, names and the life of a peering.

use base64::Engine as _;
use integration::{LIMIT, wait_for};
use serde_json::{Value, json};

use super::world::World;
use super::{Failure, compare};

/// What reading a token can say of it.
const OF_TOKENS: [&str; 6] = [
    "illegal base64",
    "unexpected end of JSON",
    "peering token invalid CA",
    "addresses value is empty",
    "is not a valid peering server address",
    "value is empty",
];

pub fn run(world: &World, input: &Value, expect: &Value) -> Result<(), Failure> {
    if let Some(name) = input["peer_name"].as_str() {
        let answer = world.consul.post("/v1/peering/token", &json!({ "PeerName": name }));
        return compare(&answer, expect, |_| Ok(()));
    }
    if let Some(token) = input.get("token") {
        let pem = std::fs::read_to_string(world.other.data_dir().join("cluster.crt")).expect("a certificate");
        let text = token.to_string().replace("\"<valid PEM>\"", &json!(pem).to_string());
        let text = text.replace("<uuid>", "11111111-2222-3333-4444-555555555555");
        let token =
            base64::engine::general_purpose::STANDARD.encode(text.replace("<trust-domain>", "td.consul"));
        let body = json!({ "PeerName": "peer1", "PeeringToken": token });
        let answer = world.consul.post("/v1/peering/establish", &body);
        if expect["ok"] == true {
            // It can be read; that nobody is there, or that nothing in it pins anybody, is another matter.
            let text = answer.text();
            return match OF_TOKENS.iter().find(|said| text.contains(**said)) {
                Some(_) => Err(text),
                None => Ok(()),
            };
        }
        return compare(&answer, expect, |_| Ok(()));
    }
    let (path, asked) = match input.get("establish") {
        Some(asked) => ("/v1/peering/establish", asked),
        None => ("/v1/peering/token", &input["generate_token"]),
    };
    let mut asked = asked.clone();
    if asked["Meta"] == "65 keys" {
        asked["Meta"] = (0..65).map(|n| (format!("k{n}"), json!("v"))).collect();
    }
    if asked["PeeringToken"] == "<valid>" {
        asked["PeeringToken"] = json!(world.token("east"));
    }
    let answer = world.consul.post(path, &asked);
    compare(&answer, expect, |ok| {
        let wanted = &ok["decoded"];
        let token = decoded(&answer.json());
        let address = token["ServerAddresses"][0].as_str().unwrap_or_default();
        let right = token["ManualServerAddresses"] == wanted["ManualServerAddresses"]
            && address.starts_with("127.0.0.1:");
        if right { Ok(()) } else { Err(format!("the token says {token}")) }
    })
}

fn decoded(answer: &Value) -> Value {
    let token = answer["PeeringToken"].as_str().expect("a token");
    let token = base64::engine::general_purpose::STANDARD.decode(token).expect("base64");
    serde_json::from_slice(&token).expect("JSON")
}

pub fn steps(world: &World, id: &str) -> Result<(), Failure> {
    let (here, there) = (&world.consul, &world.other_consul);
    let generate = |name: &str| here.post("/v1/peering/token", &json!({ "PeerName": name }));
    let establish = |name: &str, token: &str| {
        here.post("/v1/peering/establish", &json!({ "PeerName": name, "PeeringToken": token }))
    };
    match id {
        "tok-027" => {
            let (one, two) = (generate("peer-b").expect(200).json(), generate("peer-b").expect(200).json());
            let (first, second) = (decoded(&one), decoded(&two));
            if first["PeerID"] != second["PeerID"]
                || first["EstablishmentSecret"] == second["EstablishmentSecret"]
            {
                return Err("the second token is not one of the same peering with another secret".to_owned());
            }
            let redeem = |token: &Value| {
                let body = json!({ "PeerName": "east", "PeeringToken": token["PeeringToken"] });
                there.post("/v1/peering/establish", &body)
            };
            let old = redeem(&one);
            if old.status != 403 {
                return Err(format!("the first token is answered {} {}", old.status, old.text()));
            }
            redeem(&two).expect(200);
            Ok(())
        }
        "tok-043" => {
            establish("peer-c", &world.token("east")).expect(200);
            refused(
                &generate("peer-c"),
                "cannot create peering with name: \"peer-c\"; there is already an established peering",
            )
        }
        "tok-044" => {
            generate("peer-b").expect(200);
            let why = "cannot create peering with name: \"peer-b\"; there is an existing peering expecting to be dialed";
            refused(&establish("peer-b", &world.token("east")), why)
        }
        "st-401" | "st-402" => {
            establish("west", &world.token("east")).expect(200);
            let state = |consul: &integration::Consul, name: &str| {
                let read = consul.get(&format!("/v1/peering/{name}"));
                if read.status == 404 {
                    "gone".to_owned()
                } else {
                    read.json()["State"].as_str().unwrap_or_default().to_owned()
                }
            };
            wait_for("both are active", LIMIT, || {
                (state(here, "west") == "ACTIVE" && state(there, "east") == "ACTIVE").then_some(())
            });
            let (deleter, name, other, others) =
                if id == "st-402" { (here, "west", there, "east") } else { (there, "east", here, "west") };
            deleter.delete(&format!("/v1/peering/{name}")).expect(200);
            wait_for("it is gone there", LIMIT, || (state(deleter, name) == "gone").then_some(()));
            wait_for("it has ended here", LIMIT, || (state(other, others) == "TERMINATED").then_some(()));
            Ok(())
        }
        "es-024" => {
            let entry = json!({ "Kind": "exported-services", "Name": "default",
                "Services": [{ "Name": "*", "Consumers": [{ "Peer": "west" }] }] });
            here.put("/v1/config", &entry).expect(200);
            here.put("/v1/agent/service/register", &json!({ "Name": "web", "Port": 1 })).expect(200);
            let listed = || here.get("/v1/exported-services").expect(200).json();
            if listed()[0]["Service"] != "web" {
                return Err(format!("listed {}", listed()));
            }
            here.send("PUT", "/v1/agent/service/deregister/web", &[], None).expect(200);
            if listed() == json!([]) { Ok(()) } else { Err(format!("listed {}", listed())) }
        }
        _ => Err("driven by another test".to_owned()),
    }
}

fn refused(answer: &integration::Answer, why: &str) -> Result<(), Failure> {
    compare(answer, &json!({ "error": why }), |_| Ok(()))
}
