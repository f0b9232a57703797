//! A toy model that learns behind a server from a scripted expert over HTTP.
//!
//! The expert knows that the answer is the colour's: red is stop, green is go, blue is wait. The toy begins with random weights and knows nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use lm::checkpoint::Storage;
use serde_json::{Value, json};

use super::http::Server;
use super::{Run, command, run, tiny_model_of};

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

/// What the expert knows.
pub fn right(question: &str) -> &'static str {
    match question.split(' ').next() {
        Some("red") => "stop",
        Some("green") => "go",
        _ => "wait",
    }
}

/// A data folder with a person, the turn file, and the toy model.
pub struct Wheel {
    folder: tempfile::TempDir,
    /// The person's token.
    pub token: String,
}

impl Wheel {
    pub fn new() -> Wheel {
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

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn data(&self) -> String {
        self.path("data").to_string_lossy().into_owned()
    }

    /// Runs a command on the data folder, as the person.
    pub fn ferule(&self, arguments: &[&str]) -> Run {
        run(self.command(arguments), b"")
    }

    /// The command, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(&[arguments, &["--data", &self.data()]].concat());
        command.env("FERULE_TOKEN", &self.token).current_dir(self.folder.path());
        command
    }

    pub fn serve(&self) -> Server {
        let model = self.path("model").to_string_lossy().into_owned();
        Server::start(&[&model, "--collect", "--data", &self.data()])
    }

    pub fn turn(&self) -> Value {
        self.ferule(&["flywheel", "turn", "turn.toml", "--json", "--quiet"]).json().remove(0)
    }

    pub fn status(&self) -> Value {
        self.ferule(&["flywheel", "status", "--json"]).json().remove(0)
    }

    pub fn in_service(&self) -> String {
        self.status()["in_service"]["id"].as_str().unwrap().to_string()
    }

    /// The same wheel at the same place of its road, in a folder of its own.
    pub fn twin(&self) -> Wheel {
        let folder = tempfile::tempdir().unwrap();
        copy(self.folder.path(), folder.path());
        Wheel { folder, token: self.token.clone() }
    }

    /// Signs in at `/review`: the headers that carry the session.
    pub fn sign_in(&self, server: &Server) -> [String; 2] {
        let login = server.send("POST", "/review/login", &[], json!({ "token": self.token }).to_string());
        assert_eq!(login.status, 200, "{}", login.body);
        let cookie = format!("Cookie: {}", login.header("set-cookie").unwrap().split(';').next().unwrap());
        [cookie, format!("x-ferule-csrf: {}", login.json()["csrf"].as_str().unwrap())]
    }

    /// Judges everything that waits: `answer` says what is right.
    pub fn review(&self, server: &Server, answer: impl Fn(&str, &Value) -> String) -> usize {
        let [cookie, csrf] = self.sign_in(server);
        let mut judged = 0;
        loop {
            let next = server.send("GET", "/review/next", &[&cookie], "").json();
            let Some(item) = next["items"].get(0).cloned() else { return judged };
            assert!(item.get("model").is_none() && item.get("confidence").is_none(), "a blind verdict knows neither");
            let told = server.post("/review/verdict", &[&cookie, &csrf], &verdict(&item, &answer));
            assert!(told["behind"]["model"].is_string(), "{told}");
            judged += 1;
        }
    }
}

/// What the page sends about an item: accepted, or corrected to what `answer` says.
pub fn verdict(item: &Value, answer: impl Fn(&str, &Value) -> String) -> Value {
    let right = answer(item["messages"][0]["content"].as_str().unwrap(), item);
    let mut verdict = json!({ "item": item["item"], "decision": "accept", "seconds": 1.5 });
    if item["completion"].as_str().unwrap().trim() != right {
        verdict["decision"] = "correct".into();
        verdict["correction"] = right.into();
    }
    verdict
}

/// Waits until the server answers with the model of this digest.
pub fn serves(server: &Server, digest: &str) {
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
pub fn holding(folder: &Path, text: &str) -> Vec<PathBuf> {
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
/// Copies a folder with everything in it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = {
            let e = entry.unwrap();
            (e.path(), e.file_name())
        };
        if path.is_dir() { copy(&path, &to.join(name)) } else { fs::copy(&path, to.join(name)).map(drop).unwrap() }
    }
}
