//! One server under damaged and hostile requests.
//!
//! Oracle: every answer is a well-formed HTTP status, every refusal of a request whose head is whole is an error of
//! OpenAI's form and no fault of the server (below 500), the server lives on within its memory, and a greedy question
//! is answered as it was before.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use lm::checkpoint::Storage;
use serde_json::{Value, json};

use super::harness::{NUMBERS, Random, class};
use super::support::http::Server;
use super::support::{command, run, tiny_model};

/// The most memory that a server of the tiny model may take, in KiB.
const MEMORY_KIB: u64 = 300_000;

const PATHS: [&str; 13] = [
    "/v1/chat/completions",
    "/v1/feedback",
    "/v1/models",
    "/metrics",
    "/health",
    "/openapi.json",
    "/review",
    "/review/login",
    "/review/logout",
    "/review/session",
    "/review/next",
    "/review/verdict",
    "/review/revoke",
];

/// A server with a data folder, and a person who is signed in.
struct Site {
    server: Server,
    folder: tempfile::TempDir,
    /// Headers of a session.
    session: Vec<String>,
}

impl Site {
    fn start(arguments: &[&str]) -> Site {
        let folder = tempfile::tempdir().expect("a folder");
        let (model, data) = (folder.path().join("model"), folder.path().join("data"));
        tiny_model(&model, Storage::F32);
        let token = token(&data, "an");
        let paths = [model.to_string_lossy().into_owned(), data.to_string_lossy().into_owned()];
        let usual = [&paths[0], "--collect", "--data", &paths[1], "--max-tokens", "8", "--threads", "1"];
        let server = Server::start(&[&usual[..], arguments].concat());
        let session = signed_in(&server, &token);
        Site { server, folder, session }
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    fn ferule(&self, arguments: &[&str]) -> String {
        let data = self.data().to_string_lossy().into_owned();
        let run = run(command(&[arguments, &["--data", &data]].concat()), b"");
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.stdout
    }

    fn memory_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.process())).expect("a living server");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    fn text(&self, question: &str) -> Value {
        self.server.ask(question, "an")["choices"].clone()
    }
}

/// The token of a new person.
fn token(data: &Path, name: &str) -> String {
    let made = run(command(&["person", "add", name, "--data", &data.to_string_lossy()]), b"");
    made.stdout.trim().to_string()
}

fn signed_in(server: &Server, token: &str) -> Vec<String> {
    let answer = server.send("POST", "/review/login", &[], json!({ "token": token }).to_string());
    assert_eq!(answer.status, 200, "{}", answer.body);
    let cookie = answer.header("set-cookie").expect("a cookie").split(';').next().expect("a value").to_string();
    let csrf = answer.json()["csrf"].as_str().expect("a secret").to_string();
    vec![format!("Cookie: {cookie}"), format!("x-ferule-csrf: {csrf}")]
}

/// A value of any type, often an extreme one.
fn odd(random: &mut Random) -> String {
    match random.below(6) {
        0 | 1 => random.pick(NUMBERS).to_string(),
        2 => {
            let depth = random.below(3000);
            "[".repeat(depth) + &"]".repeat(depth)
        }
        3 => format!("{:?}", "a".repeat(random.below(3000))),
        _ => random
            .pick(&[
                "null",
                "true",
                "{}",
                "[]",
                "\"\"",
                "[null]",
                "{\"a\":1}",
                "\"\\ud800\"",
                "\"\\u0000\\u202e\"",
                "NaN",
                "\"<|im_end|>\"",
            ])
            .to_string(),
    }
}

/// A body of a route: an object with odd values in some fields.
fn body(random: &mut Random) -> String {
    const FIELDS: [(&str, &str); 24] = [
        ("messages", r#"[{"role":"user","content":"flat?"}]"#),
        ("max_tokens", "2"),
        ("temperature", "0"),
        ("top_p", "0.5"),
        ("n", "2"),
        ("seed", "7"),
        ("stop", "[\"a\"]"),
        ("stream", "true"),
        ("stream_options", "{\"include_usage\":true}"),
        ("logprobs", "true"),
        ("top_logprobs", "2"),
        ("user", "\"an\""),
        ("store", "false"),
        ("model", "null"),
        ("response_format", "{\"type\":\"text\"}"),
        ("id", "\"chatcmpl-0\""),
        ("thumb", "\"up\""),
        ("correction", "\"b\""),
        ("reason", "\"c\""),
        ("token", "\"ferule_0\""),
        ("item", "\"0\""),
        ("decision", "\"accept\""),
        ("seconds", "1.5"),
        ("verdict", "1"),
    ];
    let mut fields = vec![format!("\"messages\":{}", FIELDS[0].1)];
    for _ in 0..random.below(5) {
        let (name, value) = *random.pick(&FIELDS);
        let value = if random.below(2) == 0 { odd(random) } else { value.to_string() };
        fields.push(format!("\"{name}\":{value}"));
    }
    if random.below(4) == 0 {
        fields.remove(0);
    }
    if random.below(6) == 0 {
        let message =
            format!(r#""messages":[{{"role":{},"content":{},"name":{}}}]"#, odd(random), odd(random), odd(random));
        fields = vec![message];
    }
    format!("{{{}}}", fields.join(","))
}

/// Sends bytes and reads to the end. A request that is not whole ends with the client's side of the connection, since
/// the server would wait for the rest; then it may leave without an answer.
fn exchange(address: &str, bytes: &[u8], whole: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("a listening server");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time");
    // A server that refuses a head may close before it has read the whole of it.
    let _ = stream.write_all(bytes);
    if !whole {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// Checks an answer; `whole` says whether the request is.
fn check(name: &str, sent: &[u8], answer: &[u8], whole: bool) {
    let (sent, answer) = (String::from_utf8_lossy(sent), String::from_utf8_lossy(answer));
    let told = || format!("{name}:\n{}\n->\n{answer}", &sent[..sent.floor_char_boundary(2000)]);
    if answer.is_empty() {
        return assert!(!whole, "{}", told());
    }
    let answer = answer.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&answer);
    let status: u16 = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0);
    assert!((200..500).contains(&status), "{}", told());
    let (_, rest) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{}", told()));
    // A head that is none is refused before the routes: by its status alone. HEAD has no body.
    if status >= 400 && whole && !sent.starts_with("HEAD") {
        let error: Value = serde_json::from_str(rest).unwrap_or_else(|_| panic!("{}", told()));
        assert!(error["error"]["message"].is_string() && error["error"]["type"].is_string(), "{}", told());
    }
}

#[test]
fn server() {
    let site = Site::start(&[]);
    let before = site.text("Is it flat?");
    class("server's API", |attempt, random| {
        for _ in 0..8 {
            let path = *random.pick(&PATHS);
            let method = if random.below(8) > 0 {
                "POST"
            } else {
                *random.pick(&["GET", "HEAD", "PUT", "OPTIONS", "TRACE", "X"])
            };
            let path = match random.below(8) {
                0 => format!(
                    "{path}{}",
                    random.pick(&[
                        "/",
                        "/..",
                        "/%2e%2e/%2e%2e/etc/passwd",
                        "?skip=%ff",
                        "?skip=,,,",
                        "//",
                        "%00",
                        "?a[]=1"
                    ])
                ),
                _ => path.to_string(),
            };
            let mut body = body(random).into_bytes();
            if random.below(3) == 0 {
                random.damage(&mut body);
            }
            let session = if random.below(2) == 0 { site.session.join("\r\n") + "\r\n" } else { String::new() };
            let (length, is_true) = match random.below(12) {
                0 => ("Transfer-Encoding: chunked".to_string(), false),
                1 => (format!("Content-Length: {}", body.len() + 1 + random.below(100_000_000)), false),
                2 => (format!("Content-Length: {}", random.below(body.len() + 1)), true),
                _ => (format!("Content-Length: {}", body.len()), true),
            };
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{session}{length}\r\n\r\n"
            );
            let mut request = [head.as_bytes(), &body].concat();
            let is_damaged = random.below(4) == 0;
            if is_damaged {
                random.damage(&mut request);
            }
            let whole = is_true && !is_damaged;
            let answer = exchange(&site.server.address, &request, whole);
            check(&attempt.name, &request, &answer, whole);
        }
        assert_eq!(site.text("Is it flat?"), before, "{}", attempt.name);
        assert!(site.memory_kib() < MEMORY_KIB, "{}: {} KiB", attempt.name, site.memory_kib());
    });
    assert!(site.ferule(&["audit", "verify"]).starts_with("whole"));
}

#[test]
fn large_bodies_together_stay_within_memory() {
    let site = Site::start(&[]);
    let before = site.text("Is it flat?");
    let large = json!({ "messages": [{ "role": "user", "content": "ab c1 ".repeat(600_000) }] }).to_string();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let answer = site.server.send("POST", "/v1/chat/completions", &[], &large);
                assert!([400, 429].contains(&answer.status), "{}", answer.body);
            });
        }
    });
    assert!(site.memory_kib() < MEMORY_KIB, "{} KiB", site.memory_kib());
    assert_eq!(site.text("Is it flat?"), before);
}

#[test]
fn slow_clients_do_not_keep_others_out() {
    let site = Site::start(&["--max-connections", "8"]);
    let connect = || TcpStream::connect(&site.server.address).expect("a place in the queue");
    let mut slow: Vec<TcpStream> = (0..12).map(|_| connect()).collect();
    for stream in &mut slow {
        stream.write_all(b"POST /review/login HTTP/1.1\r\nHost: localh").expect("a little");
    }
    let began = Instant::now();
    site.text("Is it flat?");
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
}

#[test]
fn of_two_reviewers_or_two_feedbacks_one_wins_and_the_other_is_told() {
    let site = Site::start(&[]);
    let second = signed_in(&site.server, &token(&site.data(), "bo"));
    let post = |path: &str, session: &[String], body: &Value| {
        let headers: Vec<&str> = session.iter().map(String::as_str).collect();
        site.server.send("POST", path, &headers, body.to_string()).status
    };
    let both = |one: &(dyn Fn() -> u16 + Sync), other: &(dyn Fn() -> u16 + Sync)| {
        let mut statuses = std::thread::scope(|scope| {
            let one = scope.spawn(one);
            [other(), one.join().expect("no panic")]
        });
        statuses.sort();
        statuses
    };
    const ITEMS: usize = 12;
    for number in 0..ITEMS {
        let id = site.server.ask(&number.to_string(), "an")["id"].clone();
        let feedback = json!({ "id": id, "thumb": "down" });
        let give = || post("/v1/feedback", &[], &feedback);
        assert_eq!(both(&give, &give), [200, 409]);
    }
    for _ in 0..ITEMS {
        let headers: Vec<&str> = second.iter().map(String::as_str).collect();
        let item = site.server.send("GET", "/review/next", &headers, "").json()["items"][0]["item"].clone();
        let verdict = |decision: &str| json!({ "item": item, "decision": decision, "seconds": 1 });
        let (accept, reject) = (verdict("accept"), verdict("reject"));
        let statuses =
            both(&|| post("/review/verdict", &site.session, &accept), &|| post("/review/verdict", &second, &reject));
        assert_eq!(statuses, [200, 409]);
    }
    let audit = site.ferule(&["audit", "show"]);
    assert_eq!(audit.matches(" verdict ").count(), ITEMS, "{audit}");
    assert!(site.ferule(&["audit", "verify"]).starts_with("whole"));
}
