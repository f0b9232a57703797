//! `ferule person` and `ferule review`: tokens, verdicts from the command line, and tables that people fill in; and who may use the page.
//! The page itself is tried in a browser by `browser/review.py`.

mod support;

use std::fs;
use std::path::Path;

use rust_xlsxwriter::Workbook;
use serde_json::{Value, json};
use store::DataFolder;
use store::data_folder::exchanges::Exchange;
use support::http::Server;
use support::{Run, command, run};
use tasks::data::table;

/// Answers that a table could spoil: a formula, a number below zero, controls, several lines, marks of direction.
const ANSWERS: [&str; 8] =
    ["=1+1", "-3", "a\u{7}b _x0041_", "one\r\n\"two\", three", "\u{202e}000,1 yuan", "'=x", "36 months", "@home"];

struct Folder {
    folder: tempfile::TempDir,
    token: String,
}

impl Folder {
    /// A data folder in which the answers wait, and a person.
    fn new() -> Folder {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::open(&folder.path().join("ferule-data")).unwrap();
        for (number, answer) in ANSWERS.iter().enumerate() {
            let exchange = Exchange {
                id: format!("chatcmpl-{number}"),
                model: "secret-model".into(),
                messages: json!([{ "role": "system", "content": "be short" }, { "role": "user", "content": format!("+{number}?") }])
                    .to_string(),
                completion: answer.to_string(),
                confidence: Some(0.4321),
                ..Exchange::default()
            };
            assert!(data.collect(&exchange).unwrap());
        }
        let mut made = Folder { folder, token: String::new() };
        made.token = made.person("an");
        made
    }

    fn person(&self, name: &str) -> String {
        let made = self.ferule(&["person", "add", name]);
        assert_eq!(made.code, 0, "{}", made.stderr);
        made.stdout.trim().to_string()
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn ferule(&self, arguments: &[&str]) -> Run {
        self.ferule_as(&self.token, arguments)
    }

    fn ferule_as(&self, token: &str, arguments: &[&str]) -> Run {
        let mut command = command(arguments);
        command.env_remove("FERULE_TOKEN").current_dir(self.path());
        if !token.is_empty() {
            command.env("FERULE_TOKEN", token);
        }
        run(command, b"")
    }

    fn queue(&self) -> Vec<Value> {
        self.ferule(&["review", "queue", "--json"]).json()
    }

    /// The verdicts that count, as the operator reads them while nothing is served.
    fn signed(&self) -> Vec<Value> {
        self.signed_as("")
    }

    fn signed_as(&self, token: &str) -> Vec<Value> {
        let name = "signed.jsonl";
        let _ = fs::remove_file(self.path().join(name));
        let exported = self.ferule_as(token, &["review", "export", name, "--signed"]);
        assert_eq!(exported.code, 0, "{}", exported.stderr);
        let text = fs::read_to_string(self.path().join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Exports what waits, and reads the table back.
    fn export(&self, name: &str) -> Vec<Vec<(String, String)>> {
        let exported = self.ferule(&["review", "export", name]);
        assert_eq!((exported.code, exported.stdout.as_str()), (0, ""), "{}", exported.stderr);
        let columns = ["item", "request", "reason", "question", "answer", "decision", "correction", "messages"];
        let text = |value: Option<&Value>| match value {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        };
        let rows = table::read(&self.path().join(name)).unwrap().rows;
        rows.iter().map(|row| columns.iter().map(|name| (name.to_string(), text(row.get(*name)))).collect()).collect()
    }

    /// Fills in decisions by the answer, and writes the table as `name`, in the format of its ending.
    fn fill_in(
        &self,
        mut rows: Vec<Vec<(String, String)>>,
        name: &str,
        edit: impl Fn(&str, usize) -> Option<(&'static str, &'static str)>,
    ) {
        for (place, row) in rows.iter_mut().enumerate() {
            if let Some((decision, correction)) = edit(&row[4].1.clone(), place) {
                (row[5].1, row[6].1) = (decision.into(), correction.into());
            }
        }
        self.write(&rows, name);
    }

    fn write(&self, rows: &[Vec<(String, String)>], name: &str) {
        let path = self.path().join(name);
        match name.rsplit('.').next().unwrap() {
            "xlsx" => {
                let mut book = Workbook::new();
                let sheet = book.add_worksheet();
                for (row, cells) in (1..).zip(rows) {
                    for (column, (name, text)) in (0..).zip(cells) {
                        sheet.write_string(0, column, name).unwrap();
                        sheet.write_string(row, column, text).unwrap();
                    }
                }
                book.save(path).unwrap();
            }
            "csv" => {
                let mut writer = csv::Writer::from_path(path).unwrap();
                writer.write_record(rows[0].iter().map(|(name, _)| name)).unwrap();
                rows.iter().for_each(|row| writer.write_record(row.iter().map(|(_, text)| text)).unwrap());
                writer.flush().unwrap();
            }
            _ => {
                let line = |row: &Vec<(String, String)>| {
                    let object = row.iter().map(|(name, text)| (name.clone(), Value::from(text.as_str()))).collect();
                    format!("{}\n", Value::Object(object))
                };
                fs::write(path, rows.iter().map(line).collect::<String>()).unwrap();
            }
        }
    }
}

#[test]
fn a_token_is_shown_once_and_void_when_it_is_replaced_or_taken_away() {
    let folder = Folder::new();
    assert!(folder.token.starts_with("ferule_") && folder.token.len() == 7 + 64, "{}", folder.token);
    let ledger = fs::read(folder.path().join("ferule-data/ledger.sqlite")).unwrap();
    let log = fs::read(folder.path().join("ferule-data/ledger.sqlite-wal")).unwrap_or_default();
    let secret = &folder.token.as_bytes()[7..];
    assert!(![ledger, log].concat().windows(64).any(|window| window == secret), "the ledger holds a hash alone");
    assert_eq!(folder.ferule(&["person", "list"]).stdout, "an\n");
    let item = folder.queue()[0]["item"].as_str().unwrap().to_string();
    let submit = ["review", "submit", &item, "accept"];
    let refused = |token: &str, part: &str| {
        let run = folder.ferule_as(token, &submit);
        assert!(run.code != 0 && run.stdout.is_empty() && run.stderr.contains(part), "{}", run.stderr);
        assert!(run.stderr.contains("hint: "), "{}", run.stderr);
        assert!(token.is_empty() || !run.stderr.contains(token), "a token is not repeated");
    };
    refused("", "needs a person who signs it");
    refused("no token at all", "nobody's token");
    refused(&format!("ferule_{}", "0".repeat(64)), "nobody's token");
    let again = folder.person("an");
    refused(&folder.token, "nobody's token");
    assert_eq!(folder.ferule_as(&again, &submit).code, 0);
    assert_eq!(folder.ferule(&["person", "remove", "an"]).code, 0);
    refused(&again, "nobody's token");
    assert!(folder.ferule(&["person", "remove", "an"]).stderr.contains("nobody called an"));
    assert!(folder.ferule(&["person", "add", "a b"]).stderr.contains("cannot name a person"));
    assert_eq!(folder.signed()[0]["reviewer"], "an", "what a person signed stays");
}

#[test]
fn a_verdict_is_blind_counts_and_can_be_taken_back() {
    let folder = Folder::new();
    let queue = folder.ferule(&["review", "queue"]);
    assert_eq!(queue.stdout.lines().count(), ANSWERS.len());
    assert!(queue.stdout.contains("<U+202E>000,1") && !queue.stdout.contains('\u{202e}'), "{}", queue.stdout);
    let items = folder.queue();
    let shown = format!("{}{items:?}", queue.stdout);
    assert!(!shown.contains("secret-model") && !shown.contains("0.4321"), "{shown}");
    assert_eq!(items[0]["messages"][0]["content"], "be short");
    assert!(items.iter().all(|item| item["question"].as_str().unwrap().starts_with('+')));
    assert_eq!(folder.ferule(&["review", "queue", "--limit", "3"]).stdout.lines().count(), 3);

    let item = items[0]["item"].as_str().unwrap();
    let submit = |rest: &[&str]| folder.ferule(&[&["review", "submit", item], rest].concat());
    assert_eq!(submit(&["perhaps"]).code, 2);
    assert!(submit(&["correct"]).stderr.contains("needs a correction"));
    assert!(submit(&["accept", "--correction", "x"]).stderr.contains("takes no correction"));
    assert!(submit(&["accept", "--seconds", "nan"]).stderr.contains("seconds"));
    let told = submit(&["correct", "--correction", "12 months", "--seconds", "2.5", "--json"]).json().remove(0);
    assert_eq!((&told["verdict"], &told["behind"]["model"]), (&json!(1), &json!("secret-model")));
    assert!(submit(&["accept"]).stderr.contains("judged by an already"));
    assert!(folder.ferule(&["review", "submit", "nothing", "accept"]).stderr.contains("no item nothing"));
    let signed = folder.signed();
    assert_eq!((&signed[0]["correction"], &signed[0]["seconds"]), (&json!("12 months"), &json!(2.5)));
    assert_eq!(folder.ferule(&["review", "revoke", "1"]).code, 0);
    assert!(folder.ferule(&["review", "revoke", "1"]).stderr.contains("no verdict 1 counts"));
    assert_eq!((folder.signed().len(), folder.queue().len()), (0, ANSWERS.len()));
    let elsewhere = folder.ferule(&["review", "submit", item, "accept", "--data", "elsewhere"]);
    assert!(elsewhere.code == 1 && elsewhere.stderr.contains("no data folder"), "{}", elsewhere.stderr);
    assert!(!folder.path().join("elsewhere").exists());
}

#[test]
fn a_table_comes_back_filled_in() {
    for ending in ["xlsx", "csv", "jsonl"] {
        let folder = Folder::new();
        let exported = format!("cases.{ending}");
        let rows = folder.export(&exported);
        assert_eq!(rows.len(), ANSWERS.len(), "{ending}");
        let text = format!("{rows:?}");
        assert!(!text.contains("secret-model") && !text.contains("0.4321"), "{text}");
        if ending == "csv" {
            let formula = |cell: &(String, String)| cell.1.starts_with(['=', '+', '-', '@']);
            assert!(!rows.iter().flatten().any(formula), "{rows:?}");
        }
        assert!(folder.ferule(&["review", "export", &exported]).stderr.contains("exists already"));
        // An empty import signs nothing.
        let nothing = folder.ferule(&["review", "import", &exported]);
        assert_eq!(nothing.stdout, "signed 0 verdicts; 8 rows have no decision\n", "{}", nothing.stderr);
        let filled = format!("filled.{ending}");
        folder.fill_in(rows, &filled, |answer, _| {
            let guarded = answer.trim_start_matches('\'');
            Some(match guarded {
                "=1+1" => ("Accept", ""),
                "-3" => ("correct", "=2"),
                "@home" => return None,
                "36 months" => ("更正", "37"),
                "=x" => ("skip", ""),
                _ => ("reject", ""),
            })
        });
        let imported = folder.ferule(&["review", "import", &filled]);
        assert_eq!(imported.stdout, "signed 7 verdicts; 1 rows have no decision\n", "{ending}: {}", imported.stderr);
        let signed = folder.signed();
        let of = |answer: &str| {
            let found =
                signed.iter().find(|row| row["answer"] == answer).unwrap_or_else(|| panic!("{ending}: {answer}"));
            (found["decision"].as_str().unwrap().to_string(), found["correction"].as_str().unwrap_or("").to_string())
        };
        assert_eq!(signed.len(), 6, "what is skipped is no verdict");
        assert_eq!(of("=1+1"), ("accept".into(), "".into()));
        assert_eq!(of("-3"), ("correct".into(), "=2".into()));
        assert_eq!(of("36 months"), ("correct".into(), "37".into()));
        assert_eq!(of(ANSWERS[2]), ("reject".into(), "".into()));
        assert_eq!(folder.queue().len(), 1, "who skips does not see the item again");
        let again = folder.ferule(&["review", "import", &filled]);
        assert!(again.code == 2 && again.stderr.contains("judged by an already"), "{}", again.stderr);
        assert_eq!(folder.ferule(&["audit", "verify"]).code, 0);
    }
}

#[test]
fn a_table_with_a_fault_signs_nothing() {
    let folder = Folder::new();
    let rows = folder.export("cases.xlsx");
    let faulty = |edits: &[(usize, &str)]| {
        // Every row has a good verdict but the fifth, which is row 6 in the sheet.
        let mut rows = rows.clone();
        rows.iter_mut().for_each(|row| row[5].1 = "accept".into());
        edits.iter().for_each(|(column, text)| rows[4][*column].1 = text.to_string());
        folder.write(&rows, "faulty.xlsx");
        let run = folder.ferule(&["review", "import", "faulty.xlsx"]);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{}", run.stderr);
        assert!(run.stderr.contains("hint: ") && folder.signed().is_empty(), "{}", run.stderr);
        run.stderr
    };
    let [item, request, answer, decision, correction] = [0, 1, 4, 5, 6];
    for (part, edits) in [
        ("decision: unknown decision \"maybe\"", &[(decision, "maybe")][..]),
        ("correction: it is empty", &[(decision, "correct")]),
        ("correction: the decision \"accept\" takes no correction", &[(correction, "x")]),
        ("decision: it is empty", &[(decision, ""), (correction, "x")]),
        ("item: no item ab", &[(item, "ab")]),
        ("item: it is empty", &[(item, "")]),
        ("answer: it differs from the answer that the model gave", &[(answer, "what is right")]),
        ("item: the answer to", &[(request, "chatcmpl-other")]),
    ] {
        let told = faulty(edits);
        assert!(told.contains(&format!("faulty.xlsx:6: {part}")), "{part}: {told}");
    }
    let twice = faulty(&[(item, &rows[0][item].1)]);
    assert!(twice.contains("faulty.xlsx:6: item: ") && twice.contains("is also in row 2"), "{twice}");
    let told = |name: &str| folder.ferule(&["review", "import", name]).stderr;
    fs::write(folder.path().join("other.csv"), "prompt,answer\n1,2\n").unwrap();
    assert!(told("other.csv").contains("other.csv: item: the table has no such column"), "{}", told("other.csv"));
    assert!(told("absent.csv").contains("absent.csv"));
    assert!(folder.ferule(&["review", "export", "cases.txt"]).stderr.contains("end the name in .xlsx, .csv or .jsonl"));
    let item = folder.queue()[0]["item"].as_str().unwrap().to_string();
    folder.ferule(&["review", "submit", &item, "reject"]);
    folder.signed();
    assert!(told("signed.jsonl").contains("verdict: the table lists verdicts that are already signed"));
}

#[test]
fn only_the_page_of_a_living_session_changes_anything() {
    let folder = Folder::new();
    let data = folder.path().join("ferule-data").to_string_lossy().into_owned();
    let upstream = ["--upstream", "http://127.0.0.1:9/v1", "--allow-egress", "127.0.0.1"];
    let server = Server::start(&[&upstream[..], &["--collect", "--data", &data]].concat());
    let post = |path: &str, headers: &[&str], body: Value| server.send("POST", path, headers, body.to_string());
    let login = |token: &str, headers: &[&str]| post("/review/login", headers, json!({ "token": token }));
    assert_eq!(login(&folder.token, &["Sec-Fetch-Site: cross-site"]).status, 403);
    assert_eq!(login(&folder.token, &["Origin: http://evil.example"]).status, 403);
    let origin = format!("Origin: http://{}", server.address);
    let signed_in = login(&folder.token, &[&origin]);
    assert_eq!(signed_in.status, 200, "{}", signed_in.body);
    let cookie = signed_in.header("set-cookie").unwrap().to_string();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = format!("Cookie: {}", cookie.split(';').next().unwrap());
    let csrf = format!("x-ferule-csrf: {}", signed_in.json()["csrf"].as_str().unwrap());
    let policy = signed_in.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"), "{policy}");

    let next = server.send("GET", "/review/next", &[&cookie], "");
    assert!(
        next.status == 200 && !next.body.contains("secret-model") && !next.body.contains("0.4321"),
        "{}",
        next.body
    );
    let item = next.json()["items"][0].clone();
    let verdict = json!({ "item": item["item"], "request": item["request"], "decision": "accept", "seconds": 1.0 });
    for (headers, what) in [
        (&[][..], "no session"),
        (&[cookie.as_str()], "no second secret"),
        (&[cookie.as_str(), "x-ferule-csrf: 00"], "a wrong one"),
        (&[csrf.as_str()], "no cookie"),
        (&[cookie.as_str(), csrf.as_str(), "Sec-Fetch-Site: same-site"], "a page elsewhere"),
    ] {
        assert_eq!(post("/review/verdict", headers, verdict.clone()).status, 403, "{what}");
    }
    assert!(folder.signed_as(&folder.token).is_empty());
    let reads = |command: &[&str]| folder.ferule_as("", &[&["review"], command].concat()).stderr;
    assert!(
        reads(&["queue"]).contains("FERULE_TOKEN") && reads(&["export", "x.csv", "--signed"]).contains("FERULE_TOKEN")
    );
    let of_another = json!({ "item": item["item"], "request": "chatcmpl-other", "decision": "accept" });
    assert_eq!(post("/review/verdict", &[&cookie, &csrf], of_another).status, 409);
    assert_eq!(post("/review/verdict", &[&cookie, &csrf], verdict).json()["behind"]["model"], "secret-model");

    // A token that is replaced ends its sessions.
    let token = folder.person("an");
    assert_eq!(server.send("GET", "/review/next", &[&cookie], "").status, 403);
    // Whoever guesses waits, and is told how long.
    let guesses: Vec<u16> = (0..6).map(|_| login("ferule_guess", &[]).status).collect();
    assert_eq!(guesses, [403, 403, 403, 403, 403, 429]);
    let waits = login(&token, &[]);
    assert!(waits.status == 429 && waits.header("retry-after").is_some(), "{}", waits.head);
}

#[test]
fn a_damaged_data_folder_is_named_with_its_mend() {
    let folder = Folder::new();
    let data = folder.path().join("ferule-data");
    let (ledger, key) = (data.join("ledger.sqlite"), data.join("key"));
    let (whole, secret) = (fs::read(&ledger).unwrap(), fs::read(&key).unwrap());
    let told = |what: &str, part: &str| {
        for command in [&["audit", "verify"][..], &["review", "queue"], &["person", "list"]] {
            let run = folder.ferule(command);
            assert!(
                run.code == 1 && run.stderr.starts_with("error: ") && run.stderr.contains(part),
                "{what}: {}",
                run.stderr
            );
            assert!(run.stderr.contains("\nhint: ") && !run.stderr.contains("Error code"), "{what}: {}", run.stderr);
        }
    };
    fs::write(&ledger, "no database at all, and long enough to be looked at: ".repeat(40)).unwrap();
    told("garbage", "ledger.sqlite: it is no SQLite file");
    fs::write(&ledger, "").unwrap();
    told("empty", "ledger.sqlite");
    fs::write(&ledger, &whole).unwrap();
    fs::remove_file(&key).unwrap();
    told("no key", "key is damaged");
    fs::write(&key, "zz").unwrap();
    told("a wrong key", "key is damaged");
    fs::write(&key, secret).unwrap();
    assert_eq!(folder.ferule(&["audit", "verify"]).code, 0);
}
