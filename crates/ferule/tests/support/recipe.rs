//! A short recipe on made data, its models and its cases.

use std::fs;

use lm::checkpoint::Storage;
use serde_json::json;

use super::tiny_model;

/// Supervised and reinforcement learning of a teacher, and a student of it. Tests name its lines, counted from 1.
pub const RECIPE: &str = r#"seed = 1
dtype = "f32"

[task]
name = "jsonl"
path = "cases.jsonl"
rules = [{ rule = "format" }, { rule = "exact" }]

[eval]
cases = 10
max_new_tokens = 8

[models.teacher]
path = "teacher"

[models.student]
path = "student"

[[stages]]
kind = "sft"
model = "teacher"
demonstrations = 4

[[stages]]
kind = "grpo"
model = "teacher"
steps = 2
completions_per_prompt = 4
max_new_tokens = 8

[[stages]]
kind = "sample"
model = "teacher"
cases = 4
max_new_tokens = 8

[[stages]]
kind = "distill"
model = "student"
teacher = "teacher"
data = "sample-teacher"
soft_weight = 1.0
"#;

/// Sixty sums as JSON lines, without line `left_out`: a prompt that ends in `ending`, the answer, and a demonstration.
pub fn sums(ending: &str, left_out: Option<usize>) -> String {
    let line = |i: usize| {
        let demonstration = format!("<think></think><answer>{}</answer>", 2 * i);
        json!({ "prompt": format!("{i} + {i}{ending}"), "answer": 2 * i, "demonstration": demonstration })
    };
    let lines: Vec<String> = (0..60).filter(|&i| left_out != Some(i)).map(|i| line(i).to_string()).collect();
    lines.join("\n")
}

/// A folder with its models and its forty cases.
pub fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for model in ["teacher", "student"] {
        fs::create_dir(folder.path().join(model)).expect("a folder");
        tiny_model(&folder.path().join(model), Storage::F32);
    }
    let line = |i: usize| format!(r#"{{"prompt": "{i}?", "answer": "{i}", "demonstration": "<answer>{i}</answer>"}}"#);
    fs::write(folder.path().join("cases.jsonl"), (0..40).map(|i| line(i) + "\n").collect::<String>()).expect("a file");
    folder
}
