//! The binary end to end, on a tiny model: the JSON contract, messages and exit codes.

mod support;

use std::io::Read;
use std::path::Path;
use std::process::Stdio;

use lm::checkpoint::Storage;
use serde_json::{Value, json};
use support::{CONTEXT, command, ferule, tiny_model, tokenizer};

fn model() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    tiny_model(folder.path(), Storage::F32);
    let path = folder.path().to_string_lossy().into_owned();
    (folder, path)
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().filter_map(Value::as_f64).collect()
}

#[test]
fn score_answers_in_order_whatever_stands_around_a_line() {
    let (folder, path) = model();
    let ids = tokenizer(folder.path()).encode_with_special("the ruler is flat");
    let rows =
        [json!({"text": "the ruler is flat"}), json!({"tokens": ids}), json!({"tokens": [7]}), json!({"tokens": []})];
    let input: String = rows.iter().map(|row| format!("{row}\n\n")).collect();
    for dtype in ["f32", "bf16"] {
        let answers = ferule(&["score", "--model", &path, "--dtype", dtype], &input).json();
        assert_eq!(answers.len(), 4);
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0]["tokens"], json!(ids));
        assert!(answers[0]["logprobs"][0].is_null());
        let logprobs = floats(&answers[0]["logprobs"]);
        assert_eq!(logprobs.len(), ids.len() - 1);
        assert!(logprobs.iter().all(|&x| x < 0.0));
        assert_eq!(answers[2], json!({"tokens": [7], "logprobs": [null]}));
        assert_eq!(answers[3], json!({"tokens": [], "logprobs": []}));
        let alone =
            ferule(&["score", "--model", &path, "--dtype", dtype, "--threads", "1"], &rows[1].to_string()).json();
        assert_eq!(alone[0], answers[0]);
    }
}

#[test]
fn generated_logprobs_are_those_of_score() {
    let (_folder, path) = model();
    let input = "{\"prompt\": \"the ruler\"}\n{\"tokens\": [9, 8, 7]}\n{\"messages\": [{\"role\": \"user\", \"content\": \"Is it flat?\"}]}\n";
    let options = [
        "generate",
        "--model",
        &path,
        "--max-new-tokens",
        "10",
        "--temperature",
        "1",
        "--seed",
        "3",
        "--n",
        "2",
        "--ignore-eos",
    ];
    let answers = ferule(&options, input).json();
    assert_eq!(answers.len(), 6);
    let places: Vec<(u64, u64)> =
        answers.iter().map(|a| (a["index"].as_u64().unwrap(), a["sample"].as_u64().unwrap())).collect();
    assert_eq!(places, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]);
    assert_ne!(answers[2]["tokens"], answers[3]["tokens"], "samples differ");
    assert!(answers.iter().all(|answer| answer["finish_reason"] == "length" && answer["text"].is_string()));

    let continued: Vec<Value> =
        [json!([9, 8, 7]).as_array().unwrap().clone(), answers[2]["tokens"].as_array().unwrap().clone()].concat();
    let scored = ferule(&["score", "--model", &path], &json!({"tokens": continued}).to_string()).json();
    assert_eq!(scored[0]["logprobs"].as_array().unwrap()[3..], answers[2]["logprobs"].as_array().unwrap()[..]);

    let again = [&options[..], &["--batch", "1", "--threads", "1"]].concat();
    assert_eq!(ferule(&again, input).json(), answers, "neither batch nor threads change a completion");
}

#[test]
fn completions_end_before_stop_strings_and_at_end_tokens() {
    let (folder, path) = model();
    let input = "{\"prompt\": \"the ruler is\"}\n";
    let free = &ferule(&["generate", "--model", &path, "--max-new-tokens", "12", "--ignore-eos"], input).json()[0];
    let text = free["text"].as_str().unwrap();
    let stop: String = text.chars().filter(|&c| c != char::REPLACEMENT_CHARACTER).skip(3).take(1).collect();
    if !stop.is_empty() {
        let options = ["generate", "--model", &path, "--max-new-tokens", "12", "--ignore-eos", "--stop", &stop];
        let stopped = &ferule(&options, input).json()[0];
        assert_eq!(stopped["finish_reason"], "stop");
        assert_eq!(stopped["text"].as_str().unwrap(), text.split(&stop).next().unwrap());
    }
    // The third token as the model's end token.
    let id = free["tokens"][2].as_u64().unwrap();
    let file = folder.path().join("generation_config.json");
    std::fs::write(file, json!({"eos_token_id": [id]}).to_string()).unwrap();
    let ended = &ferule(&["generate", "--model", &path, "--max-new-tokens", "12"], input).json()[0];
    assert_eq!(ended["finish_reason"], "stop");
    let place = free["tokens"].as_array().unwrap().iter().position(|token| *token == id).unwrap();
    assert_eq!(ended["tokens"].as_array().unwrap()[..], free["tokens"].as_array().unwrap()[..=place]);
}

#[test]
fn bad_lines_name_line_field_and_mend() {
    let (_folder, path) = model();
    let cases = [
        (
            "{\"tokens\": [1]}\n{\"tokens\": [1, 280]}\n",
            "stdin line 2: field `tokens[1]`: 280 is outside the vocabulary of 280\nhint: ",
        ),
        ("{\"tokens\": \"a\"}\n", "stdin line 1: field `tokens`: invalid type: string \"a\", expected a sequence"),
        ("{\"txt\": \"a\"}\n", "stdin line 1: has `txt` where `text` or `tokens` is needed\nhint: a line is {\"text\""),
        ("\nnot json\n", "stdin line 2: "),
        ("{\"text\": \"a\", \"tokens\": [1]}", "stdin line 1: has both `text` and `tokens`"),
    ];
    for (input, message) in cases {
        let run = ferule(&["score", "--model", &path], input);
        assert_eq!(run.code, 1, "{input}");
        assert!(run.stderr.starts_with(&format!("error: {message}")), "{}", run.stderr);
        assert!(run.stderr.contains("\nhint: "), "{}", run.stderr);
    }
    let run = ferule(&["score", "--model", &path], cases[0].0);
    assert_eq!(run.stdout, "{\"tokens\":[1],\"logprobs\":[null]}\n", "the answers before a bad line are given");
    let run = ferule(&["generate", "--model", &path], "{\"prompt\": \"a\"}\n{\"prompt\": 1}\n");
    assert_eq!((run.code, run.stdout.as_str()), (1, ""), "nothing is generated where a later line is bad");
    assert!(
        run.stderr.contains("stdin line 2: field `prompt`: invalid type: integer `1`, expected a string"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_prompt_longer_than_the_context_is_refused_with_figures() {
    let (_folder, path) = model();
    let long = json!({"tokens": vec![1; CONTEXT + 1]}).to_string();
    let run = ferule(&["score", "--model", &path], &long);
    assert_eq!(run.code, 1);
    assert_eq!(
        run.stderr,
        "error: stdin line 1: 65 tokens exceed the model's context of 64\nhint: cut the text to at most 64 tokens\n"
    );
    let run = ferule(&["generate", "--model", &path], &json!({"tokens": vec![1; CONTEXT]}).to_string());
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("the prompt has 64 tokens, and the model's context ends at 64"), "{}", run.stderr);
    let full =
        ferule(&["generate", "--model", &path, "--ignore-eos"], &json!({"tokens": vec![1; CONTEXT - 2]}).to_string());
    assert_eq!(full.json()[0]["tokens"].as_array().unwrap().len(), 2, "the context ends a completion");
}

#[test]
fn wrong_use_is_two_and_a_failure_is_one() {
    let (_folder, path) = model();
    let generate = |option: &str, value: &str| ferule(&["generate", "--model", &path, option, value], "");
    for (option, value) in [
        ("--temperature", "-1"),
        ("--top-p", "0"),
        ("--top-p", "1.5"),
        ("--min-p", "2"),
        ("--repetition-penalty", "0"),
        ("--n", "0"),
        ("--dtype", "int4"),
        ("--threads", "0"),
        ("--threads", "100000"),
        ("--n", "1000000000"),
    ] {
        let run = generate(option, value);
        assert_eq!(run.code, 2, "{option} {value}: {}", run.stderr);
        assert!(run.stderr.starts_with("error: ") && run.stdout.is_empty(), "{}", run.stderr);
    }
    assert_eq!(ferule(&["frobnicate"], "").code, 2);
    assert_eq!(ferule(&["score"], "").code, 2);
    assert_eq!(ferule(&["--help"], "").code, 0);
    let missing = ferule(&["score", "--model", "/nonexistent/model"], "");
    assert_eq!(missing.code, 1);
    assert!(
        missing.stderr.starts_with("error: /nonexistent/model is neither a folder, nor a .gguf file"),
        "{}",
        missing.stderr
    );
    let unpulled = ferule(&["score", "--model", "owner/name"], "");
    assert!(unpulled.stderr.contains("\nhint: `ferule pull owner/name` fetches"), "{}", unpulled.stderr);
    let mut isa = command(&["score", "--model", &path]);
    isa.env("FERULE_ISA", "mmx");
    let run = support::run(isa, b"");
    assert_eq!(run.code, 2);
    assert!(run.stderr.starts_with("error: FERULE_ISA=mmx: this machine can run"), "{}", run.stderr);
}

/// Sets every scale of a model's last norm.
fn set_last_norm(folder: &Path, scale: f32) {
    let file = folder.join("model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..start]).unwrap();
    let offset = |at: usize| start + header["model.norm.weight"]["data_offsets"][at].as_u64().unwrap() as usize;
    let scales = &mut bytes[offset(0)..offset(1)];
    scales.chunks_exact_mut(4).for_each(|bytes| bytes.copy_from_slice(&scale.to_le_bytes()));
    std::fs::write(&file, bytes).unwrap();
}

#[test]
fn weights_that_are_not_numbers_are_refused_by_every_command() {
    let (folder, path) = model();
    set_last_norm(folder.path(), f32::NAN);
    let gguf = folder.path().join("model.gguf").to_string_lossy().into_owned();
    let input = "{\"tokens\": [1, 2]}";
    for arguments in [["score", "--model", &path], ["generate", "--model", &path], ["export", &path, &gguf]] {
        let run = ferule(&arguments, input);
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{arguments:?}: {}", run.stderr);
        assert!(run.stderr.contains("model.norm.weight") && run.stderr.contains("\nhint: "), "{}", run.stderr);
    }
    assert!(!Path::new(&gguf).exists());
}

#[test]
fn output_that_cannot_be_written_is_a_failure_with_its_place() {
    let (_folder, path) = model();
    for (command, place) in [("export", "/dev/null/model.gguf"), ("import", "/dev/null/folder")] {
        let run = ferule(&[command, &path, place], "");
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{}", run.stderr);
        assert!(run.stderr.starts_with("error: /dev/null/"), "{}", run.stderr);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_stdout_is_a_failure() {
    let (_folder, path) = model();
    let mut child = command(&["score", "--model", &path]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut child = child.stdin(Stdio::piped()).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"{\"tokens\": [1, 2]}\n").unwrap();
    let done = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("error: ") && stderr.contains("No space left"), "{stderr}");
}

#[test]
fn weights_that_overflow_are_reported_and_not_printed() {
    let (folder, path) = model();
    // Huge and finite: the head's product overflows.
    set_last_norm(folder.path(), 3e38);
    for (command, input) in [("score", "{\"tokens\": [1, 2]}"), ("generate", "{\"tokens\": [1, 2]}")] {
        let run = ferule(&[command, "--model", &path], input);
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{}", run.stderr);
        assert!(run.stderr.contains("stdin line 1: ") && run.stderr.contains("not finite"), "{}", run.stderr);
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let (_folder, path) = model();
    let mut child = command(&["score", "--model", &path])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let line = json!({"tokens": vec![1; CONTEXT]}).to_string() + "\n";
    let mut stdin = child.stdin.take().unwrap();
    // It stops reading once it has noticed.
    let _ = std::io::Write::write_all(&mut stdin, line.repeat(200).as_bytes());
    drop(stdin);
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_model_survives_the_way_to_gguf_and_back() {
    let (folder, path) = model();
    let place = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (gguf, back) = (place("model.gguf"), place("back"));
    let export = ferule(&["export", &path, &gguf], "");
    assert_eq!(export.code, 0, "{}", export.stderr);
    assert_eq!(export.stdout, "");
    assert_eq!(ferule(&["import", &gguf, &back], "").code, 0);
    let input = "{\"text\": \"the ruler is 平的\"}\n";
    let expected = ferule(&["score", "--model", &path], input).json();
    assert_eq!(ferule(&["score", "--model", &gguf], input).json(), expected);
    assert_eq!(ferule(&["score", "--model", &back], input).json(), expected);

    // Half precision has more bits of mantissa than bf16: it stays what it is.
    assert_eq!(ferule(&["export", &path, &gguf, "--force", "--dtype", "f16"], "").code, 0);
    let half = ferule(&["import", &gguf, &back, "--force"], "");
    assert!(half.stderr.contains("parameters in f16"), "{}", half.stderr);
    let exact = |model: &str| ferule(&["score", "--model", model, "--dtype", "f32"], input).json();
    assert_eq!(exact(&back), exact(&gguf));

    let again = ferule(&["export", &path, &gguf], "");
    assert_eq!(again.code, 2);
    assert!(again.stderr.contains("exists\nhint: choose another name, or add --force"), "{}", again.stderr);
    let narrow = ferule(&["export", &path, &gguf, "--force", "--dtype", "bf16"], "");
    assert_eq!(narrow.code, 0, "{}", narrow.stderr);
    // Weights stored in 16 bits are computed with in bf16 unless told otherwise.
    let by_default = ferule(&["score", "--model", &gguf], input).json();
    assert_eq!(by_default, ferule(&["score", "--model", &gguf, "--dtype", "bf16"], input).json());
    assert_ne!(by_default, ferule(&["score", "--model", &gguf, "--dtype", "f32"], input).json());
}

#[test]
fn chat_answers_each_line_on_stdout() {
    let (folder, path) = model();
    let options = ["chat", "--model", &path, "--max-new-tokens", "8", "--temperature", "0", "--system", "Be brief."];
    let run = ferule(&options, "Is it flat?\n/frob\n/reset\nIs it flat?\n/exit\nunread\n");
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("/frob is not a command"), "{}", run.stderr);
    let half = run.stdout.len() / 2;
    assert_eq!(run.stdout[..half], run.stdout[half..], "after a reset the same question gets the same greedy answer");

    let messages =
        json!({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is it flat?"}]});
    let generated = ferule(&["generate", "--model", &path, "--max-new-tokens", "8"], &messages.to_string()).json();
    assert_eq!(run.stdout[..half], format!("{}\n", generated[0]["text"].as_str().unwrap()));

    std::fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    let without = ferule(&options, "Hello\n");
    assert_eq!(without.code, 2);
    assert!(without.stderr.contains("has no chat template, so it takes no system message"), "{}", without.stderr);
    let plain = ferule(&options[..7], "the ruler\nthe ruler\n");
    assert!(
        plain.stderr.starts_with("this model cannot hold a conversation: every line is continued as it is"),
        "{}",
        plain.stderr
    );
    let continued =
        ferule(&["generate", "--model", &path, "--max-new-tokens", "8"], "{\"prompt\": \"the ruler\"}").json();
    assert_eq!(plain.stdout, format!("{}\n", continued[0]["text"].as_str().unwrap()).repeat(2));
}

#[test]
fn bench_writes_its_contract() {
    let shape = tempfile::tempdir().unwrap();
    let file = shape.path().join("config.json");
    tiny_model(shape.path(), Storage::F32);
    let file = file.to_string_lossy();
    let options = [
        "bench", "--shape", &*file, "--json", "--batch", "1,3", "--prompt", "4", "--new", "4", "--rounds", "1",
        "--dtype", "f32",
    ];
    let report = ferule(&options, "").json().remove(0);
    let has =
        |row: &Value, names: &[&str]| names.iter().for_each(|name| assert!(!row[name].is_null(), "{name} in {row}"));
    has(&report["peak"], &["f32_gflops", "bf16_gflops"]);
    has(&report["gemm"][0], &["m", "n", "k", "dtype", "packed", "gflops"]);
    has(&report["train"][0], &["dtype", "tokens_per_s", "peak_fraction", "peak_bytes"]);
    let batches: Vec<_> = report["decode"].as_array().unwrap().iter().map(|row| row["batch"].clone()).collect();
    assert_eq!(batches, [json!(1), json!(3)]);
    has(&report["decode"][0], &["dtype", "batch", "prompt", "new", "tokens_per_s"]);
    has(&report["prefill"][0], &["dtype", "batch", "prompt", "tokens_per_s"]);
    assert_eq!(report["grpo"], json!([]), "a step of reinforcement learning is measured where it is asked for");
    assert_eq!(ferule(&["bench", "--shape", &*file, "--prompt", "60", "--new", "60"], "").code, 2);
}

#[test]
fn doctor_names_the_machine_and_the_sizes() {
    let report = ferule(&["doctor", "--json"], "").json().remove(0);
    assert!(report["sizes"].as_array().unwrap().len() >= 6);
    assert!(report["gpu"].as_str().unwrap().starts_with("no GPU support in this build"));
    let names: Vec<&str> = report["isa_available"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(names.contains(&report["isa"].as_str().unwrap()) && names.contains(&"portable"));
    assert!(Path::new(report["cache"].as_str().unwrap()).ends_with("hub"));
}
