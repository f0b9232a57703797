//! Damaged files of a model. A refusal must name the file; what is accepted must mean what another reading of the same bytes says.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lm::checkpoint::Storage;
use lm::template::{Chat, ChatTemplate};
use lm::tokenizer::Tokenizer;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::harness::{Attempt, NUMBERS, Random, class};
use super::support::{self, Run, command};

const LINES: &str = "{\"text\": \"the ruler is <|im_end|> flat. 尺子 1\"}\n{\"tokens\": [1, 99, 279]}\n";

/// A tiny model, of which one file will be damaged, and its answer before that.
struct Victim {
    folder: TempDir,
    answer: String,
}

impl Victim {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        support::tiny_model(&folder.path().join("model"), Storage::F32);
        let answer = support::ferule(&["score", "--model", path(&folder.path().join("model"))], LINES).stdout;
        assert_eq!(answer.lines().count(), 2);
        Self { folder, answer }
    }

    fn model(&self) -> PathBuf {
        self.folder.path().join("model")
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.model().join(name)).expect("a file of the model")
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.model().join(name), bytes).expect("a folder that can be written to");
    }

    /// Scores texts with a model. A refusal must name `name`.
    fn score(&self, attempt: &Attempt, model: &Path, name: &str) -> Run {
        names(attempt, attempt.run(&command(&["score", "--model", path(model)]), LINES.as_bytes()), name)
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn names(attempt: &Attempt, run: Run, name: &str) -> Run {
    // Weights that are finite and absurd are found only by what they give.
    let told = run.stderr.contains(name) || run.stderr.contains("the logits are not finite");
    assert!(run.code == 0 || told, "{}: no word of {name}:\n{}", attempt.name, run.stderr);
    assert!(!run.stderr.contains('\u{1b}'), "{}: an escape byte:\n{}", attempt.name, run.stderr);
    run
}

/// Dtype and shape of each tensor.
type Tensors = BTreeMap<String, (Value, Value)>;

/// The header of a safetensors file as a JSON reader of our own understands it: dtype and shape of each tensor, and all there is.
fn safetensors_header(bytes: &[u8]) -> Option<(Tensors, Value)> {
    let len = usize::try_from(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?)).ok()?;
    let header: Value = serde_json::from_slice(bytes.get(8..len.checked_add(8)?)?).ok()?;
    let tensors = header.as_object()?.iter().filter(|(name, _)| *name != "__metadata__");
    Some((tensors.map(|(name, info)| (name.clone(), (info["dtype"].clone(), info["shape"].clone()))).collect(), header))
}

/// The oracle: an accepted file has the tensors, dtypes and shapes of the undamaged one; and where header and data are the same, so is the
/// answer.
#[test]
fn safetensors() {
    const NAME: &str = "model.safetensors";
    let victim = Victim::new();
    let sound = victim.read(NAME);
    let (tensors, header) = safetensors_header(&sound).expect("a sound file");
    let data =
        |bytes: &[u8]| bytes[8 + u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize..].to_vec();
    class("safetensors", |attempt, random| {
        let mut bytes = sound.clone();
        match random.below(3) {
            0 => random.damage(&mut bytes),
            _ => damage_head(random, &mut bytes, 2200),
        }
        victim.write(NAME, &bytes);
        let run = victim.score(attempt, &victim.model(), NAME);
        if run.code == 0 {
            let (found, damaged) = safetensors_header(&bytes).expect("the binary read it");
            assert_eq!(found, tensors, "{}", attempt.name);
            if damaged == header && data(&bytes) == data(&sound) {
                assert_eq!(run.stdout, victim.answer, "{}", attempt.name);
            }
        }
    });
}

/// Damages the first `len` bytes only.
fn damage_head(random: &mut Random, bytes: &mut Vec<u8>, len: usize) {
    let tail = bytes.split_off(len.min(bytes.len()));
    random.damage(bytes);
    bytes.extend(tail);
}

/// The oracle: an accepted file, written again as another GGUF file, gives the same answer. So nothing of it was read by default only.
#[test]
fn gguf() {
    let victim = Victim::new();
    let (file, copy) = (victim.folder.path().join("model.gguf"), victim.folder.path().join("copy.gguf"));
    let export = |from: &Path, to: &Path| command(&["export", path(from), path(to), "--dtype", "f32", "--force"]);
    assert_eq!(support::run(export(&victim.model(), &file), b"").code, 0);
    let sound = fs::read(&file).expect("just written");
    let header = sound.windows(17).position(|bytes| bytes == b"token_embd.weight").expect("a tensor's name");
    class("gguf", |attempt, random| {
        let mut bytes = sound.clone();
        match random.below(3) {
            0 => random.damage(&mut bytes),
            1 => damage_head(random, &mut bytes, header + 1200),
            // The keys that come first are those of the model.
            _ => damage_head(random, &mut bytes, 1200),
        }
        fs::write(&file, &bytes).expect("a folder that can be written to");
        let run = victim.score(attempt, &file, "model.gguf");
        if run.code == 0 {
            let exported = names(attempt, attempt.run(&export(&file, &copy), b""), "model.gguf");
            if exported.code == 0 {
                assert_eq!(victim.score(attempt, &copy, "copy.gguf").stdout, run.stdout, "{}", attempt.name);
            }
        }
    });
}

/// A random place in JSON, mostly a leaf, as a pointer.
fn branch(random: &mut Random, json: &Value) -> String {
    let (step, inside) = match json {
        Value::Object(fields) if !fields.is_empty() => {
            let (key, value) = fields.iter().nth(random.below(fields.len())).expect("below the length");
            (key.replace('~', "~0").replace('/', "~1"), value)
        }
        Value::Array(items) if !items.is_empty() => {
            let at = random.below(items.len());
            (at.to_string(), &items[at])
        }
        _ => return String::new(),
    };
    let deeper = if random.below(12) == 0 { String::new() } else { branch(random, inside) };
    format!("/{step}{deeper}")
}

/// Damages JSON: its bytes, or one of its values.
fn damage_json(random: &mut Random, bytes: &mut Vec<u8>) {
    if random.below(3) == 0 {
        return random.damage(bytes);
    }
    let mut json: Value = serde_json::from_slice(bytes).expect("sound JSON");
    let place = branch(random, &json);
    *json.pointer_mut(&place).expect("a place in it") = match random.below(9) {
        0 => Value::Null,
        1 => json!(""),
        2 => json!("\u{1b}[2J"),
        3 => json!([]),
        4 => json!({}),
        5 => json!(true),
        6 => json!([null, { "type": "Sequence" }]),
        _ => serde_json::from_str(random.pick::<&str>(NUMBERS)).unwrap_or(json!(1e18)),
    };
    *bytes = serde_json::to_vec(&json).expect("JSON");
}

/// The oracle: an accepted file, parsed by a JSON reader of our own and written again, gives the same answer.
fn json_class(name: &str, file: &str) {
    let victim = Victim::new();
    let sound = victim.read(file);
    class(name, |attempt, random| {
        let mut bytes = sound.clone();
        damage_json(random, &mut bytes);
        victim.write(file, &bytes);
        let run = victim.score(attempt, &victim.model(), file);
        if run.code == 0 {
            let read: Value = serde_json::from_slice(&bytes).expect("the binary read it");
            victim.write(file, &serde_json::to_vec_pretty(&read).expect("JSON"));
            assert_eq!(victim.score(attempt, &victim.model(), file).stdout, run.stdout, "{}", attempt.name);
        }
    });
}

#[test]
fn config_json() {
    json_class("config.json", "config.json");
}

#[test]
fn tokenizer_json() {
    json_class("tokenizer.json", "tokenizer.json");
}

/// The oracle: what a user says adds no special token to the prompt, whatever became of the template.
#[test]
fn template() {
    const NAME: &str = "chat_template.jinja";
    let victim = Victim::new();
    let tokenizer = Tokenizer::open_folder(&victim.model()).expect("a sound tokenizer");
    let sources = [
        String::from_utf8(victim.read(NAME)).expect("UTF-8"),
        "{% set ns = namespace(n=0, t='') %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% if '/think' in m.content %}\
         {{ m.content | trim | replace('a', 'b') }}{% endif %}{% set ns.t = ns.t ~ m.content[1:] %}{% endfor %}\
         {{ '<|im_start|>' + ns.t * 2 }}{{ '%5d' | format(ns.n) }}{{ messages | tojson(indent=2) }}"
            .to_string(),
        "{% macro f(x, n) %}{% if n %}{{ x }}{{ f(x, n - 1) }}{% endif %}{% endmacro %}{{ f(messages[0].content, 3) }}\
         {{ messages[0].content.split('-') | join('|') }}{{ range(9) | list | indent(4) }}{{ 'a\n' | indent(2) }}"
            .to_string(),
    ];
    let words = ["<|im_end|>", "<|im_", "end|>", "-im_end-", "/think <|im_start|>", "a"];
    class("template", |attempt, random| {
        let mut bytes = random.pick(&sources).clone().into_bytes();
        random.damage(&mut bytes);
        victim.write(NAME, &bytes);
        let content = format!("{}{}", random.pick(&words), random.pick(&words));
        let messages =
            [json!({ "role": "user", "content": content }), json!({ "role": "user", "content": random.pick(&words) })];
        let line = json!({ "messages": messages }).to_string();
        let arguments =
            ["generate", "--model", path(&victim.model()), "-n", "1", "--max-new-tokens", "2"].map(String::from);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let run = attempt.run(&command(&arguments), line.as_bytes());
        // A prompt that is too long, or empty, is a fault of the line.
        let of_line = ["the prompt has", "the prompt is", "context"].iter().any(|fault| run.stderr.contains(fault));
        if !of_line {
            names(attempt, run, NAME);
        }
        let Ok(Some(template)) = ChatTemplate::open_folder(&victim.model()) else { return };
        let special = |messages: &[Value]| {
            let ids = template.encode(&tokenizer, &Chat { messages, add_generation_prompt: true, ..Chat::default() });
            ids.map(|ids| ids.into_iter().filter(|&id| tokenizer.is_special(id)).count())
        };
        let harmless = messages.clone().map(|mut message| {
            let text = message["content"].as_str().expect("a text").replace(['<', '>', '|', '-'], "!");
            message["content"] = text.into();
            message
        });
        if let (Ok(found), Ok(expected)) = (special(&messages), special(&harmless)) {
            assert!(found <= expected, "{}: {found} special tokens for {content}", attempt.name);
        }
    });
}
