//! `ferule pull`: a model from a Hugging Face-style hub into the cache. Only this command and `ferule serve` use the network.

use std::path::Path;

use super::machine;
use super::output::Output;
use crate::hub::{Cache, Client, RepositoryId, download, is_offline, model_in};
use crate::outcome::{WrongUse, failure};

/// What `ferule pull` is told.
#[derive(clap::Args)]
#[command(after_help = "\
Prints the folder of the model. Files that are there already are checked and not fetched again, and a download that was cut short
is resumed. HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_CACHE, HF_HUB_DOWNLOAD_TIMEOUT (how many seconds the hub may be
silent) and HF_HUB_OFFLINE are honoured.

    ferule pull Qwen/Qwen3-0.6B
    ferule pull bartowski/SmolLM2-135M-Instruct-GGUF --include '*Q8_0.gguf'")]
pub struct Arguments {
    /// OWNER/NAME on the hub
    repository: String,
    /// Branch, tag or commit
    #[arg(long, value_name = "NAME", default_value = "main")]
    revision: String,
    /// Fetch files that match this pattern instead of weights, configuration and tokenizer; `*` matches anything
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
}

/// Downloads the model and prints its path.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Some(id) = RepositoryId::parse(&arguments.repository) else {
        let problem = format!("`{}` is not the id of a repository", arguments.repository);
        return Err(WrongUse::error(problem, "write OWNER/NAME, such as Qwen/Qwen3-0.6B"));
    };
    let revision = &arguments.revision;
    if revision.is_empty() || revision.starts_with(['/', '.']) || revision.contains("..") {
        return Err(WrongUse::error(format!("`{revision}` is not a revision"), "give a branch, a tag or a commit"));
    }
    let cache = Cache::from_environment()?;
    if is_offline() {
        let Some(snapshot) = cache.whole_snapshot(&id, revision)? else {
            let problem = format!("{id} is not in {}, and HF_HUB_OFFLINE forbids the network", cache.root().display());
            return Err(failure(problem, "unset HF_HUB_OFFLINE, or bring the cache's folder from another machine"));
        };
        return print(&snapshot);
    }
    let client = Client::from_environment()?;
    let listing = client.list(&id, revision)?;
    let wanted = select(&listing.files, &arguments.include);
    if wanted.is_empty() {
        let what =
            if arguments.include.is_empty() { "safetensors or GGUF weights" } else { "file that matches --include" };
        let problem = format!("{id} at {} has no {what}", client.endpoint());
        return Err(failure(problem, format!("it has {}", abridged(&listing.files))));
    }
    let repository = cache.repository(&id);
    let mut received = 0;
    for path in &wanted {
        received += download(&client, &repository, &client.url(&id, &listing.commit, path)?, &listing.commit, path)?;
    }
    if *revision != listing.commit {
        repository
            .set_ref(revision, &listing.commit)
            .map_err(|error| anyhow::anyhow!("cannot write below {}: {error}", repository.folder().display()))?;
    }
    eprintln!("{id} at {}: {} files, {} fetched", &listing.commit[..12], wanted.len(), machine::readable(received));
    print(&repository.snapshot(&listing.commit))
}

fn print(snapshot: &Path) -> anyhow::Result<()> {
    let mut output = Output::stdout();
    output.text(&format!("{}\n", model_in(snapshot).display()))?;
    output.flush()
}

/// The files that a model needs: weights in the repository's root, and the files that belong to them.
fn select(files: &[String], include: &[String]) -> Vec<String> {
    let matching = |patterns: &[&str]| -> Vec<String> {
        files.iter().filter(|file| patterns.iter().any(|pattern| matches(pattern, file))).cloned().collect()
    };
    if !include.is_empty() {
        return matching(&include.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let in_root = |mut found: Vec<String>| {
        found.retain(|file| !file.contains('/'));
        found
    };
    // If all weights are in one file, shards beside it are not needed.
    let weights = match files.iter().any(|file| file == "model.safetensors") {
        true => vec!["model.safetensors".to_string()],
        false => in_root(matching(&["model-*.safetensors", "model.safetensors.index.json"])),
    };
    if weights.is_empty() {
        let files = in_root(matching(&["*.gguf"]));
        // With several quantisations, the user has to choose one.
        return if files.len() == 1 { files } else { Vec::new() };
    }
    let around = [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
        "LICENSE*",
    ];
    in_root(matching(&around)).into_iter().chain(weights).collect()
}

/// Whether `text` matches a pattern in which `*` matches any characters. The time is at most the product of both
/// lengths: only the last star ever has to take more.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on if what follows the last star does not match: after the star, and the text's next byte.
    let mut again = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            again = Some((p, t));
        } else if pattern.get(p) == Some(&text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((after, from)) = again {
            (p, t) = (after, from + 1);
            again = Some((p, t));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

fn abridged(files: &[String]) -> String {
    let shown: Vec<&str> = files.iter().take(8).map(String::as_str).collect();
    let more = if files.len() > 8 { format!(" and {} more", files.len() - 8) } else { String::new() };
    format!("{}{more}; choose with --include", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[&str]) -> Vec<String> {
        files.iter().map(|file| file.to_string()).collect()
    }

    #[test]
    fn a_star_matches_anything() {
        assert!(matches("*.gguf", "a.gguf") && matches("model-*-of-*.x", "model-1-of-2.x") && matches("*", ""));
        assert!(!matches("*.gguf", "a.gguf.txt") && !matches("a", "ab") && !matches("model-*", "mode"));
        assert!(matches("*模*b", "a模ab") && matches("**a**", "a") && matches("", "") && !matches("", "a"));
        assert!(
            !matches(&"*a".repeat(500), &"a".repeat(499)) && !matches(&("*a".repeat(500) + "b"), &"a".repeat(5000))
        );
    }

    #[test]
    fn weights_and_what_is_around_them_are_selected() {
        let files = names(&[
            "README.md",
            "config.json",
            "model.safetensors",
            "onnx/config.json",
            "pytorch_model.bin",
            "tokenizer.json",
        ]);
        assert_eq!(select(&files, &[]), names(&["config.json", "tokenizer.json", "model.safetensors"]));
        let shards = names(&[
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
        ]);
        assert_eq!(select(&shards, &[]), shards);
        assert_eq!(select(&names(&["a-Q4_0.gguf", "a-Q8_0.gguf"]), &[]), names(&[]));
        assert_eq!(select(&names(&["a-Q4_0.gguf", "a-Q8_0.gguf"]), &names(&["*Q8_0*"])), names(&["a-Q8_0.gguf"]));
        assert_eq!(select(&names(&["a.gguf", "README.md"]), &[]), names(&["a.gguf"]));
    }
}
