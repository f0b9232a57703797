//! A hub whose answers are damaged or made up.
//!
//! Oracle: whatever the hub says, contents in the cache that are named by a digest have that digest, nothing is written
//! outside the cache, the token goes to nobody else, and a reference to a snapshot is only written by a pull that
//! succeeds, all of whose files are those of the undamaged hub or are named by no digest.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::harness::{Random, class};
use super::support::command;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const FILES: [(&str, &str); 3] =
    [("config.json", "{\"hidden_size\": 32}"), ("tokenizer.json", "{}"), ("model.safetensors", "weights, long ones")];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn git_id(bytes: &[u8]) -> String {
    hex(&Sha1::digest([format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat()))
}

fn etag(name: &str, bytes: &[u8]) -> String {
    if name.ends_with(".safetensors") { sha256(bytes) } else { git_id(bytes) }
}

/// What is answered to a request, and for how long the connection then stays open.
#[derive(Clone, Default)]
struct Reply {
    bytes: Vec<u8>,
    stall: Duration,
    /// Whether the last byte is repeated until the client leaves.
    endless: bool,
}

type Replies = HashMap<String, Reply>;

/// The answers of an honest hub, by method and path.
fn honest() -> Replies {
    let reply = |text: String| Reply { bytes: text.into_bytes(), ..Reply::default() };
    let siblings: Vec<_> = FILES.iter().map(|(name, _)| serde_json::json!({ "rfilename": name })).collect();
    let list = serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string();
    let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", list.len());
    let mut replies = HashMap::from([("GET /api/models/a/b/revision/main".into(), reply(head + &list))]);
    for (name, text) in FILES {
        let head = format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\netag: \"{}\"\r\ncontent-length: {}\r\n\r\n",
            etag(name, text.as_bytes()),
            text.len()
        );
        let path = format!("/a/b/resolve/{COMMIT}/{name}");
        replies.insert(format!("GET {path}"), reply(head.clone() + text));
        replies.insert(format!("HEAD {path}"), reply(head));
    }
    replies
}

/// Damages one or two answers.
fn damaged(random: &mut Random, elsewhere: &str) -> Replies {
    let mut replies = honest();
    let mut keys: Vec<String> = replies.keys().cloned().collect();
    keys.sort();
    for _ in 0..=random.below(2) {
        let reply = replies.get_mut(random.pick(&keys)).expect("one of its keys");
        match random.below(48) {
            0 => reply.stall = Duration::from_secs(3),
            1 => reply.endless = true,
            2..=5 => {
                let status = *random.pick(&["301", "302", "307", "308"]);
                let to = *random.pick(&[
                    elsewhere,
                    "/",
                    "//",
                    "http://",
                    "file:///etc/passwd",
                    "/a/../../b",
                    "ftp://x/y",
                    "",
                ]);
                reply.bytes =
                    format!("HTTP/1.1 {status} X\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n").into_bytes();
            }
            6..=9 => {
                let header = *random.pick(&[
                    "etag: \"../../x\"",
                    "x-linked-etag: \"0\"",
                    "x-linked-size: 18446744073709551615",
                    "content-length: 0",
                    "content-length: 999999999999",
                    "transfer-encoding: chunked",
                    "content-encoding: gzip",
                    "content-range: bytes 5-9/10",
                ]);
                let text = String::from_utf8_lossy(&reply.bytes).replacen("\r\n", &format!("\r\n{header}\r\n"), 1);
                reply.bytes = text.into_bytes();
            }
            10..=13 => {
                let name = *random.pick(&[
                    "../../x.json",
                    "/x.json",
                    "config.json",
                    "a\u{1b}[2J.json",
                    "",
                    ".",
                    "config.json/x",
                ]);
                let text = String::from_utf8_lossy(&reply.bytes);
                let text = text.replace("tokenizer.json", name).replace("content-length", "x-length");
                reply.bytes = text.into_bytes();
            }
            14..=16 => {
                let status = *random.pick(&["206 X", "416 X", "404 X", "401 X", "500 X", "100 Continue", "999 X"]);
                reply.bytes = String::from_utf8_lossy(&reply.bytes).replacen("200 OK", status, 1).into_bytes();
            }
            _ => random.damage(&mut reply.bytes),
        }
    }
    replies
}

/// A hub on this machine whose answers can be exchanged, and the requests that it got.
struct Hub {
    address: String,
    replies: Arc<Mutex<Replies>>,
    requests: Arc<Mutex<String>>,
}

impl Hub {
    fn start() -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let (replies, requests): (Arc<Mutex<Replies>>, Arc<Mutex<String>>) = Default::default();
        let hub = Hub { address, replies: replies.clone(), requests: requests.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (replies, requests) = (replies.clone(), requests.clone());
                std::thread::spawn(move || answer(stream, &replies, &requests).ok());
            }
        });
        hub
    }
}

fn answer(mut stream: TcpStream, replies: &Mutex<Replies>, requests: &Mutex<String>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    requests.lock().expect("no panic").push_str(&head);
    let asked = head.rsplit_once(" HTTP/1.1\r\n").map_or("", |(asked, _)| asked).to_string();
    let not_found =
        || Reply { bytes: b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".into(), ..Reply::default() };
    let reply = replies.lock().expect("no panic").get(&asked).cloned().unwrap_or_else(not_found);
    stream.write_all(&reply.bytes)?;
    if reply.endless {
        loop {
            stream.write_all(&[b'a'; 1 << 14])?;
        }
    }
    if !reply.stall.is_zero() {
        stream.set_read_timeout(Some(reply.stall))?;
        let _ = stream.read(&mut [0]);
    }
    Ok(())
}

/// All files below a folder, links not followed.
fn below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.flat_map(|path| if path.is_dir() && !path.is_symlink() { below(&path) } else { vec![path] }).collect()
}

#[test]
fn hub() {
    let (hub, other) = (Hub::start(), Hub::start());
    class("hub", |attempt, random| {
        *hub.replies.lock().expect("no panic") = damaged(random, &other.address);
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path().join("home");
        let mut pull = command(&["pull", "a/b"]);
        pull.env("HF_ENDPOINT", &hub.address).env("HF_HOME", &home).env("HF_TOKEN", "hf_secret");
        pull.env("HF_HUB_DOWNLOAD_TIMEOUT", "1").current_dir(folder.path());
        let run = attempt.run(&pull, b"");
        let name = &attempt.name;
        assert!(!run.stderr.contains("hf_secret") && !run.stderr.contains('\u{1b}'), "{name}: {}", run.stderr);
        let elsewhere = std::mem::take(&mut *other.requests.lock().expect("no panic"));
        assert!(!elsewhere.contains("hf_secret"), "{name}: {elsewhere}");
        let cache = home.join("hub/models--a--b");
        for path in below(folder.path()) {
            assert!(path.starts_with(&cache), "{name}: {} was written", path.display());
        }
        let mut blobs = HashMap::new();
        for path in below(&cache.join("blobs")) {
            let blob = path.file_name().expect("a name").to_string_lossy().into_owned();
            let bytes = fs::read(&path).expect("readable");
            let is_hexadecimal = blob.chars().all(|c| c.is_ascii_hexdigit());
            match blob.len() {
                64 if is_hexadecimal => assert_eq!(sha256(&bytes), blob.to_ascii_lowercase(), "{name}"),
                40 if is_hexadecimal => assert_eq!(git_id(&bytes), blob.to_ascii_lowercase(), "{name}"),
                _ => {}
            }
            blobs.insert(blob, bytes);
        }
        assert_eq!(run.code == 0, cache.join("refs/main").exists(), "{name}: {}", run.stderr);
    });
}
