//! `ferule pull` against a hub on this machine: the cache's layout, resumption, checks, and the network it must not use.

mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lm::checkpoint::Storage;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use support::{Run, command, tiny_model};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub that serves one repository, and remembers what it was asked.
struct Hub {
    files: HashMap<String, Vec<u8>>,
    requests: Mutex<Vec<String>>,
    /// Connections that break after so many bytes of the weights, one for each entry.
    breaks: Mutex<Vec<usize>>,
    /// Announced in place of the weights' SHA-256.
    lie: Mutex<bool>,
    /// What the hub does to all contents.
    mischief: Mutex<Mischief>,
}

#[derive(Clone, Default)]
enum Mischief {
    #[default]
    None,
    /// Sends nothing after so many bytes.
    Stall(usize),
    /// Sends this behind the contents, without end if it is empty.
    Longer(&'static [u8]),
    /// Changes a byte.
    Flip,
    /// Sends clients elsewhere.
    Redirect(String),
    /// Lists files without end.
    EndlessList,
    /// Does not say how long contents are.
    NoSize,
}

/// Git's id of contents.
fn git_id(bytes: &[u8]) -> String {
    let head = format!("blob {}\0", bytes.len());
    Sha1::digest([head.as_bytes(), bytes].concat()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Hub {
    fn start(folder: &Path) -> (Arc<Hub>, String) {
        let files = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).unwrap()))
            .collect();
        let hub = Arc::new(Hub {
            files,
            requests: Mutex::default(),
            breaks: Mutex::default(),
            lie: Mutex::default(),
            mischief: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shared = hub.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let hub = shared.clone();
                // A client may leave at any time.
                std::thread::spawn(move || hub.serve(stream.unwrap()).ok());
            }
        });
        (hub, endpoint)
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                if line.trim().is_empty() {
                    break;
                }
                lines.push(line.trim().to_string());
            }
            let header = |name: &str| {
                lines
                    .iter()
                    .find_map(|line| line.to_ascii_lowercase().strip_prefix(name).map(|rest| rest.trim().to_string()))
            };
            let range = header("range: bytes=").and_then(|range| range.trim_end_matches('-').parse::<usize>().ok());
            let token = header("authorization:").unwrap_or_default();
            self.requests.lock().unwrap().push(format!("{} {range:?} {token}", lines[0]));
            if !self.answer(&lines[0], range, &stream)? {
                return Ok(());
            }
        }
    }

    /// Answers one request; says whether the connection goes on.
    fn answer(&self, request: &str, range: Option<usize>, mut stream: &TcpStream) -> std::io::Result<bool> {
        let parts: Vec<&str> = request.split(' ').collect();
        let (method, path) = (parts[0], parts[1]);
        let mischief = self.mischief.lock().unwrap().clone();
        if let Mischief::Redirect(to) = &mischief {
            write!(stream, "HTTP/1.1 307 Moved\r\nlocation: {to}{path}\r\ncontent-length: 0\r\n\r\n")?;
            return Ok(true);
        }
        if path == "/api/models/school/ruler/revision/main" {
            if let Mischief::EndlessList = mischief {
                write!(stream, "HTTP/1.1 200 OK\r\n\r\n{{\"sha\": \"{COMMIT}\", \"siblings\": [")?;
                let sibling = "{\"rfilename\": \"a.json\"},".repeat(1000);
                loop {
                    stream.write_all(sibling.as_bytes())?;
                }
            }
            let siblings: Vec<_> = self.files.keys().map(|name| serde_json::json!({"rfilename": name})).collect();
            let body = serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string();
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
            return Ok(true);
        }
        let name = path.strip_prefix(&format!("/school/ruler/resolve/{COMMIT}/"));
        let Some((name, bytes)) = name.and_then(|name| Some((name, self.files.get(name)?))) else {
            write!(stream, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")?;
            return Ok(true);
        };
        let is_weights = name == "model.safetensors";
        let etag = match is_weights {
            true if *self.lie.lock().unwrap() => sha256(b"something else"),
            true => sha256(bytes),
            false => git_id(bytes),
        };
        let from = range.unwrap_or(0);
        let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
        let length = bytes.len() - from;
        let length = match (&mischief, method) {
            (Mischief::Longer(_), "GET") | (Mischief::NoSize, _) => String::new(),
            _ => format!("content-length: {length}\r\n"),
        };
        write!(stream, "HTTP/1.1 {status}\r\netag: \"{etag}\"\r\n{length}\r\n")?;
        if method == "HEAD" {
            return Ok(true);
        }
        if is_weights && let Some(after) = self.breaks.lock().unwrap().pop() {
            stream.write_all(&bytes[from..from + after])?;
            stream.shutdown(std::net::Shutdown::Both)?;
            return Ok(false);
        }
        match mischief {
            Mischief::Stall(after) => {
                stream.write_all(&bytes[from..bytes.len().min(from + after)])?;
                // Until the client leaves.
                stream.read(&mut [0]).map(|_| false)
            }
            Mischief::Longer(rest) => {
                stream.write_all(&bytes[from..])?;
                while rest.is_empty() {
                    stream.write_all(&[0; 1 << 16])?;
                }
                stream.write_all(rest)?;
                stream.shutdown(std::net::Shutdown::Both)?;
                Ok(false)
            }
            Mischief::Flip => {
                let mut bytes = bytes.clone();
                bytes[0] ^= 1;
                stream.write_all(&bytes[from..])?;
                Ok(true)
            }
            _ => {
                stream.write_all(&bytes[from..])?;
                Ok(true)
            }
        }
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

fn pull(endpoint: &str, home: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Run {
    let mut command = command(&[&["pull"], arguments].concat());
    command.env("HF_ENDPOINT", endpoint).env("HF_HOME", home).envs(environment.iter().copied());
    support::run(command, b"")
}

struct Case {
    hub: Arc<Hub>,
    endpoint: String,
    home: tempfile::TempDir,
    _model: tempfile::TempDir,
}

impl Case {
    fn new() -> Case {
        let model = tempfile::tempdir().unwrap();
        tiny_model(model.path(), Storage::F32);
        std::fs::write(model.path().join("pytorch_model.bin"), "never fetched").unwrap();
        let (hub, endpoint) = Hub::start(model.path());
        Case { hub, endpoint, home: tempfile::tempdir().unwrap(), _model: model }
    }

    fn pull(&self, environment: &[(&str, &str)]) -> Run {
        pull(&self.endpoint, self.home.path(), environment, &["school/ruler"])
    }

    fn repository(&self) -> std::path::PathBuf {
        self.home.path().join("hub/models--school--ruler")
    }
}

#[test]
fn a_pulled_model_lies_in_the_shared_layout_and_is_found_by_its_id() {
    let case = Case::new();
    let run = case.pull(&[("HF_TOKEN", "hf_secret")]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let snapshot = case.repository().join("snapshots").join(COMMIT);
    assert_eq!(run.stdout.trim(), snapshot.to_str().unwrap());
    assert_eq!(std::fs::read_to_string(case.repository().join("refs/main")).unwrap(), COMMIT);
    let weights = &case.hub.files["model.safetensors"];
    assert_eq!(
        std::fs::read_link(snapshot.join("model.safetensors")).unwrap(),
        Path::new(&format!("../../blobs/{}", sha256(weights)))
    );
    assert_eq!(&std::fs::read(snapshot.join("model.safetensors")).unwrap(), weights);
    assert!(!snapshot.join("pytorch_model.bin").exists());
    let requests = case.hub.requests();
    assert!(requests.iter().all(|request| request.ends_with("bearer hf_secret")), "{requests:?}");

    let again = case.pull(&[]);
    assert_eq!((again.code, again.stdout), (0, run.stdout.clone()));
    assert!(case.hub.requests().iter().all(|request| !request.starts_with("GET /school")), "nothing is fetched twice");

    let offline = case.pull(&[("HF_HUB_OFFLINE", "1")]);
    assert_eq!((offline.code, offline.stdout), (0, run.stdout));
    assert_eq!(case.hub.requests(), Vec::<String>::new(), "offline means no request at all");

    let mut score = command(&["score", "--model", "school/ruler"]);
    score.env("HF_HOME", case.home.path());
    assert_eq!(support::run(score, b"{\"tokens\": [1, 2]}").json().len(), 1);
}

#[test]
fn a_broken_connection_goes_on_where_it_ended() {
    let case = Case::new();
    let size = case.hub.files["model.safetensors"].len();
    *case.hub.breaks.lock().unwrap() = vec![2000, 1000];
    let run = case.pull(&[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let ranges: Vec<String> = case
        .hub
        .requests()
        .into_iter()
        .filter(|request| request.starts_with("GET") && request.contains("safetensors"))
        .collect();
    assert!(ranges.len() == 3 && ranges[1].contains("Some(1000)") && ranges[2].contains("Some(3000)"), "{ranges:?}");
    let snapshot = case.repository().join("snapshots").join(COMMIT);
    assert_eq!(std::fs::metadata(snapshot.join("model.safetensors")).unwrap().len(), size as u64);

    // Another process' half is taken up as well.
    let other = Case::new();
    let weights = &other.hub.files["model.safetensors"];
    std::fs::create_dir_all(other.repository().join("blobs")).unwrap();
    let partial = other.repository().join("blobs").join(format!("{}.incomplete", sha256(weights)));
    std::fs::write(&partial, &weights[..500]).unwrap();
    assert_eq!(other.pull(&[]).code, 0);
    assert!(other.hub.requests().iter().any(|request| request.contains("Some(500)")));
    assert!(!partial.exists());
}

#[test]
fn contents_that_are_not_what_was_announced_are_thrown_away() {
    let case = Case::new();
    *case.hub.lie.lock().unwrap() = true;
    let run = case.pull(&[]);
    assert_eq!((run.code, run.stdout.as_str()), (1, ""));
    assert!(run.stderr.contains("model.safetensors: the contents have SHA-256"), "{}", run.stderr);
    assert!(!case.repository().join("refs/main").exists(), "a ref is the last thing written");
    let left = std::fs::read_dir(case.repository().join("blobs")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().contains("incomplete")));
}

#[test]
fn a_hostile_hub_gets_neither_time_nor_disk_nor_secrets() {
    let with = |mischief: Mischief| {
        let case = Case::new();
        *case.hub.mischief.lock().unwrap() = mischief;
        case
    };
    let refused = |case: &Case, part: &str| {
        let began = Instant::now();
        let run = case.pull(&[("HF_HUB_DOWNLOAD_TIMEOUT", "1"), ("HF_TOKEN", "hf_secret")]);
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{}", run.stderr);
        assert!(run.stderr.contains(part) && run.stderr.contains("\nhint: "), "{part}: {}", run.stderr);
        assert!(!run.stderr.contains("secret"), "{}", run.stderr);
        assert!(began.elapsed() < Duration::from_secs(20), "{part}");
        assert!(!case.repository().join("refs/main").exists());
    };
    let size_of_cache = |case: &Case| -> u64 {
        let blobs = std::fs::read_dir(case.repository().join("blobs")).into_iter().flatten();
        blobs.map(|blob| blob.unwrap().metadata().unwrap().len()).sum()
    };
    refused(&with(Mischief::Stall(0)), "broke off 2 times: the hub sent nothing for 1 s");
    refused(&with(Mischief::Stall(1)), "broke off 5 times: the hub sent nothing for 1 s");
    for rest in [&b""[..], b"more"] {
        let case = with(Mischief::Longer(rest));
        refused(&case, "bytes that it announced");
        assert_eq!(size_of_cache(&case), 0);
    }
    let flipped = with(Mischief::Flip);
    refused(&flipped, "the contents have git id");
    refused(&with(Mischief::NoSize), "does not name the contents and their size");
    refused(&with(Mischief::EndlessList), "the list of files is longer");
    refused(&with(Mischief::Redirect("ftp://127.0.0.1".into())), "redirects to an address that is not followed");
    let circle = with(Mischief::None);
    *circle.hub.mischief.lock().unwrap() = Mischief::Redirect(circle.endpoint.clone());
    refused(&circle, "redirected too often");
    assert!(circle.hub.requests().iter().all(|request| request.ends_with("bearer hf_secret")));

    // The other hub is on another port of the same host.
    let (other, first) = (Case::new(), with(Mischief::None));
    *first.hub.mischief.lock().unwrap() = Mischief::Redirect(other.endpoint.clone());
    let run = first.pull(&[("HF_TOKEN", "hf_secret")]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let told = |hub: &Hub| hub.requests().iter().any(|request| request.contains("secret"));
    assert!(told(&first.hub) && !told(&other.hub));
}

#[test]
fn a_password_of_the_endpoint_is_used_and_never_shown() {
    let case = Case::new();
    let endpoint = case.endpoint.replace("http://", "http://me:my-secret@");
    for (repository, code) in [("school/ruler", 0), ("school/compass", 1)] {
        let run = pull(&endpoint, case.home.path(), &[], &[repository]);
        assert_eq!(run.code, code, "{}", run.stderr);
        assert!(!run.stderr.contains("my-secret") && !run.stdout.contains("my-secret"), "{}", run.stderr);
    }
    let requests = case.hub.requests();
    assert!(requests.iter().all(|request| request.ends_with("basic bwu6bxktc2vjcmv0")), "{requests:?}");
    for (name, value) in [("HF_ENDPOINT", "me:my-secret@nowhere"), ("HF_HUB_DOWNLOAD_TIMEOUT", "0")] {
        let run = pull(&endpoint, case.home.path(), &[(name, value)], &["school/ruler"]);
        assert!(run.code == 2 && run.stderr.contains(name) && !run.stderr.contains("my-secret"), "{}", run.stderr);
    }
}

#[test]
fn damage_in_the_cache_is_noticed() {
    let case = Case::new();
    assert_eq!(case.pull(&[]).code, 0);
    let score = || {
        let mut score = command(&["score", "--model", "school/ruler"]);
        score.env("HF_HOME", case.home.path());
        support::run(score, b"{\"tokens\": [1, 2]}")
    };
    assert_eq!(score().code, 0);
    let snapshot = case.repository().join("snapshots").join(COMMIT);
    for name in ["model.safetensors", "tokenizer.json"] {
        let whole = std::fs::read(snapshot.join(name)).unwrap();
        for damage in [0, 1] {
            let mut bytes = whole.clone();
            let last = bytes.len() - 1;
            if damage == 0 {
                bytes[last] ^= 1
            } else {
                bytes.truncate(last)
            }
            std::fs::write(snapshot.join(name), bytes).unwrap();
            for run in [score(), case.pull(&[("HF_HUB_OFFLINE", "1")])] {
                let told = format!("{name} is damaged");
                assert!(run.code == 1 && run.stderr.contains(&told), "{}", run.stderr);
                assert!(run.stderr.contains("hint: `ferule pull school/ruler`"), "{}", run.stderr);
            }
            let again = case.pull(&[]);
            let told = format!("{name}: the copy in the cache is damaged and is fetched again");
            assert!(again.code == 0 && again.stderr.contains(&told), "{}", again.stderr);
            assert!(std::fs::read(snapshot.join(name)).unwrap() == whole);
        }
        assert_eq!(score().code, 0);
    }
    std::fs::remove_file(std::fs::canonicalize(snapshot.join("config.json")).unwrap()).unwrap();
    assert!(score().stderr.contains("config.json is damaged"));
}

#[test]
fn refusals_say_what_to_do() {
    let case = Case::new();
    let missing = pull(&case.endpoint, case.home.path(), &[], &["school/compass"]);
    assert_eq!(missing.code, 1);
    assert!(
        missing.stderr.starts_with("error: school/compass at revision main: the hub answers 404"),
        "{}",
        missing.stderr
    );
    assert!(missing.stderr.contains("\nhint: check owner, name and revision for a slip"), "{}", missing.stderr);
    let offline = pull(&case.endpoint, case.home.path(), &[("HF_HUB_OFFLINE", "true")], &["school/compass"]);
    assert_eq!(offline.code, 1);
    assert!(offline.stderr.contains("HF_HUB_OFFLINE forbids the network\nhint: "), "{}", offline.stderr);
    let id = pull(&case.endpoint, case.home.path(), &[], &["../etc"]);
    assert_eq!(id.code, 2);
    let nobody = pull("http://127.0.0.1:1", case.home.path(), &[], &["school/ruler"]);
    assert_eq!(nobody.code, 1);
    assert!(
        nobody.stderr.contains("cannot reach http://127.0.0.1:1") && nobody.stderr.contains("hint: check the network"),
        "{}",
        nobody.stderr
    );
}
