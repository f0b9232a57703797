//! The wheel turns: serve, collect, review, turn, gate, promote, roll back, forget, with a toy model and a scripted expert over HTTP.

mod support;

use std::path::PathBuf;

use serde_json::{Value, json};
use support::wheel::{Wheel, holding, right, serves};

#[test]
fn the_wheel_turns() {
    let wheel = Wheel::new();
    let server = wheel.serve();
    let first = wheel.in_service();

    // Serve and collect.
    let ids: Vec<Value> =
        (0..150).map(|n| server.ask(&format!("{} {n}", ["red", "green"][n % 2]), "anna")["id"].clone()).collect();
    let secret = server.ask("red qzvxkw", "mallory");
    let kept = server.send(
        "POST",
        "/v1/chat/completions",
        &[],
        json!({ "messages": [{ "role": "user", "content": "red not to be kept" }], "store": false, "max_tokens": 2 })
            .to_string(),
    );
    assert_eq!(kept.status, 200);
    assert!(holding(&wheel.path("data"), "red not to be kept").is_empty(), "store: false keeps nothing");
    let feedback = json!({ "id": ids[0], "thumb": "down", "correction": "stop" });
    server.post("/v1/feedback", &[], &feedback);
    assert_eq!(server.send("POST", "/v1/feedback", &[], feedback.to_string()).status, 409, "once");
    let foreign = json!({ "id": "chatcmpl-0", "thumb": "up" }).to_string();
    assert_eq!(server.send("POST", "/v1/feedback", &[], foreign).status, 404);

    // Review, and a turn: from nothing to what the expert knows.
    assert_eq!(wheel.review(&server, |question, _| right(question).into()), 151);
    let before = wheel.twin();
    let turn = wheel.turn();
    assert_eq!(turn["decision"], "promoted", "{turn}");
    assert!(turn["comparison"]["candidate_accuracy"].as_f64().unwrap() > 0.8, "{turn}");
    let second = turn["candidate"].as_str().unwrap().to_string();
    serves(&server, &second);
    assert_eq!(server.ask("green 4242", "anna")["choices"][0]["message"]["content"], "go");

    // A second turn: blue is new to the model, and it keeps what it knew.
    (0..150).for_each(|n| drop(server.ask(&format!("{} {}", ["blue", "red", "blue"][n % 3], 200 + n), "anna")));
    wheel.review(&server, |question, _| right(question).into());
    let turn = wheel.turn();
    assert_eq!(turn["decision"], "promoted", "{turn}");
    let third = turn["candidate"].as_str().unwrap().to_string();
    serves(&server, &third);

    // Verdicts that do harm: the gate refuses what they make, and the model in service stays.
    (0..60).for_each(|n| drop(server.ask(&format!("{} {}", ["red", "green", "blue"][n % 3], 500 + n), "anna")));
    let wrong = |question: &str| if right(question) == "stop" { "go" } else { "stop" };
    wheel.review(&server, |question, item| {
        let harmful = item["reason"] != "gate";
        (if harmful { wrong(question) } else { right(question) }).into()
    });
    let turn = wheel.turn();
    assert_eq!(turn["decision"], "refused", "{turn}");
    assert_eq!(wheel.in_service(), third);

    // Roll back, and forth.
    let back = wheel.ferule(&["rollback", "--json"]).json().remove(0);
    assert_eq!(back["in_service"], second.as_str());
    serves(&server, &second);
    wheel.ferule(&["promote", &third[..12], "--json"]).json();
    serves(&server, &third);

    // From a weight to who made it, and back.
    let lineage = wheel.ferule(&["lineage", &third, "--json"]).json().remove(0);
    assert_eq!(lineage["base"], first.as_str(), "{lineage}");
    assert_eq!(lineage["turns"][0]["records"][0]["reviewer"], "an");
    let secret = secret["id"].as_str().unwrap();
    let lineage = wheel.ferule(&["lineage", secret, "--json"]).json().remove(0);
    let taught = lineage["turns"][0]["role"] != "gate";

    // Forget: the text is nowhere, the weights are named, and a replay is a wheel that never saw it.
    assert!(!holding(&wheel.path("data"), "qzvxkw").is_empty());
    let forgotten = wheel.ferule(&["forget", "--user", "mallory", "--json"]).json().remove(0);
    assert_eq!(forgotten["requests"], 1);
    assert_eq!(holding(&wheel.path("data"), "qzvxkw"), Vec::<PathBuf>::new());
    assert_eq!(holding(&wheel.path("data"), "mallory"), Vec::<PathBuf>::new());
    if taught {
        assert_eq!(forgotten["models"].as_array().unwrap().len(), 3, "{forgotten}");
        assert!(wheel.status()["in_service"]["flag"].is_string());
    }
    let replayed = wheel.ferule(&["flywheel", "replay", "--json", "--quiet"]).json();
    before.ferule(&["forget", "--user", "mallory", "--json"]).json();
    let never = before.turn();
    assert_eq!(replayed[0]["replayed"], never["candidate"], "{replayed:?}");
    assert_eq!(replayed[0]["replayed"] != replayed[0]["recorded"], taught);

    // The audit is whole, and holds no word of anybody.
    let verified = wheel.ferule(&["audit", "verify", "--json"]).json().remove(0);
    assert_eq!(verified["whole"], true);
    let audit = wheel.ferule(&["audit", "show"]).stdout;
    assert!(
        audit.contains("promote")
            && audit.contains("forget")
            && !audit.contains("mallory")
            && !audit.contains("qzvxkw")
    );

    // What is never better is rarely promoted.
    let simulated = wheel.ferule(&["flywheel", "simulate", "--json"]).json().remove(0);
    assert!(simulated["share"].as_f64().unwrap() <= 0.025, "{simulated}");

    server.signal("TERM");
    assert_eq!(server.ended(), Some(0));
}

/// Of two wheels that differ in a third of the verdicts alone, the gate promotes the one that was told the truth.
#[test]
fn a_third_of_wrong_verdicts_is_refused_and_its_true_twin_promoted() {
    let honest = Wheel::new();
    let colours = ["red", "green", "blue"];
    let teach = |wheel: &Wheel, colours: &[&str], from: usize, answer: &dyn Fn(&str, &Value) -> String| {
        let server = wheel.serve();
        for n in 0..200 {
            server.ask(&format!("{} {}", colours[n % colours.len()], from + n), "anna");
        }
        assert_eq!(wheel.review(&server, answer), 200);
        wheel.turn()
    };
    let first = teach(&honest, &colours[..2], 0, &|question, _| right(question).into());
    assert_eq!(first["decision"], "promoted", "{first}");
    let misled = honest.twin();
    let truth = teach(&honest, &colours, 200, &|question, _| right(question).into());
    assert_eq!(truth["decision"], "promoted", "{truth}");
    // Blue is taught as before, and red, which the model in service knows, is taught wrong.
    let wrong = teach(&misled, &colours, 200, &|question, item| {
        let harmful = question.starts_with("red") && item["reason"] != "gate";
        (if harmful { "go" } else { right(question) }).into()
    });
    assert_eq!(wrong["decision"], "refused", "{wrong}");
    assert_eq!(misled.in_service(), first["candidate"].as_str().unwrap());
}
