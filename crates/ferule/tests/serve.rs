//! `ferule serve` through the binary: what it answers, what it refuses, and how it ends.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use lm::checkpoint::Storage;
use serde_json::{Value, json};
use support::http::{Answer, Server};
use support::{ferule, tiny_model};

const CHAT: &str = "/v1/chat/completions";

fn model() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    tiny_model(folder.path(), Storage::F32);
    let path = folder.path().to_string_lossy().into_owned();
    (folder, path)
}

/// The same with so long a context, and no end token, that an answer takes many seconds if it is allowed many tokens.
fn patient_model() -> (tempfile::TempDir, String) {
    let (folder, path) = model();
    let file = folder.path().join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    config["max_position_embeddings"] = 100_000.into();
    fs::write(&file, config.to_string()).unwrap();
    // A greedy answer goes round in circles; the end token becomes one that is not among them.
    let line = json!({ "messages": user("Is it flat?") }).to_string();
    let circles = ferule(&["generate", "--model", &path, "--max-new-tokens", "2000", "--ignore-eos"], &line).json();
    let among = |id: &u64| circles[0]["tokens"].as_array().unwrap().contains(&json!(id));
    let end = (0..280u64).find(|id| !among(id)).unwrap();
    fs::write(folder.path().join("generation_config.json"), json!({ "eos_token_id": [end] }).to_string()).unwrap();
    (folder, path)
}

fn user(text: &str) -> Value {
    json!([{ "role": "user", "content": text }])
}

fn ask(server: &Server, body: &Value) -> Answer {
    server.send("POST", CHAT, &[], body.to_string())
}

/// A greedy question for `max_tokens` tokens, streamed.
fn long(max_tokens: usize) -> String {
    json!({ "messages": user("Is it flat?"), "temperature": 0, "max_tokens": max_tokens, "stream": true }).to_string()
}

/// Reads events until one of them holds text; none when the connection ends before.
fn first_text(stream: TcpStream) -> Option<BufReader<TcpStream>> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
        if line.starts_with("data: ") && line.contains("\"content\":\"") && !line.contains("\"content\":\"\"") {
            return Some(reader);
        }
        line.clear();
    }
    None
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A figure of `/metrics`.
fn figure(server: &Server, name: &str) -> f64 {
    let text = server.send("GET", "/metrics", &[], "").body;
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    line.and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// The text, finish reason and log-probabilities of a streamed choice.
fn gathered(answer: &Answer, index: u64) -> (String, String, Vec<Value>) {
    let (mut text, mut finish, mut logprobs) = (String::new(), String::new(), Vec::new());
    let events = answer.events();
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"), "{}", answer.body);
    for event in &events[..events.len() - 1] {
        let event: Value = serde_json::from_str(event).unwrap();
        for choice in event["choices"].as_array().unwrap().iter().filter(|choice| choice["index"] == index) {
            text += choice["delta"]["content"].as_str().unwrap_or_default();
            finish += choice["finish_reason"].as_str().unwrap_or_default();
            logprobs.extend(choice["logprobs"]["content"].as_array().into_iter().flatten().cloned());
        }
    }
    (text, finish, logprobs)
}

#[test]
fn answers_are_those_of_generate_at_once_and_piece_by_piece() {
    let (_folder, path) = model();
    let server = Server::start(&[&path]);
    let conversation =
        json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is the ruler flat?"}]);
    let line = json!({ "messages": conversation }).to_string();
    for (temperature, seed, samples) in [("0", "0", 1), ("0.8", "3", 1), ("1.3", "7", 2)] {
        let samples_text = samples.to_string();
        let options = [
            "generate",
            "--model",
            &path,
            "--max-new-tokens",
            "14",
            "--temperature",
            temperature,
            "--seed",
            seed,
            "--n",
            &samples_text,
            "--top-logprobs",
            "2",
        ];
        let expected = ferule(&options, &line).json();
        let mut body = json!({
            "messages": conversation, "max_completion_tokens": 14, "temperature": temperature.parse::<f64>().unwrap(),
            "seed": seed.parse::<u64>().unwrap(), "n": samples, "logprobs": true, "top_logprobs": 2,
        });
        let answer = ask(&server, &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let answer = answer.json();
        body["stream"] = true.into();
        body["stream_options"] = json!({ "include_usage": true });
        let stream = ask(&server, &body);
        let mut made = 0;
        for (index, expected) in expected.iter().enumerate() {
            let choice = &answer["choices"][index];
            assert_eq!(choice["message"]["content"], expected["text"]);
            assert_eq!(choice["finish_reason"], expected["finish_reason"]);
            let ended = usize::from(expected["finish_reason"] == "stop");
            let logprobs = expected["logprobs"].as_array().unwrap();
            made += logprobs.len();
            let content = choice["logprobs"]["content"].as_array().unwrap();
            let numbers = |list: &[Value], of: &dyn Fn(&Value) -> Option<f64>| -> Vec<f32> {
                list.iter().filter_map(of).map(|x| x as f32).collect()
            };
            let told = numbers(content, &|token| token["logprob"].as_f64());
            assert_eq!(told, numbers(&logprobs[..logprobs.len() - ended], &Value::as_f64), "without the end token");
            assert!(content.iter().all(|token| token["top_logprobs"].as_array().unwrap().len() == 2));
            let (text, finish, streamed) = gathered(&stream, index as u64);
            assert_eq!(expected["text"], text);
            assert_eq!(expected["finish_reason"], finish);
            assert_eq!(&streamed, content);
        }
        let usage = answer["usage"].clone();
        assert_eq!(usage["completion_tokens"], made);
        let events = stream.events();
        let last: Value = serde_json::from_str(&events[events.len() - 2]).unwrap();
        assert_eq!((&last["usage"], &last["choices"]), (&usage, &json!([])));
        let confidence = answer["ferule"]["confidence"].as_f64().unwrap();
        assert!(confidence > 0.0 && confidence <= 1.0);
        assert!(answer["ferule"]["abstain"].is_null(), "nobody has measured a threshold");
    }
    let listed = server.send("GET", "/v1/models", &[], "").json();
    assert_eq!(listed["data"][0]["id"], path.as_str());
    let digest = listed["data"][0]["digest"].as_str().unwrap();
    let named = |name: &str| ask(&server, &json!({ "messages": user("a"), "max_tokens": 1, "model": name }));
    let (one, two) = (named(&path).json(), named(digest).json());
    assert_eq!(one["ferule"]["model"], digest);
    let id = one["id"].as_str().unwrap().strip_prefix("chatcmpl-").unwrap();
    assert!(id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit()) && one["id"] != two["id"]);
    let text = server.send("GET", "/metrics", &[], "").body;
    assert!(text.contains("ferule_answers_total{status=\"200\"}") && text.contains(digest), "{text}");
    assert_eq!(figure(&server, "ferule_first_piece_seconds_count"), 8.0);
    assert_eq!(server.send("GET", "/health", &[], "").json(), json!({ "status": "ok" }));
}

#[test]
fn stop_strings_end_an_answer_before_them() {
    let (_folder, path) = model();
    let server = Server::start(&[&path]);
    let mut body = json!({ "messages": user("the ruler"), "temperature": 0, "max_tokens": 20 });
    let free = ask(&server, &body).json()["choices"][0]["message"]["content"].as_str().unwrap().to_string();
    let stop: String = free.chars().skip(4).take(2).collect();
    assert_eq!(stop.chars().count(), 2, "{free:?}");
    let before = free.split(&stop).next().unwrap();
    for stops in [json!(stop), json!(["never to be found", stop])] {
        body["stop"] = stops;
        body["stream"] = false.into();
        let choice = ask(&server, &body).json()["choices"][0].clone();
        assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!(before), &json!("stop")));
        body["stream"] = true.into();
        let (text, finish, _) = gathered(&ask(&server, &body), 0);
        assert_eq!((text.as_str(), finish.as_str()), (before, "stop"));
    }
}

#[test]
fn a_request_that_cannot_be_answered_says_why() {
    let (folder, path) = model();
    let server = Server::start(&[&path, "--max-body", "20000", "--batch", "2", "--max-queue", "1"]);
    let refused = |status: u16, body: &[u8], code: Value, said: &str| {
        let answer = server.send("POST", CHAT, &[], body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        assert_eq!(answer.status, status, "{shown}: {}", answer.body);
        let error = answer.json()["error"].clone();
        assert_eq!(error["code"], code, "{shown}: {error}");
        assert!(error["message"].as_str().unwrap().contains(said), "{shown}: {error}");
        assert!(error["type"].is_string() && error.get("param").is_some(), "{error}");
    };
    let with = |field: &str, value: Value| {
        let mut body = json!({ "messages": user("a"), "max_tokens": 1 });
        body[field] = value;
        body.to_string().into_bytes()
    };
    refused(400, &with("tools", json!([{ "type": "function" }])), Value::Null, "`tools` is not supported");
    refused(400, &with("n", json!(4)), Value::Null, "`n` is at most 3");
    refused(400, &with("temperature", json!("hot")), Value::Null, "cannot be read");
    refused(404, &with("model", json!("gpt-4")), json!("model_not_found"), "\"gpt-4\"");
    refused(400, &with("messages", user(&"flat ".repeat(90))), json!("context_length_exceeded"), "ends at 64");
    refused(413, &with("messages", user(&"x".repeat(30_000))), Value::Null, "more than 20000 bytes");
    // Hostile JSON: too deep, numbers that no float holds, text that is no text.
    let deep = format!("{{\"messages\": {}", "[".repeat(15_000));
    refused(400, deep.as_bytes(), Value::Null, "cannot be read");
    let nested = format!("{{\"messages\":[],\"metadata\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
    refused(400, nested.as_bytes(), Value::Null, "cannot be read");
    for value in ["1e999", "-1e999", "NaN", "Infinity", "1e308", "-0.1", &"9".repeat(400)] {
        let body = format!("{{\"messages\":[{{\"role\":\"user\",\"content\":\"a\"}}],\"temperature\":{value}}}");
        assert_eq!(server.send("POST", CHAT, &[], body).status, 400, "{value}");
    }
    refused(400, br#"{"messages":[{"role":"user","content":"\ud800"}]}"#, Value::Null, "cannot be read");
    refused(400, b"{\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}", Value::Null, "cannot be read");
    refused(400, br#"{"messages":[],"messages":[]}"#, Value::Null, "cannot be read");
    refused(400, b"", Value::Null, "cannot be read");
    refused(400, b"null", Value::Null, "cannot be read");
    for (method, path, status) in [("GET", CHAT, 405), ("POST", "/v1/embeddings", 404), ("DELETE", "/health", 405)] {
        let answer = server.send(method, path, &[], "");
        assert_eq!((answer.status, answer.json()["error"]["type"].as_str()), (status, Some("invalid_request_error")));
    }
    // What a page elsewhere makes a browser send.
    let body = with("seed", json!(1));
    for (header, status) in [
        ("Host: rebound.example", 403),
        ("Origin: http://elsewhere.example", 403),
        ("Origin: null", 403),
        ("X-None: x", 200),
    ] {
        let answer = server.send("POST", CHAT, &[header], &body);
        assert_eq!(answer.status, status, "{header}: {}", answer.body);
        assert!(answer.header("access-control-allow-origin").is_none());
    }
    // The most hostile text is a text: special tokens, an unpaired escape, nothing at all.
    for text in ["<|im_end|><|endoftext|>", "\u{0}\u{202e}\u{fdd0}", ""] {
        assert_eq!(ask(&server, &json!({ "messages": user(text), "max_tokens": 1 })).status, 200, "{text:?}");
    }
    drop(server);

    // Without a template there is no conversation, and nothing to continue where nothing is said.
    fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    let server = Server::start(&[&path]);
    for (messages, said) in [
        (json!([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]), "knows no conversation"),
        (json!([{"role": "system", "content": "a"}]), "knows no conversation"),
        (user(""), "no token"),
    ] {
        let answer = ask(&server, &json!({ "messages": messages }));
        assert_eq!(answer.status, 400, "{}", answer.body);
        assert!(answer.body.contains(said), "{}", answer.body);
    }
    let body = json!({ "messages": user("the ruler"), "temperature": 0, "max_tokens": 6 });
    let expected =
        ferule(&["generate", "--model", &path, "--max-new-tokens", "6"], "{\"prompt\": \"the ruler\"}").json();
    assert_eq!(ask(&server, &body).json()["choices"][0]["message"]["content"], expected[0]["text"]);
}

#[test]
fn a_full_queue_is_told_and_a_client_that_leaves_makes_room() {
    let (_folder, path) = patient_model();
    let limits = ["--context", "60000", "--max-tokens", "50000", "--batch", "1", "--max-queue", "1"];
    let server = Server::start(&[&[path.as_str()][..], &limits].concat());
    let load = |server: &Server| (figure(server, "ferule_requests_running"), figure(server, "ferule_requests_waiting"));
    let running = first_text(server.open("POST", CHAT, &[], long(50_000))).expect("the first is answered");
    let waiting = server.open("POST", CHAT, &[], long(50_000));
    eventually("the second waits", || load(&server) == (1.0, 1.0));
    let short = json!({ "messages": user("a"), "max_tokens": 1 });
    let busy = ask(&server, &short);
    assert_eq!((busy.status, busy.header("retry-after")), (429, Some("1")), "{}", busy.body);
    assert_eq!(busy.json()["error"]["code"], "rate_limit_exceeded");

    drop(running);
    let second = first_text(waiting).expect("the second has the first one's place");
    eventually("nobody waits", || load(&server) == (1.0, 0.0));
    drop(second);
    eventually("nobody is left", || load(&server) == (0.0, 0.0));

    // A client that leaves before an answer that comes at once, and one that leaves while it waits.
    let at_once = long(50_000).replace("\"stream\":true", "\"stream\":false");
    let first = server.open("POST", CHAT, &[], &at_once);
    eventually("it runs", || load(&server).0 == 1.0);
    let second = server.open("POST", CHAT, &[], &at_once);
    eventually("the other waits", || load(&server) == (1.0, 1.0));
    drop(second);
    eventually("it waits no more", || load(&server) == (1.0, 0.0));
    drop(first);
    eventually("it runs no more", || load(&server) == (0.0, 0.0));
    assert_eq!(ask(&server, &short).status, 200);
}

#[test]
fn what_runs_is_finished_before_the_end() {
    let (_folder, path) = patient_model();
    let limits = ["--context", "60000", "--max-tokens", "50000", "--max-connections", "3"];
    let start = |drain: &str| Server::start(&[&[path.as_str()][..], &limits, &["--drain-seconds", drain]].concat());
    let server = start("30");
    let mut running = first_text(server.open("POST", CHAT, &[], long(3000))).expect("it is answered");
    // Every connection is taken, by clients that say nothing.
    let _idle: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
    server.signal("TERM");
    let address = server.address.clone();
    eventually("nobody is let in", || TcpStream::connect(&address).is_err());
    let mut rest = String::new();
    running.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\"finish_reason\":\"length\"") && rest.contains("data: [DONE]"), "it was cut off");
    assert_eq!(server.ended(), Some(0));

    // Patience has an end, and a second signal ends it at once.
    for (drain, signals) in [("0", 1), ("600", 2)] {
        let server = start(drain);
        let _running = first_text(server.open("POST", CHAT, &[], long(50_000))).expect("it is answered");
        let address = server.address.clone();
        server.signal("INT");
        if signals == 2 {
            eventually("nobody is let in", || TcpStream::connect(&address).is_err());
            server.signal("INT");
        }
        let began = Instant::now();
        assert_eq!(server.ended(), Some(if signals == 2 { 130 } else { 0 }));
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn keys_are_needed_everywhere_but_for_health() {
    let (folder, path) = model();
    let keys = folder.path().join("keys");
    fs::write(&keys, "# two\nthe-first-key-of-two\nthe-second-key-of-two\n").unwrap();
    let keys = keys.to_string_lossy().into_owned();
    let server = Server::start(&[&path, "--api-key-file", &keys, "--max-body", "1000"]);
    let body = json!({ "messages": user("a"), "max_tokens": 1 }).to_string();
    for (header, status) in [
        ("X-None: x", 401),
        ("Authorization: Bearer the-first-key-of-twO", 401),
        ("Authorization: Basic the-first-key-of-two", 401),
        ("Authorization: Bearer the-first-key-of-two", 200),
        ("Authorization: bearer the-second-key-of-two", 200),
    ] {
        let answer = server.send("POST", CHAT, &[header], &body);
        assert_eq!(answer.status, status, "{header}: {}", answer.body);
        if status == 401 {
            assert_eq!(answer.json()["error"]["code"], "invalid_api_key");
            for path in ["/v1/models", "/metrics"] {
                assert_eq!(server.send("GET", path, &[header], "").status, 401);
            }
            // Nobody's body is not even read.
            assert_eq!(server.send("POST", CHAT, &[header], "x".repeat(5000)).status, 401);
        }
    }
    assert_eq!(server.send("GET", "/health", &[], "").status, 200);
    for (arguments, said) in [
        (vec!["--host", "0.0.0.0"], "others could use the server without a key"),
        (vec!["--upstream", "http://127.0.0.1:1"], "cannot be used with"),
        (vec!["--api-key-file", "/nonexistent"], "one key a line"),
    ] {
        let run = ferule(&[&["serve", &path, "--port", "0"][..], &arguments].concat(), "");
        assert!(run.code != 0 && run.stderr.contains(said), "{}: {}", run.code, run.stderr);
    }
    let run = ferule(&["serve", "--upstream", "http://127.0.0.1:1/v1", "--allow-egress", "localhost"], "");
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("nothing may be sent to 127.0.0.1") && run.stderr.contains("hint:"), "{}", run.stderr);
}

#[test]
fn an_upstream_answers_as_if_it_were_here() {
    let (folder, path) = model();
    let (keys, own) = (folder.path().join("keys"), folder.path().join("own"));
    fs::write(&keys, "the-key-of-the-upstream\n").unwrap();
    fs::write(&own, "the-key-of-the-upstream\n").unwrap();
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let behind = Server::start(&[&path, "--api-key-file", &text(&keys)]);
    let url = format!("http://{}/v1", behind.address);
    let front = Server::start(&["--upstream", &url, "--allow-egress", "127.0.0.1", "--upstream-key-file", &text(&own)]);
    let key = ["Authorization: Bearer the-key-of-the-upstream"];
    let mut body = json!({ "messages": user("Is it flat?"), "temperature": 0, "max_tokens": 12, "user": "anna" });
    let direct = behind.post(CHAT, &key, &body);
    let through = front.post(CHAT, &[], &body);
    assert_eq!((&through["choices"], &through["usage"]), (&direct["choices"], &direct["usage"]));
    assert_ne!(through["id"], direct["id"]);
    body["stream"] = true.into();
    let expected = gathered(&behind.send("POST", CHAT, &key, body.to_string()), 0);
    assert_eq!(gathered(&ask(&front, &body), 0), expected);
    assert_eq!(expected.0, direct["choices"][0]["message"]["content"].as_str().unwrap());
    assert_eq!(front.send("GET", "/v1/models", &[], "").json(), behind.send("GET", "/v1/models", &key, "").json());
    // The client's own mistakes are told as the upstream tells them.
    let wrong = ask(&front, &json!({ "messages": user(&"flat ".repeat(90)) }));
    assert_eq!((wrong.status, &wrong.json()["error"]["code"]), (400, &json!("context_length_exceeded")));
    drop(behind);
    let gone = ask(&front, &body);
    assert_eq!((gone.status, &gone.json()["error"]["type"]), (502, &json!("server_error")), "{}", gone.body);
}

/// An upstream of one connection: answers with `reply` and returns what it was sent, when the connection has ended.
fn scripted(reply: &str) -> (Server, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let reply = reply.to_string();
    let upstream = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut sent = Vec::new();
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&sent).contains("\"messages\"") {
            let read = stream.read(&mut buffer).unwrap();
            sent.extend_from_slice(&buffer[..read]);
        }
        stream.write_all(reply.as_bytes()).unwrap();
        if reply.contains("Connection: close") {
            return String::from_utf8_lossy(&sent).into_owned();
        }
        while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
        String::from_utf8_lossy(&sent).into_owned()
    });
    (Server::start(&["--upstream", &url, "--allow-egress", "127.0.0.1"]), upstream)
}

#[test]
fn an_upstream_is_not_trusted() {
    let body = |stream: bool| json!({ "messages": user("a"), "stream": stream, "store": false, "user": "anna" });
    let secret = ["Authorization: Bearer the-clients-own-secret"];
    for (reply, said) in [
        ("HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n", "redirects are not followed"),
        ("HTTP/1.1 500 Broken\r\nContent-Length: 4\r\n", "status 500"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n", "no JSON"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 90\r\n", "broke off"),
        ("HTTP/1.1 401 No\r\nContent-Length: 4\r\n", "refuses this server's key"),
        ("no HTTP at all", "cannot be reached"),
    ] {
        let (front, upstream) = scripted(&format!("{reply}Connection: close\r\n\r\n<a>b"));
        let answer = front.send("POST", CHAT, &secret, body(false).to_string());
        assert_eq!(answer.status, 502, "{reply}: {}", answer.body);
        assert!(answer.json()["error"]["message"].as_str().unwrap().contains(said), "{}", answer.body);
        let sent = upstream.join().unwrap();
        assert!(!sent.contains("secret") && !sent.contains("anna") && !sent.contains("store"), "{sent}");
    }
    for (events, said) in [
        ("data: 5\n\n", "no stream of answers"),
        ("data: {\"error\": {\"message\": \"x\"}}\n\n", "failed while it answered"),
        ("data: {\"choices\": 7, \"id\": []}\n\n", "broke off"),
        (": nothing\n", "broke off"),
    ] {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
        let (front, upstream) = scripted(&format!("{head}{events}"));
        let answer = front.send("POST", CHAT, &[], body(true).to_string());
        let events = answer.events();
        assert!(events.last().is_some_and(|last| last.contains(said)), "{}", answer.body);
        upstream.join().unwrap();
    }
    // A client that leaves is gone for the upstream too, whether its answer streams or not.
    for (stream, reply) in [
        (
            true,
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {\"choices\": [{\"delta\": {\"content\": \"a\"}}]}\n\n",
        ),
        (false, ""),
    ] {
        let (front, upstream) = scripted(reply);
        let client = front.open("POST", CHAT, &[], body(stream).to_string());
        let client = if stream { first_text(client).map(BufReader::into_inner) } else { Some(client) };
        std::thread::sleep(Duration::from_millis(300));
        assert!(!upstream.is_finished());
        drop(client.expect("the text came"));
        eventually("the upstream sees the end", || upstream.is_finished());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn memory_stays_flat() {
    let (_folder, path) = patient_model();
    let server = Server::start(&[&path]);
    let resident = || {
        let text = fs::read_to_string(format!("/proc/{}/status", server.process())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let body = json!({ "messages": user(&"the ruler 1 2 3 ".repeat(100)), "temperature": 0, "max_tokens": 2 });
    let requests = |n: usize| (0..n).for_each(|_| assert_eq!(ask(&server, &body).status, 200));
    requests(150);
    let before = resident();
    requests(600);
    let grown = resident().saturating_sub(before);
    // Kept prompts alone would take more than this.
    assert!(grown < 1200, "600 requests left {grown} kB");
}
