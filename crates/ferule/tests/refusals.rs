//! Wrong recipes and broken data, through the binary: one clear message with file, line, key and mend, exit code 2, before any work.

mod support;

use std::fs;
use std::path::Path;

use lm::checkpoint::Storage;
use support::recipe::{RECIPE, folder};
use support::{Run, command, run, tiny_model_of};

/// With other pairs of letters than the models' own text.
const OTHER_TEXT: &str = "zigzag puzzle fuzz; 戒尺不是玩具，玩具不是戒尺。 quick brown vixens jumped; waxy lynx, jolly wombats, 9 8 7 puzzles zigzag ";

/// A recipe of random weights.
const SCRATCH: &str = r#"task = { name = "judgment" }

[models.teacher]
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
max_position_embeddings = 256

[models.student]
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2

[[stages]]
kind = "tokenizer"
vocab_size = 300

[[stages]]
kind = "pretrain"
model = "teacher"
tokens = 1000

[[stages]]
kind = "dialogue"
model = "student"
teacher = "teacher"
steps = 1
"#;

fn ferule_run(folder: &Path, recipe: &str, more: &[&str]) -> Run {
    fs::write(folder.join("r.toml"), recipe).expect("a file");
    let mut command = command(&[&["run", "r.toml"], more].concat());
    command.current_dir(folder);
    run(command, b"")
}

/// What a recipe is refused with; a panic where it is not, or where something was begun.
#[track_caller]
fn refusal(folder: &Path, recipe: &str, more: &[&str]) -> String {
    let run = ferule_run(folder, recipe, more);
    assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{}", run.stderr);
    assert!(!folder.join("runs").exists(), "a run's folder was made");
    run.stderr.trim_end().to_string()
}

/// Every row's message against the expected one, all that differ told at once.
#[track_caller]
fn check(rows: impl IntoIterator<Item = (String, String)>) {
    let wrong: Vec<String> = rows
        .into_iter()
        .filter(|(found, expect)| !matches(found, &format!("error: {expect}")))
        .map(|(found, expect)| format!("found    {found}\nexpected error: {expect}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Whether a message is the expected one, `#` standing for any number.
fn matches(found: &str, expect: &str) -> bool {
    let mut rest = Some(found);
    for (i, piece) in expect.split('#').enumerate() {
        let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).count();
        let after = |text| if i == 0 { Some(text) } else { Some(&text[digits(text)..]).filter(|_| digits(text) > 0) };
        rest = rest.and_then(after).and_then(|text| text.strip_prefix(piece));
    }
    rest == Some("")
}

/// The recipe with one piece of it replaced.
#[track_caller]
fn with(recipe: &str, old: &str, new: &str) -> String {
    assert_eq!(recipe.matches(old).count(), 1, "{old:?} does not stand once in the recipe");
    recipe.replace(old, new)
}

#[test]
fn wrong_recipes_end_in_one_message() {
    let folder = folder();
    let cases: &[(&str, &str, &str)] = &[
        // Keys, in our words and in those of others.
        (
            "demonstrations = 4",
            "demonstration = 4",
            "r.toml:22: stages[0].demonstration: unknown key\nhint: did you mean \"demonstrations\"?",
        ),
        (
            "completions_per_prompt = 4",
            "num_generations = 4",
            "r.toml:28: stages[1].num_generations: unknown key\nhint: here it is called \"completions_per_prompt\"",
        ),
        (
            "completions_per_prompt = 4",
            "rollout_batch_size = 4",
            "r.toml:28: stages[1].rollout_batch_size: unknown key\nhint: here it is called \"prompts_per_step\"",
        ),
        (
            "demonstrations = 4",
            "num_train_epochs = 4",
            "r.toml:22: stages[0].num_train_epochs: unknown key\nhint: here it is called \"epochs\"",
        ),
        (
            "demonstrations = 4",
            "cutoff_len = 4",
            "r.toml:22: stages[0].cutoff_len: unknown key\nhint: known are model, demonstrations, epochs, demonstrations_per_step, bare_answers, learning_rate, schedule, warmup_steps, weight_decay, beta2, max_grad_norm, tokens_per_micro_batch, checkpoint_every_steps, recompute, lora_rank, lora_alpha",
        ),
        (
            "path = \"teacher\"",
            "model_name_or_path = \"teacher\"",
            "r.toml:14: models.teacher.model_name_or_path: unknown key\nhint: here it is called \"path\"",
        ),
        ("seed = 1", "sead = 1", "r.toml:1: sead: unknown key\nhint: did you mean \"seed\"?"),
        ("cases = 10", "case = 10", "r.toml:10: eval.case: unknown key\nhint: did you mean \"cases\"?"),
        (
            "path = \"cases.jsonl\"",
            "pth = \"cases.jsonl\"",
            "r.toml:6: task.pth: unknown key\nhint: did you mean \"path\"?",
        ),
        // Types and values.
        (
            "seed = 1",
            "seed = ",
            "r.toml:1: string values must be quoted, expected literal string\nhint: strings stand in quotes, a table is `[name]`, a stage `[[stages]]`",
        ),
        (
            "demonstrations = 4",
            "demonstrations = \"4\"",
            "r.toml:22: stages[0].demonstrations: invalid type: string \"4\", expected usize\nhint: numbers stand without quotes, words in quotes, lists in brackets",
        ),
        (
            "demonstrations = 4",
            "schedule = \"linear\"",
            "r.toml:22: stages[0].schedule: unknown variant `linear`, expected one of `constant`, `cosine`, `wsd`\nhint: numbers stand without quotes, words in quotes, lists in brackets",
        ),
        (
            "dtype = \"f32\"",
            "dtype = \"f16\"",
            "r.toml:2: dtype: \"f16\" is not a dtype\nhint: write \"f32\" or \"bf16\"",
        ),
        (
            "kind = \"sft\"",
            "kind = \"stf\"",
            "r.toml:20: stages[0].kind: there is no stage \"stf\"\nhint: did you mean \"sft\"?",
        ),
        (
            "name = \"jsonl\"",
            "name = \"json\"",
            "r.toml:5: task.name: there is no task \"json\"\nhint: did you mean \"jsonl\"?",
        ),
        (
            "steps = 2",
            "steps = 0",
            "r.toml:27: stages[1].steps: is 0\nhint: it counts from 1; leave it out for the default",
        ),
        (
            "steps = 2",
            "checkpoint_every_steps = 0",
            "r.toml:27: stages[1].checkpoint_every_steps: is 0\nhint: it counts from 1; leave it out for the default",
        ),
        (
            "steps = 2",
            "temperature = 0.0",
            "r.toml:27: stages[1].temperature: 0 is not above 0\nhint: 1 leaves the logits as they are",
        ),
        (
            "steps = 2",
            "learning_rate = -1e-3",
            "r.toml:27: stages[1].learning_rate: -0.001 is below 0\nhint: it takes number from 0 to 10; 0.001 is the default",
        ),
        (
            "completions_per_prompt = 4",
            "completions_per_prompt = 4096\nprompts_per_step = 65536",
            "r.toml:28: stages[1].completions_per_prompt: 65536 prompts of 4096 completions each are 268435456 in a step\nhint: a step takes at most 1048576 completions",
        ),
        (
            "completions_per_prompt = 4",
            "completions_per_prompt = 1",
            "r.toml:28: stages[1].completions_per_prompt: 1 is below 2\nhint: a reward is relative to its group; set it to 4 or more",
        ),
        (
            "steps = 2",
            "turns = 3",
            "r.toml:27: stages[1].turns: the task \"jsonl\" has no episodes of several turns\nhint: idiom_chain has; leave it out for one completion a case",
        ),
        (
            "steps = 2",
            "turns = 3\nrules = \"answer_free\"",
            "r.toml:28: stages[1].rules: an episode of several turns is rewarded by the task's environment, not by rules\nhint: leave them out, or set `turns = 1`",
        ),
        ("steps = 2", "lora_r = 8", "r.toml:27: stages[1].lora_r: unknown key\nhint: here it is called \"lora_rank\""),
        (
            "steps = 2",
            "lora_alpha = 0.0",
            "r.toml:27: stages[1].lora_alpha: 0 is not above 0\nhint: it takes number > 0 and ≤ 1000000; 16.0 is the default",
        ),
        (
            "soft_weight = 1.0",
            "hidden_weight = 1.0\nlora_rank = 4",
            "r.toml:43: stages[3].lora_rank: adapters learn alone, and hidden states need a projection that learns beside the model\nhint: leave one of `hidden_weight` and `lora_rank` out",
        ),
        (
            "soft_weight = 1.0",
            "epochs = 1",
            "r.toml:37: stages[3].soft_weight: neither hard nor soft nor hidden labels have a weight\nhint: set `hard_weight = 1` for the teacher's text, `soft_weight = 1` for its distribution",
        ),
        // Order and names.
        (
            "kind = \"sft\"\nmodel = \"teacher\"",
            "kind = \"sft\"\nmodel = \"techer\"",
            "r.toml:21: stages[0].model: there is no model \"techer\"\nhint: did you mean \"teacher\"?",
        ),
        (
            "teacher = \"teacher\"",
            "teacher = \"reacher\"",
            "r.toml:40: stages[3].teacher: there is no model \"reacher\"\nhint: did you mean \"teacher\"?",
        ),
        (
            "data = \"sample-teacher\"",
            "data = \"samples-teacher\"",
            "r.toml:41: stages[3].data: there is no sample stage \"samples-teacher\"\nhint: did you mean \"sample-teacher\"?",
        ),
        (
            "kind = \"sample\"",
            "kind = \"grpo\"",
            "r.toml:31: stages[2].name: a second stage called \"grpo-teacher\"\nhint: give one of the two a `name`",
        ),
        (
            "kind = \"sft\"",
            "kind = \"tokenizer\"\n\n[[stages]]\nkind = \"sft\"",
            "r.toml:20: stages[0].kind: model \"student\" brings its own tokenizer\nhint: leave the tokenizer stage out",
        ),
        (
            "steps = 2",
            "name = \"a/b\"",
            "r.toml:27: stages[1].name: \"a/b\" cannot be a folder's name\nhint: use letters, digits, `-`, `_` and `.`, not at the start",
        ),
        // Files.
        (
            "path = \"cases.jsonl\"",
            "path = \"case.jsonl\"",
            "r.toml:6: task.path: case.jsonl: No such file or directory (os error 2)\nhint: give the path of a JSON-lines file, from the recipe's folder",
        ),
        (
            "path = \"teacher\"",
            "path = \"taecher\"",
            "r.toml:14: models.teacher.path: there is nothing at taecher\nhint: give a Hugging Face folder or a .gguf file, from the recipe's folder; `ferule pull` fetches one",
        ),
        // What the data and the models cannot give.
        (
            "demonstrations = 4",
            "demonstrations = 400",
            "r.toml:22: stages[0].demonstrations: 400 demonstrations asked for, and the training split has 28\nhint: ask for at most 28, or give more cases one",
        ),
        (
            "rules = [{ rule = \"format\" }, { rule = \"exact\" }]",
            "rules = [{ rule = \"exakt\" }]",
            "r.toml:7: task.rules: there is no rule \"exakt\"\nhint: did you mean \"exact\"?",
        ),
        (
            "completions_per_prompt = 4\nmax_new_tokens = 8",
            "max_new_tokens = 60",
            "r.toml:28: stages[1].max_new_tokens: a prompt of # tokens and 60 new ones exceed the model's 64 positions\nhint: lower it, shorten the prompts, or give the model more positions",
        ),
        (
            "cases = 10\nmax_new_tokens = 8",
            "max_new_tokens = 60",
            "r.toml:10: eval.max_new_tokens: a held-out prompt of # tokens and 60 new ones exceed the 64 positions of \"teacher\"\nhint: lower it, or give the model more positions",
        ),
        (
            "steps = 2",
            "tokens_per_micro_batch = 16",
            "r.toml:27: stages[1].tokens_per_micro_batch: 16 tokens do not hold one sequence of up to #\nhint: set it to # or more",
        ),
        (
            "soft_weight = 1.0",
            "hidden_weight = 1.0\nteacher_layer = 3",
            "r.toml:43: stages[3].teacher_layer: \"teacher\" has 2 layers\nhint: choose from 1 to 2",
        ),
    ];
    check(
        cases
            .iter()
            .map(|(old, new, expect)| (refusal(folder.path(), &with(RECIPE, old, new), &[]), expect.to_string())),
    );
}

#[test]
fn models_of_random_weights_have_an_order() {
    let folder = folder();
    let pretrain = "[[stages]]\nkind = \"pretrain\"\nmodel = \"teacher\"\ntokens = 1000\n\n";
    let tokenizer = "[[stages]]\nkind = \"tokenizer\"\nvocab_size = 300\n\n";
    let later = with(SCRATCH, pretrain, "") + "\n" + pretrain;
    let no_tokenizer = with(SCRATCH, tokenizer, "");
    let cases = [
        (
            with(SCRATCH, pretrain, ""),
            "r.toml:21: stages[1].teacher: \"teacher\" still has random weights here\nhint: train it in an earlier stage, or give it a `path`",
        ),
        (
            later,
            "r.toml:21: stages[1].teacher: \"teacher\" still has random weights here\nhint: put \"pretrain-teacher\", which trains it, before \"dialogue-student\"",
        ),
        (
            no_tokenizer.clone(),
            "r.toml:15: stages[0].kind: the models have random weights and no tokenizer\nhint: put a stage of kind \"tokenizer\" first, or give a model a `path`",
        ),
        (
            no_tokenizer + "\n" + tokenizer,
            "r.toml:26: stages[2].kind: a tokenizer made after stages that need it\nhint: put it first",
        ),
        (
            with(SCRATCH, "tokens = 1000", "tokens = 1000\ncontext = 300"),
            "r.toml:22: stages[1].context: 300 tokens in a model of 256 positions\nhint: set it to at most 256, or give the model more `max_position_embeddings`",
        ),
        (
            with(SCRATCH, "max_position_embeddings = 256", "head_dim = 3"),
            "r.toml:7: models.teacher.head_dim: 3 is odd\nhint: the rotary embedding turns dimensions in pairs; choose an even width",
        ),
        (
            with(SCRATCH, "steps = 1\n", "max_new_tokens = 300\n"),
            "r.toml:27: stages[2].max_new_tokens: 300 new tokens after any prompt exceed the model's 256 positions\nhint: lower it, shorten the prompts, or give the model more positions",
        ),
    ];
    check(cases.iter().map(|(recipe, expect)| (refusal(folder.path(), recipe, &[]), expect.to_string())));
}

#[test]
fn tokenizers_that_differ_are_refused() {
    let folder = folder();
    tiny_model_of(&folder.path().join("student"), Storage::F32, OTHER_TEXT);
    let expect = "r.toml:14: models.teacher.path: its tokenizer is not the one of \"student\"\n\
        hint: teacher and student must share one; take both from one family, or train both from random weights";
    check([(refusal(folder.path(), RECIPE, &[]), expect.to_string())]);
}

#[test]
fn broken_data_is_named_by_its_line() {
    let folder = folder();
    let good = fs::read(folder.path().join("cases.jsonl")).expect("a file");
    let cases: [(&[u8], &str); 6] = [
        (b"", "cases.jsonl:1: line: the file is empty\nhint: one JSON object a line, with `prompt` or `messages`"),
        (
            b"PK\x03\x04\x00\x00",
            "cases.jsonl:1: line: a zero byte: the file is binary or UTF-16\nhint: save it as JSON lines in UTF-8",
        ),
        (
            b"{\"prompt\": \"a\"}\n{\"prompt\": \"\xb0\xa1\"}\n",
            "cases.jsonl:2: line: not UTF-8\nhint: save it as UTF-8; `ferule init` reads GB18030 too",
        ),
        (
            b"{\"prompt\": \"a\"}\n{\"prompt\": \"b",
            "cases.jsonl:2: line: no JSON: EOF while parsing a string at line 1 column 13\nhint: the line ends too soon; an object must not run over several lines",
        ),
        (
            b"{\"prompt\": \"a\"}\n\n{\"question_\": 1}\n",
            "cases.jsonl:3: prompt: there is no `prompt`, only question_\nhint: name the field `prompt` (text) or `messages` (a list), or set columns.prompt in [task]",
        ),
        (b"{\"prompt\": \"a\", \"answer\": {}}\n", "cases.jsonl:1: answer: not a text\nhint: write it in quotes"),
    ];
    check(cases.iter().map(|(bytes, expect)| {
        fs::write(folder.path().join("cases.jsonl"), bytes).expect("a file");
        (refusal(folder.path(), RECIPE, &[]), expect.to_string())
    }));
    // Half of a file that was good.
    fs::write(folder.path().join("cases.jsonl"), &good[..good.len() / 2]).expect("a file");
    let run = ferule_run(folder.path(), RECIPE, &[]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.starts_with("error: cases.jsonl:21: line: no JSON: EOF"), "{}", run.stderr);
}

/// A `dpo` stage with one more line, of a recipe that is otherwise in order.
fn dpo(more: &str) -> String {
    format!("{}\n[[stages]]\nkind = \"dpo\"\nmodel = \"student\"\npath = \"pairs.csv\"\n{more}\n", RECIPE)
}

#[test]
fn preferences_that_cannot_be_learned_from_are_refused() {
    let folder = folder();
    let pairs = |text: &str| fs::write(folder.path().join("pairs.csv"), text).expect("a file");
    pairs("prompt,chosen,rejected\nWhy?,Because.,No.\n");
    let of_stage = |more: &str| refusal(folder.path(), &dpo(more), &[]);
    let kto = |more: &str| refusal(folder.path(), &dpo(more).replace("\"dpo\"", "\"kto\""), &[]);
    check([
        (
            of_stage("label_smoothing = 0.1"),
            "r.toml:48: stages[4].label_smoothing: only the loss `robust` has a use for it\nhint: set `loss_type = \"robust\"`, or leave it out",
        ),
        (
            of_stage("loss_type = \"robust\""),
            "r.toml:44: stages[4].label_smoothing: is 0, and the loss `robust` differs by it alone\nhint: write the share of pairs that may be wrong, such as 0.1, or `loss_type = \"sigmoid\"`",
        ),
        (of_stage("beta = 0"), "r.toml:48: stages[4].beta: 0 is not above 0\nhint: it takes number > 0 and ≤ 1000; 0.1 is the default"),
        (
            of_stage("columns = { prompt = \"question\" }"),
            "pairs.csv:2: question: there is none\nhint: write what was asked: a text, or a list of messages",
        ),
        (
            of_stage("columns = { chosen = \"better\" }"),
            "pairs.csv: there is no column `better`, only prompt, chosen, rejected\nhint: known are prompt, chosen, rejected; say what the file calls it with `columns = { chosen = \"…\" }`",
        ),
        (
            of_stage("tokens_per_micro_batch = 8"),
            "r.toml:48: stages[4].tokens_per_micro_batch: 8 tokens do not hold one sequence of up to #\nhint: set it to # or more",
        ),
        (
            kto("columns = { completion = \"chosen\" }"),
            "pairs.csv: there is no column `label`, only prompt, chosen, rejected\nhint: known are prompt, chosen, rejected; say what the file calls it with `columns = { label = \"…\" }`",
        ),
        (kto("thumbs_per_step = 1"), "r.toml:48: stages[4].thumbs_per_step: 1 is below 2\nhint: each answer is also put behind another's prompt"),
        (
            kto("desirable_weight = 0.0\nundesirable_weight = 0.0"),
            "r.toml:48: stages[4].desirable_weight: neither good nor bad answers have a weight\nhint: give `desirable_weight` or `undesirable_weight` a weight; 1 is the default of both",
        ),
    ].map(|(found, expect)| (found, expect.to_string())));
}

#[test]
fn what_the_command_line_asks_is_checked_too() {
    let folder = folder();
    let cases: [(&[&str], &str); 6] = [
        (&["--set", "sead=1"], "r.toml: sead: unknown key\nhint: did you mean \"seed\"?"),
        (
            &["--set", "stages.stf-teacher.epochs=2"],
            "r.toml: stages.stf-teacher.epochs: there is no stage \"stf-teacher\"\nhint: did you mean \"sft-teacher\"?",
        ),
        (
            &["--set", "seed"],
            "r.toml:1: seed: no `=` in --set\nhint: write --set stages.NAME.key=value, values as in TOML",
        ),
        (&["--only", "stf-teacher"], "there is no stage \"stf-teacher\"\nhint: did you mean \"sft-teacher\"?"),
        (
            &["--only", "grpo-teacher"],
            "\"sft-teacher\" comes before \"grpo-teacher\" and is not done\nhint: name it too: --only grpo-teacher sft-teacher",
        ),
        (
            &["--name", "a b"],
            "r.toml: name: \"a b\" cannot be a folder's name\nhint: use letters, digits, `-`, `_` and `.`, not at the start",
        ),
    ];
    check(cases.iter().map(|(more, expect)| (refusal(folder.path(), RECIPE, more), expect.to_string())));
    let missing = run(command(&["run", "/nonexistent/r.toml"]), b"");
    let expect = "error: /nonexistent/r.toml: No such file or directory (os error 2)\nhint: give the path of a recipe, such as recipes/judgment.toml\n";
    assert_eq!((missing.code, missing.stderr.as_str()), (2, expect));
}

#[test]
fn a_dry_run_tells_the_cost_and_leaves_nothing() {
    let folder = folder();
    for (recipe, rows) in [(RECIPE, 4), (SCRATCH, 3)] {
        let run = ferule_run(folder.path(), recipe, &["--dry-run"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let resolved: toml::Table = run.stdout.parse().expect("the resolved recipe is TOML");
        assert_eq!(resolved["stages"].as_array().expect("a list").len(), rows);
        fs::write(folder.path().join("r.resolved.toml"), &run.stdout).expect("a file");
        for told in ["parameters", "GFLOP/s", "measuring every row", "total", "within a factor of"] {
            assert!(run.stderr.contains(told), "{told} is missing in {}", run.stderr);
        }
        assert!(!folder.path().join("runs").exists(), "a run's folder was made");
    }
}
