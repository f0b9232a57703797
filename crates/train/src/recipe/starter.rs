//! Writes a commented recipe for a user's file, from what its inspection found. [`super::Recipe::read`] accepts the text.
//!
//! The recipe starts small: 200 demonstrations at most, 100 steps of reinforcement learning, held-out accuracy after every stage. Its
//! values are places to start from, not the results of tuning.

use std::fmt::Write;

use tasks::data::Inspection;
use tasks::data::findings::{AnswerKind, Findings};
use tasks::data::layout::Layout;
use tasks::refusal::Refusal;

/// The recipe, as TOML. `cases` is the file with the cases and `model` the folder of the base model, both as seen from the
/// recipe's folder.
///
/// # Errors
/// Documents: they ask nothing.
pub fn starter(inspection: &Inspection, name: &str, cases: &str, model: &str) -> Result<String, Refusal> {
    let found = &inspection.findings;
    if found.layout == Layout::Documents {
        let problem = "documents ask nothing, so no task follows from them";
        return Err(Refusal::new(problem, "add cases with `prompt` and `answer`"));
    }
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = head(&mut text, found, name)
        .and_then(|()| task(&mut text, found, cases))
        .and_then(|()| stages(&mut text, found, model));
    Ok(text)
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_string()).to_string()
}

fn head(out: &mut String, found: &Findings, name: &str) -> std::fmt::Result {
    writeln!(out, "# What the data are, as `ferule init` found them:")?;
    for line in found.to_string().lines() {
        writeln!(out, "#   {line}")?;
    }
    writeln!(out, "#\n# Run it with `ferule run`. With `--dry-run` it shows what the run will cost.\n")?;
    writeln!(out, "name = {}", quoted(name))?;
    writeln!(out, "seed = 0")?;
    writeln!(out, "dtype = \"bf16\"    # \"f32\" is slower and exact\n")
}

fn task(out: &mut String, found: &Findings, cases: &str) -> std::fmt::Result {
    writeln!(out, "[task]")?;
    if found.layout == Layout::Judgment {
        writeln!(out, "name = \"judgment\"")?;
        writeln!(out, "files = [{}]", quoted(cases))?;
        writeln!(
            out,
            "fact_chars = {}    # longer facts lose their middle\n",
            found.prompt_chars.p95.clamp(200, 1200)
        )?;
        return Ok(());
    }
    writeln!(out, "name = \"jsonl\"")?;
    writeln!(out, "path = {}", quoted(cases))?;
    if found.answer_kind == AnswerKind::None {
        writeln!(
            out,
            "# No answers are known, so no rule can tell right from wrong. These rules reward the form alone, and so does the ladder."
        )?;
        writeln!(out, "rules = [")?;
        writeln!(out, "    {{ rule = \"length\", min = 8, max = 512, margin = 64 }},")?;
        writeln!(out, "    {{ rule = \"repetition\" }},")?;
        return writeln!(out, "]\n");
    }
    writeln!(out, "# The text around every prompt. It asks for the format that the rules below demand.")?;
    let ask = match found.scripts.first() {
        Some(("Chinese", _)) => "{prompt}\n先在<think></think>里思考，再在<answer></answer>里写出答案。\n",
        _ => "{prompt}\nReason between <think></think>, then give the answer between <answer></answer>.\n",
    };
    writeln!(out, "template = {}", basic_string(ask))?;
    writeln!(
        out,
        "# The rules that reward the policy and decide what is right. Each reads the one answer block, strictly."
    )?;
    writeln!(out, "rules = [")?;
    writeln!(out, "    {{ rule = \"format\", weight = 0.1 }},")?;
    match found.answer_kind {
        AnswerKind::Number => writeln!(out, "    {{ rule = \"number\", weight = 0.9, tolerance = 0.0 }},")?,
        AnswerKind::Choice => {
            writeln!(out, "    {{ rule = \"choice\", weight = 0.9, choices = {} }},", choices(found))?
        }
        _ => writeln!(out, "    {{ rule = \"exact\", weight = 0.9, ignore_blanks = true }},")?,
    }
    writeln!(out, "]\n")
}

/// The list of choices if all are known; otherwise an empty list, which allows any answer.
fn choices(found: &Findings) -> String {
    match found.distinct_answers <= found.labels.len() {
        true => format!("[{}]", found.labels.iter().map(|(label, _)| quoted(label)).collect::<Vec<_>>().join(", ")),
        false => "[]".to_string(),
    }
}

/// A TOML string on one line, with line breaks escaped.
fn basic_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// A generous estimate of the tokens in `chars` characters.
fn tokens(found: &Findings, chars: usize) -> usize {
    let chinese = found.scripts.first().is_some_and(|(name, _)| *name == "Chinese");
    if chinese { chars } else { chars.div_ceil(3) }
}

fn stages(out: &mut String, found: &Findings, model: &str) -> std::fmt::Result {
    let cases = found.rows.saturating_sub(found.duplicates + found.empty_prompts);
    let (train, heldout) = ((cases * 6 / 10).max(1), (cases * 15 / 100).clamp(1, 500));
    let judgment = found.layout == Layout::Judgment;
    let demonstrations = if judgment { train } else { found.demonstrations * 6 / 10 };
    let longest = if judgment { 128 } else { tokens(found, found.demonstration_chars.p95).clamp(64, 512) + 32 };
    writeln!(out, "[models.student]")?;
    writeln!(
        out,
        "# A folder with a base model in Hugging Face's layout, or a GGUF file; `ferule pull OWNER/NAME` fetches one and prints"
    )?;
    writeln!(out, "# its path. Prompts have up to {} tokens or so.", tokens(found, found.prompt_chars.p95))?;
    writeln!(out, "path = {}\n", quoted(model))?;
    writeln!(out, "[eval]")?;
    writeln!(
        out,
        "cases = {heldout}    # held out by the hash of the prompt; about 7 in 10 of the {cases} cases are trained on"
    )?;
    writeln!(out, "max_new_tokens = {longest}\n")?;
    if demonstrations > 0 {
        let budget = demonstrations.clamp(1, 200);
        writeln!(out, "[[stages]]")?;
        writeln!(out, "kind = \"sft\"")?;
        writeln!(out, "model = \"student\"")?;
        writeln!(
            out,
            "demonstrations = {budget}    # the label budget; the training part holds about {demonstrations}"
        )?;
        writeln!(out, "epochs = 3")?;
        writeln!(out, "learning_rate = 2e-5    # tune this first: it moves the baseline more than anything else")?;
        writeln!(
            out,
            "# lora_rank = 16        # if memory is short: trains adapters in place of the weights; take ten times the learning rate\n"
        )?;
    }
    if found.answers > 0 || demonstrations == 0 {
        writeln!(out, "[[stages]]")?;
        writeln!(out, "kind = \"grpo\"")?;
        writeln!(out, "model = \"student\"")?;
        writeln!(out, "steps = 100")?;
        writeln!(out, "cases = {}    # every case whose answer a rule reads is metered", train.min(2000))?;
        writeln!(out, "prompts_per_step = 8")?;
        writeln!(out, "completions_per_prompt = 8")?;
        writeln!(out, "max_new_tokens = {longest}")?;
        writeln!(out, "temperature = 1.0")?;
        writeln!(out, "learning_rate = 1e-6")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::recipe::Recipe;
    use tasks::Split;
    use tasks::data::inspect;
    use tasks::registry;

    use super::*;

    /// Writes a file, inspects it, writes a recipe for it, reads both back, and returns the recipe's text.
    fn recipe_for(name: &str, content: String) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let inspection = inspect(&path).unwrap();
        std::fs::write(folder.path().join("cases.jsonl"), inspection.case_lines()).unwrap();
        let text = starter(&inspection, "mine", "cases.jsonl", "models/base").unwrap();
        let recipe_path = folder.path().join("mine.toml");
        std::fs::write(&recipe_path, &text).unwrap();
        let recipe = Recipe::read(&recipe_path, &[]).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let task = registry::build(&recipe.settings.task, folder.path()).unwrap();
        if task.name() == "jsonl" {
            assert!(task.rules("answers").is_ok());
            let prompt = task.cases(Split::Train, 1, 0).unwrap()[0].prompt_text();
            assert_eq!(prompt.contains("<answer>"), recipe.settings.task.contains_key("template"));
        }
        text
    }

    #[test]
    fn the_recipe_is_one_that_is_read_and_fits_the_answers() {
        let labelled: String = (0..90).map(|i| format!("案情{i},{}\n", ["盗窃", "诈骗"][i % 2])).collect();
        let text = recipe_for("a.csv", format!("text,label\n{labelled}"));
        assert!(text.contains("choices = [\"盗窃\", \"诈骗\"]") && text.contains("先在<think>"), "{text}");
        assert!(!text.contains("kind = \"sft\"") && text.contains("kind = \"grpo\""), "{text}");

        let worked: String = (0..90)
            .map(|i| format!("{{\"question\": \"How many {i}?\", \"answer\": \"It is {i}.\\n#### {i}\"}}\n"))
            .collect();
        let text = recipe_for("b.jsonl", worked);
        assert!(text.contains("rule = \"number\"") && text.contains("demonstrations = 54"), "{text}");

        let chats: String = (0..30)
            .map(|i| {
                let long = "a long reply ".repeat(9);
                format!("{{\"instruction\": \"say {i}\", \"input\": \"\", \"output\": \"{long}\"}}\n")
            })
            .collect();
        let text = recipe_for("c.jsonl", chats);
        assert!(text.contains("No answers are known") && !text.contains("kind = \"grpo\""), "{text}");
    }

    #[test]
    fn documents_make_no_recipe() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, "{\"text\": \"a\"}").unwrap();
        assert!(starter(&inspect(&path).unwrap(), "mine", "c", "m").is_err());
    }

    #[test]
    fn judgments_get_their_own_task() {
        let lines: String =
            (0..30).map(|i| format!("{{\"fact\": \"事实{i}\", \"charges\": [\"盗窃\"], \"months\": 6}}\n")).collect();
        let text = recipe_for("d.jsonl", lines);
        assert!(text.contains("name = \"judgment\"") && text.contains("files = [\"cases.jsonl\"]"), "{text}");
    }
}
