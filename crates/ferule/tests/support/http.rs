//! A server under test, and a client that speaks just enough HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Stdio};

use serde_json::Value;

use super::command;

/// A running `ferule serve`; killed when it is dropped.
pub struct Server {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    /// `127.0.0.1:PORT`.
    pub address: String,
}

impl Server {
    /// Starts `ferule serve` with arguments, on a free port, and waits until it is ready.
    pub fn start(arguments: &[&str]) -> Server {
        let all = [&["serve", "--port", "0"], arguments].concat();
        let mut child = command(&all).stdout(Stdio::piped()).stdin(Stdio::null()).spawn().expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("an address");
        let address = line.trim().strip_prefix("http://").unwrap_or_else(|| panic!("no address: {line:?}")).to_string();
        Server { child, _stdout: stdout, address }
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = std::process::Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits for the end and returns the exit code.
    pub fn ended(mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }

    /// Sends a request with headers, `Name: value` each, and reads the answer.
    pub fn send(&self, method: &str, path: &str, headers: &[&str], body: impl AsRef<[u8]>) -> Answer {
        self.try_send(method, path, headers, body).expect("a listening server")
    }

    /// The same with a server that may be gone.
    pub fn try_send(&self, method: &str, path: &str, headers: &[&str], body: impl AsRef<[u8]>) -> Option<Answer> {
        let mut stream = self.try_open(method, path, headers, body)?;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        Some(Answer::read(&bytes))
    }

    /// Sends a request; the answer is left to be read.
    pub fn open(&self, method: &str, path: &str, headers: &[&str], body: impl AsRef<[u8]>) -> TcpStream {
        self.try_open(method, path, headers, body).expect("a listening server")
    }

    fn try_open(&self, method: &str, path: &str, headers: &[&str], body: impl AsRef<[u8]>) -> Option<TcpStream> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let named = if headers.contains("Host: ") { String::new() } else { format!("Host: {}\r\n", self.address) };
        let length = body.as_ref().len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\n{named}Connection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
        );
        // A server that refuses a request may close before it has read the whole of it.
        let _ = stream.write_all(&[head.as_bytes(), body.as_ref()].concat());
        Some(stream)
    }

    /// The process's id.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Posts JSON and expects it to be answered with 200.
    pub fn post(&self, path: &str, headers: &[&str], body: &Value) -> Value {
        let answer = self.send("POST", path, headers, body.to_string());
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    /// Asks a question with a greedy answer.
    pub fn ask(&self, question: &str, user: &str) -> Value {
        let messages = serde_json::json!([{ "role": "user", "content": question }]);
        let body = serde_json::json!({ "messages": messages, "temperature": 0, "max_tokens": 6, "user": user });
        self.post("/v1/chat/completions", &[], &body)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    fn read(bytes: &[u8]) -> Answer {
        let text = String::from_utf8_lossy(bytes);
        let (head, rest) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
        let body = if chunked { unchunked(rest) } else { rest.to_string() };
        Answer { status, head: head.to_string(), body }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let of = |line: &str| line.split_once(": ").is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
        self.head.lines().find(|line| of(line)).and_then(|line| line.split_once(": ")).map(|(_, value)| value)
    }

    /// The events of a stream, as they came.
    pub fn events(&self) -> Vec<String> {
        self.body.lines().filter_map(|line| line.strip_prefix("data: ")).map(String::from).collect()
    }
}

fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 || after.len() < size {
            break;
        }
        body += &after[..size];
        rest = after[size..].strip_prefix("\r\n").unwrap_or("");
    }
    body
}
