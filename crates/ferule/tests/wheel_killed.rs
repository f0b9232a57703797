//! Serving, review, turn, promotion and forgetting, each killed with SIGKILL again and again: nothing that was acknowledged is lost,
//! nothing is half promoted, and the model in service comes back.
//!
//! `FERULE_KILLS` says how often each is killed: 3 unless told otherwise, 20 for the figures of `bench/RESULTS.md`.

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::http::Server;
use support::wheel::{Wheel, holding, right, serves, verdict};

fn kills() -> usize {
    std::env::var("FERULE_KILLS").map_or(3, |kills| kills.parse().expect("a number"))
}

/// Moments spread over a duration, the same in every run: the golden ratio's multiples.
fn moment(n: usize, whole: Duration) -> Duration {
    whole.mul_f64((n as f64 * 0.618_034).fract())
}

/// Starts a command and kills it after a while; whether it was still alive.
fn killed(mut command: Command, after: Duration) -> bool {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    std::thread::sleep(after);
    let alive = child.try_wait().expect("a child").is_none();
    child.kill().expect("a child");
    child.wait().expect("a child");
    alive
}

/// Runs `work` with what it acknowledges beside a server that is killed after a while.
fn until_killed<T: Send>(server: Server, after: Duration, work: impl FnOnce(&Server, &mut Vec<T>) + Send) -> Vec<T> {
    std::thread::scope(|scope| {
        let server = &server;
        let worker = scope.spawn(move || {
            let mut acknowledged = Vec::new();
            work(server, &mut acknowledged);
            acknowledged
        });
        std::thread::sleep(after);
        server.signal("KILL");
        worker.join().expect("the client ends with the server")
    })
}

fn post(server: &Server, path: &str, headers: &[&str], body: &Value) -> Option<(u16, Value)> {
    let answer = server.try_send("POST", path, headers, body.to_string())?;
    let body = serde_json::from_str(&answer.body).ok()?;
    Some((answer.status, body))
}

#[test]
fn what_was_acknowledged_outlives_a_kill() {
    let wheel = Wheel::new();
    let before = {
        let server = wheel.serve();
        server.ask("red 1", "anna");
        wheel.in_service()
    };

    // Serving: every answer can be told what was right, and every feedback that was acknowledged is there.
    let (mut answers, mut feedback) = (Vec::new(), BTreeSet::new());
    for kill in 0..kills() {
        let after = moment(kill, Duration::from_millis(600));
        let told = until_killed(wheel.serve(), after, |server, told: &mut Vec<(Value, bool)>| {
            for n in 0.. {
                let question = format!("{} {kill} {n}", ["red", "green"][n % 2]);
                let body =
                    json!({ "messages": [{ "role": "user", "content": question }], "temperature": 0, "max_tokens": 6 });
                let Some((200, answer)) = post(server, "/v1/chat/completions", &[], &body) else { return };
                told.push((answer["id"].clone(), false));
                let thumb = json!({ "id": answer["id"], "thumb": "up" });
                let Some((200, _)) = post(server, "/v1/feedback", &[], &thumb) else { return };
                told.last_mut().expect("just pushed").1 = true;
            }
        });
        feedback.extend(told.iter().filter(|(_, told)| *told).map(|(id, _)| id.to_string()));
        answers.extend(told.into_iter().map(|(id, _)| id));
    }
    assert!(feedback.len() > kills(), "only {} were acknowledged", feedback.len());
    let server = wheel.serve();
    for id in &answers {
        let (status, body) =
            post(&server, "/v1/feedback", &[], &json!({ "id": id, "thumb": "up" })).expect("an answer");
        let acknowledged = feedback.contains(&id.to_string());
        assert!(
            status == 409 || (status == 200 && !acknowledged),
            "{id}, acknowledged {acknowledged}: {status} {body}"
        );
    }
    drop(server);
    assert_eq!(wheel.in_service(), before);

    // Review: a verdict that was acknowledged is never asked for again.
    let mut verdicts = BTreeSet::new();
    for kill in 0..kills() {
        let after = moment(kill, Duration::from_millis(600));
        let server = wheel.serve();
        let [cookie, csrf] = wheel.sign_in(&server);
        let given = until_killed(server, after, |server, given| {
            loop {
                let Some(next) = server.try_send("GET", "/review/next", &[&cookie], "") else { return };
                let Ok(next) = serde_json::from_str::<Value>(&next.body) else { return };
                let Some(item) = next["items"].get(0) else { return };
                let body = verdict(item, |question, _| right(question).into());
                let Some((200, _)) = post(server, "/review/verdict", &[&cookie, &csrf], &body) else { return };
                given.push(item["item"].to_string());
            }
        });
        for item in given {
            assert!(verdicts.insert(item.clone()), "{item} was judged, and asked for again");
        }
    }
    assert!(verdicts.len() >= kills(), "only {} verdicts", verdicts.len());
    let kept = wheel.status()["verdicts"].as_u64().expect("a count") as usize;
    assert!(
        (verdicts.len()..=verdicts.len() + kills()).contains(&kept),
        "{kept} kept, {} acknowledged",
        verdicts.len()
    );
    assert_eq!(wheel.in_service(), before);
    whole_audit(&wheel);
}

#[test]
fn nothing_is_half_turned_half_promoted_or_half_forgotten() {
    let wheel = Wheel::new();
    let server = wheel.serve();
    for n in 0..150 {
        server.ask(&format!("{} {n}", ["red", "green"][n % 2]), "anna");
    }
    for n in 0..kills() {
        server.ask(&format!("blue qz{n:03}vx"), &format!("mallory-{n:03}"));
    }
    wheel.review(&server, |question, _| right(question).into());
    drop(server);
    let first = wheel.in_service();

    // Turn: what is killed goes on, and ends as one that was left in peace.
    let peace = wheel.twin();
    let began = Instant::now();
    let expected = peace.turn();
    let whole = began.elapsed();
    assert_eq!(expected["decision"], "promoted", "{expected}");
    let mut met = 0;
    for kill in 0..kills() {
        // Up to the whole at first, then less: a turn that is done would leave nothing to kill.
        let after = moment(kill + 1, whole / (kill as u32 / 4 + 1));
        met += usize::from(killed(wheel.command(&["flywheel", "turn", "turn.toml", "--quiet"]), after));
        let now = wheel.in_service();
        assert!(now == first || now == expected["candidate"].as_str().unwrap(), "{now}");
        if now != first {
            break;
        }
    }
    assert!(met > 0, "no kill met a turn at work");
    if wheel.in_service() == first {
        let turn = wheel.turn();
        assert_eq!((&turn["candidate"], &turn["decision"]), (&expected["candidate"], &expected["decision"]));
    }
    let second = wheel.in_service();
    assert_eq!(second, expected["candidate"].as_str().unwrap());
    assert_eq!(wheel.status()["turns"].as_array().map(Vec::len), Some(1), "a killed turn is not a look");

    // Promotion: one model or the other, and it answers.
    let began = Instant::now();
    wheel.ferule(&["rollback", "--json"]).json();
    let whole = began.elapsed();
    for kill in 0..kills() {
        let other = if wheel.in_service() == first { &second } else { &first };
        killed(wheel.command(&["promote", other]), moment(kill + 1, whole));
        let now = wheel.in_service();
        assert!(now == first || now == second, "{now}");
        let server = wheel.serve();
        serves(&server, &now);
    }

    // Forgetting: asked again after a kill, it leaves no byte.
    let mut met = 0;
    for kill in 0..kills() {
        let (user, text) = (format!("mallory-{kill:03}"), format!("qz{kill:03}vx"));
        assert!(!holding(&wheel.path("data"), &text).is_empty(), "{text} is kept until it is forgotten");
        met += usize::from(killed(wheel.command(&["forget", "--user", &user]), moment(kill + 1, whole)));
        let again = wheel.ferule(&["forget", "--user", &user, "--json"]);
        assert_eq!(again.code, 0, "{}", again.stderr);
        assert_eq!(holding(&wheel.path("data"), &text), Vec::<PathBuf>::new());
        assert_eq!(holding(&wheel.path("data"), &user), Vec::<PathBuf>::new());
    }
    assert!(met > 0, "no kill met a command at work");
    whole_audit(&wheel);
}

fn whole_audit(wheel: &Wheel) {
    assert_eq!(wheel.ferule(&["audit", "verify", "--json"]).json()[0]["whole"], true);
}
