//! The pages for users hold what they show: every command of README and `docs/` runs, and every link leads somewhere.
//!
//! A fenced block says in its first line what is done with it, in the page's order, in a folder of the page's own:
//!
//! | block | what is done |
//! |---|---|
//! | `sh run` | run by `bash -e`, which must exit with 0 |
//! | `sh run=2` | the same, which must exit with 2 |
//! | `text output` | its lines must occur in this order in what the last command wrote; `…` stands for any text |
//! | `toml file=NAME` | written to that file, whatever its language |
//! | `sh no-run: REASON` | shown only; the reason is printed |
//!
//! A block of `sh` without one of these is a mistake. Blocks of other languages are only shown.
//!
//! The folder begins with the repository's recipes, made small enough to run in seconds.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Keys of the shipped recipes, and the most that a page's copy of them keeps.
const SMALL: &[(&str, i64)] = &[
    ("cases", 20),
    ("completions_per_prompt", 2),
    ("documents", 400),
    ("hidden_size", 32),
    ("num_attention_heads", 2),
    ("num_hidden_layers", 2),
    ("prompts_per_step", 2),
    ("steps", 2),
    ("tokens", 150_000),
    ("validation_cases", 10),
];

struct Block {
    line: usize,
    info: String,
    text: String,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository")
}

/// README in both languages, and all of `docs/`.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = ["README.md", "README.zh-CN.md"].map(|name| repository().join(name)).into();
    let mut folders = vec![repository().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            match entry.is_dir() {
                true => folders.push(entry),
                false => pages.extend(Some(entry).filter(|path| path.extension().is_some_and(|end| end == "md"))),
            }
        }
    }
    pages.sort();
    pages
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((line, first)) = lines.next() {
        let Some(info) = first.strip_prefix("```") else { continue };
        let inside = lines.by_ref().map(|(_, text)| text).take_while(|text| *text != "```");
        blocks.push(Block {
            line: line + 1,
            info: info.into(),
            text: inside.map(|text| format!("{text}\n")).collect(),
        });
    }
    blocks
}

/// Copies the recipes, with their sizes cut down.
fn small_recipes(folder: &Path) {
    fs::create_dir(folder.join("recipes")).expect("a folder");
    for entry in fs::read_dir(repository().join("recipes")).expect("the recipes").map(|entry| entry.expect("an entry"))
    {
        let text = fs::read_to_string(entry.path()).expect("a recipe");
        let mut recipe = toml::Value::Table(text.parse().expect("a recipe is TOML"));
        shrink(&mut recipe);
        let text = toml::to_string(&recipe).expect("still TOML");
        fs::write(folder.join("recipes").join(entry.file_name()), text).expect("a file");
    }
}

fn shrink(value: &mut toml::Value) {
    match value {
        toml::Value::Table(table) => table.iter_mut().for_each(|(key, value)| {
            match (value.as_integer(), SMALL.iter().find(|(name, _)| name == key)) {
                (Some(size), Some((_, most))) => *value = size.min(*most).into(),
                _ => shrink(value),
            }
        }),
        toml::Value::Array(list) => list.iter_mut().for_each(shrink),
        _ => {}
    }
}

/// Runs a script; its exit code and everything that it wrote.
fn sh(script: &str, folder: &Path) -> (i32, String) {
    let binary = Path::new(env!("CARGO_BIN_EXE_ferule")).parent().expect("a folder").to_path_buf();
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([binary].into_iter().chain(std::env::split_paths(&inherited))).expect("a path");
    let mut command = Command::new("bash");
    command.args(["-eo", "pipefail", "-c", &format!("exec 2>&1\n{script}")]).current_dir(folder).stdin(Stdio::null());
    for name in ["FERULE_ISA", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_CACHE"] {
        command.env_remove(name);
    }
    let output = command.env("PATH", path).env("HOME", folder).env("HF_HOME", folder).output().expect("sh starts");
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether the lines of `expected` occur in `written`, in this order.
fn occurs(expected: &str, written: &str) -> bool {
    let mut lines = written.lines();
    expected.lines().all(|pattern| lines.any(|line| matches(pattern.trim_end(), line.trim_end())))
}

/// Whether a line is the pattern, in which `…` stands for any text.
fn matches(pattern: &str, line: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('…') else { return pattern == line };
    let Some(line) = line.strip_prefix(first) else { return false };
    line.char_indices().map(|(at, _)| at).chain([line.len()]).any(|at| matches(rest, &line[at..]))
}

/// What is wrong with a page's blocks; counts what it ran.
fn faults(page: &Path, ran: &mut usize) -> Vec<String> {
    let blocks = blocks(&fs::read_to_string(page).expect("a page"));
    let folder = tempfile::tempdir().expect("a folder");
    small_recipes(folder.path());
    let mut faults = Vec::new();
    let mut written = String::new();
    for Block { line, info, text } in &blocks {
        let place = format!("{}:{line}", page.display());
        let (language, what) = info.split_once(' ').unwrap_or((info, ""));
        if let Some(file) = what.strip_prefix("file=") {
            fs::write(folder.path().join(file), text).expect("a file");
        } else if what == "output" {
            if !occurs(text, &written) {
                faults.push(format!("{place}: the page shows\n{text}and the command wrote\n{written}"));
            }
        } else if language != "sh" {
            continue;
        } else if let Some(reason) = what.strip_prefix("no-run: ") {
            println!("{place} is not run: {reason}");
        } else if let Some(code) = match what.strip_prefix("run=") {
            Some(code) => code.parse().ok(),
            None => (what == "run").then_some(0),
        } {
            *ran += 1;
            let (found, output) = sh(text, folder.path());
            if found != code {
                faults.push(format!("{place}: exit code {found} where {code} is expected\n{text}\n{output}"));
            }
            written = output;
        } else {
            faults.push(format!("{place}: write `sh run` or `sh no-run: REASON`, not `{info}`"));
        }
    }
    faults
}

#[test]
fn every_command_of_the_pages_runs() {
    let mut ran = 0;
    let faults: Vec<String> = pages().iter().flat_map(|page| faults(page, &mut ran)).collect();
    println!("{ran} blocks ran");
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
    assert!(ran > 0, "no page has a block to run");
}

#[test]
fn every_link_of_the_pages_leads_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            let outside = file.is_empty() || file.contains("://");
            if !outside && !page.parent().expect("a folder").join(file).exists() {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn a_page_that_is_wrong_fails() {
    let written = "one\ntwo 12 s\nthree\n";
    assert!(occurs("one\ntwo … s\n", written) && occurs("…o … s\nthree", written));
    assert!(!occurs("two … s\none\n", written), "the order counts");
    assert!(!occurs("two … m\n", written) && !occurs("tw\n", written), "whole lines count");
    let page = tempfile::NamedTempFile::new().expect("a file");
    for (wrong, expect) in [
        ("```sh run\nferule no-such-command\n```\n", "exit code 2 where 0"),
        ("```sh run=2\nferule --version\n```\n", "exit code 0 where 2"),
        ("```sh run\nferule --version\n```\n```text output\nferule 9\n```\n", "the page shows"),
        ("```sh\nferule --version\n```\n", "not `sh`"),
    ] {
        fs::write(page.path(), wrong).expect("a file");
        let faults = faults(page.path(), &mut 0);
        assert!(faults.len() == 1 && faults[0].contains(expect), "{faults:?}");
    }
    let right = "```toml file=a.toml\nx = 1\n```\n```sh run\ncat a.toml | grep x\n```\n```text output\nx = …\n```\n";
    fs::write(page.path(), right).expect("a file");
    assert_eq!(faults(page.path(), &mut 0), [""; 0]);
}
