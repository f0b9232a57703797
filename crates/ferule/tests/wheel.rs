//! The wheel turns: serve, collect, review, turn, gate, promote, roll back, forget, with a toy model and a scripted expert over HTTP.
//!
//! The expert knows that the answer is the colour's: red is stop, green is go, blue is wait. The toy begins with random weights and knows nothing.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lm::checkpoint::Storage;
use serde_json::{Value, json};
use support::http::Server;
use support::{Run, command, run, tiny_model_of};

const TURN: &str = r#"
dtype = "f32"

[flywheel]
planned_looks = 4
least_gate = 10

[eval]
max_new_tokens = 6

[[stages]]
kind = "sft"
epochs = 12
demonstrations_per_step = 8
learning_rate = 4e-3
warmup_steps = 4
"#;

fn right(question: &str) -> &'static str {
    match question.split(' ').next() {
        Some("red") => "stop",
        Some("green") => "go",
        _ => "wait",
    }
}

/// A data folder with a person, the turn file, and the toy model.
struct Wheel {
    folder: tempfile::TempDir,
    token: String,
}

impl Wheel {
    fn new() -> Wheel {
        let folder = tempfile::tempdir().unwrap();
        let text = "red 1 green 2 blue 3 stop go wait user assistant 4 5 6 7 8 9 0 ";
        tiny_model_of(&folder.path().join("model"), Storage::F32, &text.repeat(9));
        fs::write(folder.path().join("turn.toml"), TURN).unwrap();
        let mut wheel = Wheel { folder, token: String::new() };
        let made = wheel.ferule(&["person", "add", "an"]);
        wheel.token = made.stdout.trim().to_string();
        assert!(wheel.token.starts_with("ferule_"), "{}", made.stderr);
        wheel
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn data(&self) -> String {
        self.path("data").to_string_lossy().into_owned()
    }

    /// Runs a command on the data folder, as the person.
    fn ferule(&self, arguments: &[&str]) -> Run {
        self.ferule_on(&self.data(), arguments)
    }

    fn ferule_on(&self, data: &str, arguments: &[&str]) -> Run {
        let mut command = command(&[arguments, &["--data", data]].concat());
        command.env("FERULE_TOKEN", &self.token).current_dir(self.folder.path());
        run(command, b"")
    }

    fn serve(&self) -> Server {
        let model = self.path("model").to_string_lossy().into_owned();
        Server::start(&[&model, "--collect", "--data", &self.data()])
    }

    fn turn(&self) -> Value {
        self.ferule(&["flywheel", "turn", "turn.toml", "--json", "--quiet"]).json().remove(0)
    }

    fn status(&self) -> Value {
        self.ferule(&["flywheel", "status", "--json"]).json().remove(0)
    }

    fn in_service(&self) -> String {
        self.status()["in_service"]["id"].as_str().unwrap().to_string()
    }

    /// Judges everything that waits: `answer` says what is right.
    fn review(&self, server: &Server, answer: impl Fn(&str, &Value) -> String) -> usize {
        let login = server.send("POST", "/review/login", &[], json!({ "token": self.token }).to_string());
        assert_eq!(login.status, 200, "{}", login.body);
        let cookie = format!("Cookie: {}", login.header("set-cookie").unwrap().split(';').next().unwrap());
        let csrf = format!("x-ferule-csrf: {}", login.json()["csrf"].as_str().unwrap());
        let mut judged = 0;
        loop {
            let next = server.send("GET", "/review/next", &[&cookie], "").json();
            let Some(item) = next["items"].get(0).cloned() else { return judged };
            assert!(item.get("model").is_none() && item.get("confidence").is_none(), "a blind verdict knows neither");
            let question = item["messages"][0]["content"].as_str().unwrap();
            let right = answer(question, &item);
            let mut verdict = json!({ "item": item["item"], "decision": "accept", "seconds": 1.5 });
            if item["completion"].as_str().unwrap().trim() != right {
                verdict["decision"] = "correct".into();
                verdict["correction"] = right.into();
            }
            let told = server.post("/review/verdict", &[&cookie, &csrf], &verdict);
            assert!(told["behind"]["model"].is_string(), "{told}");
            judged += 1;
        }
    }
}

/// Waits until the server answers with the model of this digest.
fn serves(server: &Server, digest: &str) {
    let began = Instant::now();
    loop {
        let listed = server.send("GET", "/v1/models", &[], "").json();
        if listed["data"][0]["digest"] == digest {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{listed} instead of {digest}");
        server.ask("red 1", "impatient");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Every file below a folder that holds the text.
fn holding(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, text));
        } else if fs::read(&path).unwrap().windows(text.len()).any(|window| window == text.as_bytes()) {
            found.push(path);
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = {
            let e = entry.unwrap();
            (e.path(), e.file_name())
        };
        if path.is_dir() { copy(&path, &to.join(name)) } else { fs::copy(&path, to.join(name)).map(drop).unwrap() }
    }
}

#[test]
fn the_wheel_turns() {
    let wheel = Wheel::new();
    let server = wheel.serve();
    let first = wheel.in_service();

    // Serve and collect.
    let ids: Vec<Value> =
        (0..150).map(|n| server.ask(&format!("{} {n}", ["red", "green"][n % 2]), "anna")["id"].clone()).collect();
    let secret = server.ask("red 999777", "mallory");
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
    copy(&wheel.path("data"), &wheel.path("before"));
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
    assert!(!holding(&wheel.path("data"), "999777").is_empty());
    let forgotten = wheel.ferule(&["forget", "--user", "mallory", "--json"]).json().remove(0);
    assert_eq!(forgotten["requests"], 1);
    assert_eq!(holding(&wheel.path("data"), "999777"), Vec::<PathBuf>::new());
    assert_eq!(holding(&wheel.path("data"), "mallory"), Vec::<PathBuf>::new());
    if taught {
        assert_eq!(forgotten["models"].as_array().unwrap().len(), 3, "{forgotten}");
        assert!(wheel.status()["in_service"]["flag"].is_string());
    }
    let replayed = wheel.ferule(&["flywheel", "replay", "--json", "--quiet"]).json();
    let before = wheel.path("before").to_string_lossy().into_owned();
    wheel.ferule_on(&before, &["forget", "--user", "mallory", "--json"]).json();
    let never = wheel.ferule_on(&before, &["flywheel", "turn", "turn.toml", "--json", "--quiet"]).json().remove(0);
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
            && !audit.contains("999777")
    );

    // What is never better is rarely promoted.
    let simulated = wheel.ferule(&["flywheel", "simulate", "--json"]).json().remove(0);
    assert!(simulated["share"].as_f64().unwrap() <= 0.025, "{simulated}");

    server.signal("TERM");
    assert_eq!(server.ended(), Some(0));
}
