//! The data folder: what is kept, in which order it is reviewed, which model is in service, and that no byte of what
//! was forgotten remains.

use std::fs;
use std::path::Path;

use serde_json::json;
use store::data_folder::exchanges::{Exchange, Feedback, Thumb};
use store::data_folder::forget::Forget;
use store::data_folder::found::FoundLabel;
use store::data_folder::review::{Decision, Submission};
use store::data_folder::turns::{RecordRole, TurnRecord};
use store::{DataFolder, StoreError};

fn asked(number: usize, confidence: Option<f64>) -> Exchange {
    Exchange {
        id: format!("chatcmpl-{number:04}"),
        api_key: Some("key a".into()),
        user: Some(format!("user {}", number % 2)),
        model: "m0".into(),
        messages: json!([{ "role": "user", "content": format!("question {number}") }]).to_string(),
        completion: format!("answer {number}"),
        finish: "stop".into(),
        confidence,
        ..Exchange::default()
    }
}

fn open(folder: &Path) -> DataFolder {
    DataFolder::open(&folder.join("data")).unwrap()
}

fn filled(folder: &Path, n: usize) -> DataFolder {
    let data = open(folder);
    for number in 0..n {
        assert!(data.collect(&asked(number, Some(1.0 - number as f64 / n as f64))).unwrap());
    }
    data
}

fn sign(data: &DataFolder, item: &str, decision: Decision, correction: Option<&str>) -> Result<i64, StoreError> {
    let correction = correction.map(String::from);
    data.submit("an", &Submission { item: item.into(), request: None, decision, correction, seconds: 2.5 })
}

/// Whether any file of the folder holds the text.
fn holds(folder: &Path, text: &str) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let bytes = fs::read(entry.unwrap().path()).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[test]
fn the_queue_mixes_the_least_sure_with_the_gate() {
    let folder = tempfile::tempdir().unwrap();
    let data = filled(folder.path(), 200);
    let mut disliked = Feedback { id: "chatcmpl-0000".into(), thumb: Some(Thumb::Down), ..Feedback::default() };
    let gate = data.is_of_gate(&data.item_of(&asked(0, None).messages));
    if gate {
        disliked.id = "chatcmpl-0001".into();
    }
    data.feedback(&disliked, Some("key a")).unwrap();
    let queue = data.queue("an", 1000).unwrap();
    assert_eq!(queue.len(), 200);
    let of_gate = queue.iter().filter(|item| item.gate).count();
    assert!((20..65).contains(&of_gate), "a fifth of 200 is kept for the gate, not {of_gate}");
    let training: Vec<_> = queue.iter().filter(|item| !item.gate).collect();
    assert_eq!((training[0].request.as_str(), training[0].reason), (disliked.id.as_str(), "thumb_down"));
    assert!(training[1..].windows(2).all(|pair| pair[0].confidence <= pair[1].confidence));
    assert!(queue[4].gate && !queue[3].gate, "one of the gate after every four");
    // The order of the gate's items does not depend on their content.
    assert!(queue.iter().filter(|item| item.gate).map(|item| &item.item).is_sorted());
}

#[test]
fn a_question_that_comes_twice_is_one_item() {
    let folder = tempfile::tempdir().unwrap();
    let data = filled(folder.path(), 1);
    let again = Exchange {
        id: "other".into(),
        messages: "[ {\"role\":\"user\",  \"content\":\"question 0\"} ]".into(),
        ..asked(0, None)
    };
    data.collect(&again).unwrap();
    assert_eq!((data.collected().unwrap(), data.queue("an", 9).unwrap().len()), (2, 1));
}

#[test]
fn feedback_is_for_the_key_that_asked_and_comes_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = filled(folder.path(), 1);
    let up = Feedback { id: "chatcmpl-0000".into(), thumb: Some(Thumb::Up), ..Feedback::default() };
    let refused = |feedback: &Feedback, key| data.feedback(feedback, key).unwrap_err().to_string();
    assert!(refused(&up, Some("key b")).contains("no completion"));
    assert!(refused(&up, None).contains("no completion"));
    assert!(refused(&Feedback { thumb: None, ..up.clone() }, Some("key a")).contains("says nothing"));
    data.feedback(&up, Some("key a")).unwrap();
    assert!(refused(&up, Some("key a")).contains("already"));
}

#[test]
fn a_verdict_counts_until_it_is_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let data = filled(folder.path(), 3);
    let item = data.queue("an", 1).unwrap().remove(0).item;
    assert!(sign(&data, &item, Decision::Correct, Some("  ")).unwrap_err().to_string().contains("needs a correction"));
    assert!(sign(&data, &item, Decision::Accept, Some("x")).unwrap_err().to_string().contains("takes no correction"));
    assert!(sign(&data, "nothing", Decision::Accept, None).unwrap_err().to_string().contains("no item"));
    let verdict = sign(&data, &item, Decision::Correct, Some("right")).unwrap();
    assert!(sign(&data, &item, Decision::Accept, None).unwrap_err().to_string().contains("judged by an"));
    assert_eq!(data.queue("an", 9).unwrap().len(), 2);
    assert_eq!(data.verdicts().unwrap()[0].right_answer(), Some("right"));
    data.revoke("an", verdict).unwrap();
    assert!(data.revoke("an", verdict).is_err());
    assert_eq!((data.queue("an", 9).unwrap().len(), data.verdicts().unwrap().len()), (3, 0));
    // A person who skips an item does not see it again; others do.
    sign(&data, &item, Decision::Skip, None).unwrap();
    assert_eq!((data.queue("an", 9).unwrap().len(), data.queue("bo", 9).unwrap().len()), (2, 3));
}

#[test]
fn verdicts_that_come_together_are_signed_all_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let data = filled(folder.path(), 3);
    let queue = data.queue("an", 9).unwrap();
    let accept = |item: &str, request: &str| Submission {
        item: item.into(),
        request: Some(request.into()),
        decision: Decision::Accept,
        correction: None,
        seconds: 0.0,
    };
    let mut all: Vec<_> = queue.iter().map(|item| accept(&item.item, &item.request)).collect();
    all[2].request = Some("chatcmpl-other".into());
    let (at, error) = data.submit_all("an", &all).unwrap_err();
    assert!(at == 2 && error.to_string().contains("another one now"), "{error}");
    assert_eq!((data.verdicts().unwrap().len(), data.audit().unwrap().len()), (0, 0));
    all[2].request = Some(queue[2].request.clone());
    assert_eq!(data.submit_all("an", &all).unwrap(), [1, 2, 3]);
    assert_eq!(data.submit_all("bo", &all).unwrap_err().0, 0);
    assert_eq!(data.verify_audit().unwrap().lines, 3);
}

#[test]
fn rolling_back_twice_goes_two_models_back() {
    let folder = tempfile::tempdir().unwrap();
    let data = open(folder.path());
    for id in ["aa", "bb", "cc"] {
        data.note_model(id, id, None).unwrap();
        data.promote("an", id, "by hand").unwrap();
    }
    let serving = || data.in_service().unwrap().unwrap().id;
    assert_eq!(serving(), "cc");
    assert!(data.promote("an", "cc", "by hand").is_err() && data.promote("an", "dd", "by hand").is_err());
    assert_eq!((data.roll_back("an").unwrap(), serving()), ("bb".into(), "bb".into()));
    data.promote("an", "cc", "again").unwrap();
    assert_eq!(data.roll_back("an").unwrap(), "bb");
    assert_eq!(data.roll_back("an").unwrap(), "aa");
    assert!(data.roll_back("an").is_err());
    assert_eq!(serving(), "aa");
}

#[test]
fn a_turn_is_promoted_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let data = filled(folder.path(), 2);
    let item = data.queue("an", 1).unwrap().remove(0).item;
    let verdict = sign(&data, &item, Decision::Accept, None).unwrap();
    data.note_model("m0", "models/m0", None).unwrap();
    data.promote("an", "m0", "by hand").unwrap();
    let records = [TurnRecord { item, role: RecordRole::Label, verdict: Some(verdict) }];
    let turn = data.begin_turn("an", 7, "recipe", "m0", &records).unwrap();
    assert!(data.begin_turn("an", 7, "recipe", "m0", &records).is_err(), "one at a time");
    assert_eq!(data.open_turn().unwrap().unwrap().look, 1);
    data.decide_turn("an", turn, "m1", "turns/0001", &json!({ "difference": 0.1 }), true).unwrap();
    assert!(data.decide_turn("an", turn, "m1", "turns/0001", &json!({}), true).is_err());
    assert_eq!(data.in_service().unwrap().unwrap().id, "m1");
    assert_eq!(data.turn_records(turn).unwrap(), records);
    let second = data.begin_turn("an", 7, "recipe", "m1", &[]).unwrap();
    data.decide_turn("an", second, "m2", "turns/0002", &json!({}), false).unwrap();
    assert_eq!(data.in_service().unwrap().unwrap().id, "m1");
    assert_eq!(data.turns().unwrap()[1].look, 2);
}

#[test]
fn what_is_forgotten_is_in_no_byte_of_the_folder_and_does_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let data = filled(folder.path(), 40);
    let secret = Exchange {
        id: "chatcmpl-secret".into(),
        user: Some("mallory".into()),
        messages: json!([{ "role": "user", "content": "my secret is Xylophon" }]).to_string(),
        completion: "Xylophon it is".into(),
        ..asked(0, None)
    };
    data.collect(&secret).unwrap();
    let item = data.item_of(&secret.messages);
    sign(&data, &item, Decision::Correct, Some("never say Xylophon")).unwrap();
    data.note_model("m0", "m0", None).unwrap();
    data.promote("an", "m0", "by hand").unwrap();
    for (incumbent, candidate) in [("m0", "m1"), ("m1", "m2"), ("m0", "other")] {
        let role = if candidate == "other" { RecordRole::Gate } else { RecordRole::Label };
        let record = TurnRecord { item: item.clone(), role, verdict: Some(1) };
        let records = if candidate == "m2" { vec![] } else { vec![record] };
        let turn = data.begin_turn("an", 7, "recipe", incumbent, &records).unwrap();
        data.decide_turn("an", turn, candidate, "path", &json!({}), candidate == "m2").unwrap();
    }
    let place = data.path().to_path_buf();
    assert!(holds(&place, "Xylophon") && holds(&place, "mallory"));
    let forgotten = data.forget("an", &Forget::Record("chatcmpl-secret".into())).unwrap();
    assert_eq!((forgotten.requests, forgotten.verdicts, forgotten.turns), (1, 1, vec![1, 3]));
    assert_eq!(
        forgotten.models,
        ["m1", "m2"],
        "a model passes on what it learned; one that was only judged learned nothing"
    );
    assert!(data.in_service().unwrap().unwrap().flag.is_some());
    assert!(!holds(&place, "Xylophon") && !holds(&place, "mallory"));
    assert!(!data.collect(&secret).unwrap(), "it is recognised when it comes again");
    assert!(data.collect(&asked(100, None)).unwrap());
    assert!(data.forget("an", &Forget::Record("chatcmpl-secret".into())).is_err());

    // Forgetting a person erases everything that the person asked. Requests of others with the same messages stay.
    let same = Exchange { id: "chatcmpl-same".into(), user: Some("user 1".into()), ..asked(0, None) };
    data.collect(&same).unwrap();
    let before = data.collected().unwrap();
    let gone = data.forget("an", &Forget::User("user 0".into())).unwrap().requests;
    assert_eq!(data.collected().unwrap(), before - gone);
    assert!(data.exchange("chatcmpl-same").unwrap().is_some());
    let waiting = data.queue("an", 1000).unwrap();
    assert!(waiting.iter().any(|item| item.request == "chatcmpl-same") && !holds(&place, "user 0"));
    assert!(!data.collect(&asked(102, None)).unwrap(), "user 0 is never collected again");
    data.verify_audit().unwrap();
}

#[test]
fn found_labels_are_kept_once_and_forgotten_with_their_document() {
    let folder = tempfile::tempdir().unwrap();
    let data = open(folder.path());
    let label =
        FoundLabel { item: "i".into(), document: Some("d".into()), prompt: "facts".into(), answer: "theft".into() };
    let documents = [("d".to_string(), "digest".to_string())];
    assert_eq!(data.add_found("file", &documents, std::slice::from_ref(&label)).unwrap(), 1);
    assert_eq!(data.add_found("file", &documents, std::slice::from_ref(&label)).unwrap(), 0);
    data.forget("an", &Forget::Record("d".into())).unwrap();
    assert!(data.found_at(i64::MAX).unwrap().is_empty());
    assert_eq!(data.add_found("file", &documents, &[label]).unwrap(), 0, "a tombstone keeps it out");
}

#[test]
fn a_found_label_of_the_gate_is_never_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = open(folder.path());
    let label = |number: usize| {
        let item = data.item_of(&asked(number, None).messages);
        FoundLabel { item, document: None, prompt: format!("question {number}"), answer: "a".into() }
    };
    let labels: Vec<FoundLabel> = (0..200).map(label).collect();
    assert_eq!(data.add_found("file", &[], &labels).unwrap(), 200);
    let found = data.found_at(i64::MAX).unwrap();
    assert!((130..185).contains(&found.len()), "four fifths of 200, not {}", found.len());
    assert!(found.iter().all(|label| !data.is_of_gate(&label.item)));
    // A reviewer is told of it after the verdict, also where the item is of the gate.
    data.collect(&asked(0, None)).unwrap();
    let behind = data.behind(&labels[0].item).unwrap().unwrap();
    assert_eq!(behind.found_label.as_deref(), Some("a"));
}

/// Cuts the last of three lines, and what SQLite knows of it.
const CUT: &str = "DELETE FROM audit WHERE sequence = 3; UPDATE sqlite_sequence SET seq = 2 WHERE name = 'audit'";

#[test]
fn the_audit_tells_every_change_and_shows_a_cut() {
    let folder = tempfile::tempdir().unwrap();
    let data = open(folder.path());
    data.add_person("an", "hash").unwrap();
    data.add_person("bo", "hash").unwrap();
    data.remove_person("bo").unwrap();
    assert_eq!(data.people().unwrap().len(), 1);
    assert!(data.add_person("operator", "hash").is_err() && data.add_person("a b", "hash").is_err());
    assert_eq!(data.verify_audit().unwrap().lines, 3);
    drop(data);
    let path = folder.path().join("data/ledger.sqlite");
    for (damage, found) in [
        ("UPDATE audit SET person = 'x' WHERE sequence = 2", "line 2 of the audit was changed"),
        ("DELETE FROM audit WHERE sequence = 2", "line 2 of the audit is missing"),
        ("DELETE FROM audit WHERE sequence = 3", "ends at line 2, and 3 were written"),
        (CUT, "ends at line 2, and 3 were written"),
        ("UPDATE audit_head SET sequence = 2", "the head of the audit was changed"),
        ("DELETE FROM audit_head", "the head of the audit was changed"),
    ] {
        let copy = tempfile::tempdir().unwrap();
        fs::create_dir(copy.path().join("data")).unwrap();
        for file in ["ledger.sqlite", "key"] {
            fs::copy(folder.path().join("data").join(file), copy.path().join("data").join(file)).unwrap();
        }
        let connection = rusqlite::Connection::open(copy.path().join("data/ledger.sqlite")).unwrap();
        let refused = connection.execute_batch(damage).is_err();
        assert!(refused || damage.contains("audit_head"), "the ledger itself refuses it");
        connection.execute_batch("DROP TRIGGER audit_is_not_changed; DROP TRIGGER audit_is_not_cut;").unwrap();
        connection.execute_batch(damage).unwrap();
        drop(connection);
        let data = open(copy.path());
        let error = data.verify_audit().unwrap_err().to_string();
        assert!(error.contains(found), "{error}");
        // What is written later does not cover it up.
        data.add_person("cy", "hash").unwrap();
        data.add_person("di", "hash").unwrap();
        assert!(data.verify_audit().is_err(), "{damage}");
    }
    assert!(path.exists());
}

#[test]
fn one_server_holds_it_and_files_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let data = filled(folder.path(), 3);
    let (second, held) = (open(folder.path()), data.hold_for_server().unwrap());
    assert!(second.is_served());
    assert!(matches!(second.hold_for_server().unwrap_err(), StoreError::FolderLocked { .. }));
    drop(held);
    assert!(!second.is_served());
    second.collect(&asked(3, None)).unwrap();
    assert_eq!(DataFolder::open_to_read(data.path()).unwrap().collected().unwrap(), 4);
    let absent = DataFolder::open_to_read(&folder.path().join("nothing")).unwrap_err().to_string();
    assert!(absent.contains("no data folder"), "{absent}");
    #[cfg(unix)]
    for entry in fs::read_dir(data.path()).unwrap() {
        use std::os::unix::fs::PermissionsExt;
        let (entry, name) = {
            let e = entry.unwrap();
            (e.metadata().unwrap(), e.file_name())
        };
        assert_eq!(entry.permissions().mode() & 0o077, 0, "{name:?} can be read by others");
    }
}

/// A folder of the first format is brought to the present one, and what a killed `forget` left to erase is erased by whoever opens it next.
#[test]
fn an_older_folder_is_migrated_and_an_erasure_finished() {
    let folder = tempfile::tempdir().unwrap();
    drop(filled(folder.path(), 3));
    let ledger = folder.path().join("data/ledger.sqlite");
    let due =
        |c: &rusqlite::Connection| c.query_row("SELECT count(*) FROM erasures_due", [], |row| row.get::<_, i64>(0));
    let connection = rusqlite::Connection::open(&ledger).unwrap();
    connection.execute_batch("DROP TABLE erasures_due; PRAGMA user_version = 1;").unwrap();
    drop(connection);
    drop(open(folder.path()));
    let connection = rusqlite::Connection::open(&ledger).unwrap();
    connection.execute("INSERT INTO erasures_due (since_ms) VALUES (1)", []).unwrap();
    assert_eq!(due(&connection).unwrap(), 1);
    let _held_open = open(folder.path());
    assert_eq!(due(&connection).unwrap(), 0);
    let log = folder.path().join("data/ledger.sqlite-wal");
    assert!(fs::metadata(log).unwrap().len() < 10_000, "only the row's own deletion is in the log");
}
