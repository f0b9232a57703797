//! A short road through the binary: what a person sees of it, how it is stopped and gone on with, and what its models are called afterwards.

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use support::recipe::{RECIPE, folder};
use support::{command, run};

fn ferule_in(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = command(arguments);
    command.current_dir(folder);
    command
}

#[test]
fn a_run_is_walked_and_its_name_stands_for_its_student() {
    let folder = folder();
    // Long enough that the teacher ends its answers, so that there is something to distil.
    let recipe = RECIPE.replace("max_new_tokens = 8", "max_new_tokens = 30");
    let recipe = recipe.replace("demonstrations = 4", "demonstrations = 4\nepochs = 300\nlearning_rate = 1e-2");
    std::fs::write(folder.path().join("r.toml"), recipe).expect("a file");
    let ferule = |arguments: &[&str], input: &str| run(ferule_in(folder.path(), arguments), input.as_bytes());
    let walked = ferule(&["run", "r.toml"], "");
    assert_eq!(walked.code, 0, "{}", walked.stderr);
    for told in ["stage", "change", "character n-grams, linear", "sft-teacher", "distill-student", "≈ within the noise"]
    {
        assert!(walked.stdout.contains(told), "{told} is missing in {}", walked.stdout);
    }
    assert!(
        walked.stderr.contains("grpo-teacher 2/2 loss"),
        "plain lines where there is no terminal: {}",
        walked.stderr
    );
    assert!(walked.stderr.contains("not one example fits its context"), "{}", walked.stderr);
    assert!(!walked.stderr.contains('\u{1b}'), "and no colours");
    let again = ferule(&["run", "r.toml", "--quiet", "--json"], "");
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert!(again.stderr.starts_with("going on from distill-student step 0\n"), "{}", again.stderr);
    assert!(!again.stderr.contains("done in"), "quiet: {}", again.stderr);
    let report = again.json().remove(0);
    assert_eq!(report["stages"][3]["labels"], 4, "the demonstrations behind the student's teacher");
    assert!(report["stages"][1]["change"]["within_noise"].is_boolean());
    assert!(report["stages"][0]["extra"]["calibration"]["coverage"].is_number());

    let student = report["final"]["student"].as_str().expect("a folder");
    let ask = |model: &str| ferule(&["chat", "--model", model, "--temperature", "0", "--max-new-tokens", "6"], "3?\n");
    assert_eq!(ask("r").stdout, ask(student).stdout);
    assert_eq!(ask("r/teacher").stdout, ask("r/grpo-teacher").stdout);
    let unknown = ask("r/sft");
    assert_eq!(unknown.code, 1);
    assert!(
        unknown.stderr.contains("it has those of sft-teacher, grpo-teacher, distill-student"),
        "{}",
        unknown.stderr
    );
    let eval =
        ["eval", "--model", "r", "--task", "cases.jsonl", "--n", "5", "--k", "3", "--max-new-tokens", "6", "--json"];
    let eval = ferule(&eval, "").json().remove(0);
    for key in ["accuracy", "low", "high", "pass_at_k", "pass_at_k_interval", "majority_at_k", "majority_at_k_interval"]
    {
        assert!(!eval[key].is_null(), "{key} in {eval}");
    }
    assert_eq!(eval["calibration"]["confidence"], "vote_share");
    assert!(eval["parts"]["exact"].is_number(), "graded by the rules of its own run: {eval}");
    // Weights from elsewhere know no rules for the file.
    let elsewhere = ferule(&["eval", "--model", "teacher", "--task", "cases.jsonl", "--max-new-tokens", "6"], "");
    assert_eq!((elsewhere.code, elsewhere.stdout.as_str()), (2, ""), "an accuracy of 0 would be made up");
    assert!(elsewhere.stderr.contains("none of the") && elsewhere.stderr.contains("\nhint: "), "{}", elsewhere.stderr);
    assert_eq!(ferule(&["report", "r", "--language", "zh"], "").code, 0);
}

#[cfg(unix)]
#[test]
fn a_signal_finishes_the_step_and_says_how_to_go_on() {
    let folder = folder();
    let recipe =
        RECIPE.replace("demonstrations = 4", "demonstrations = 4\nepochs = 100000\ncheckpoint_every_steps = 1000000");
    std::fs::write(folder.path().join("r.toml"), recipe).expect("a file");
    let mut steps = 0;
    for signal in ["INT", "TERM"] {
        let mut child = ferule_in(folder.path(), &["run", "r.toml"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map(|line| line.expect("UTF-8"));
        lines.find(|line| line.starts_with("sft-teacher ")).expect("a line of progress");
        let sent =
            Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
        let rest: Vec<String> = lines.collect();
        assert_eq!(child.wait().expect("it ends").code(), Some(1), "{rest:?}");
        let told = rest
            .iter()
            .find_map(|line| line.strip_prefix("error: stopped at stage \"sft-teacher\", step "))
            .expect("where");
        let step: u64 = told.split(';').next().expect("a number").parse().expect("a number");
        assert!(step > steps, "the second time it went on from where the first one stopped");
        steps = step;
        assert_eq!(rest.last().expect("a hint"), "hint: the same command resumes the run");
    }
}
