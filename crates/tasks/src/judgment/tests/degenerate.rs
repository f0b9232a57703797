//! Degenerate answers: what a policy writes once it has found a hole in its reward. Every rule set that ships with
//! Ferule must give each of them a low mean reward over cases, and the grader must give them a low accuracy.

use crate::case::{Case, Completion};
use crate::judgment::article::Article;
use crate::judgment::table;
use crate::judgment::wordings::bank;
use crate::rewards::RuleSet;

/// A degenerate completion of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Degenerate {
    /// The name of the trick.
    pub name: &'static str,
    /// The completion's text.
    pub text: String,
    /// Whether it ends with the end token.
    pub finished: bool,
}

/// The suite for one prompt.
pub fn suite(prompt: &str) -> Vec<Degenerate> {
    let wrap = |answer: &str| format!("<think></think><answer>{answer}</answer>");
    let modal = "盗窃；第二百六十四条；有期徒刑一年";
    let every_charge: Vec<&str> = bank().charges.iter().map(|charge| charge.name.as_str()).collect();
    let mut every_article: Vec<Article> = table::tiers().iter().map(table::Tier::article).collect();
    every_article.sort_unstable();
    every_article.dedup();
    let every_article: Vec<String> = every_article.iter().map(Article::to_string).collect();
    let every = format!("{}；{}；有期徒刑三年", every_charge.join("、"), every_article.join("、"));
    let of = |name: &'static str, text: String| Degenerate { name, text, finished: true };
    vec![
        of("empty", String::new()),
        of("empty blocks", wrap("")),
        of("format only", wrap("；；")),
        of("unknown parts", wrap("不详；不详；不详")),
        of("widest range", wrap("盗窃；第二百六十四条；有期徒刑六个月至十五年")),
        of("every charge", wrap(&every)),
        of("modal answer", wrap(modal)),
        of("copied prompt", prompt.to_string()),
        of("copied prompt in blocks", wrap(prompt)),
        of("copied prompt as reasoning", format!("<think>{prompt}</think><answer>{modal}</answer>")),
        of("two answer blocks", format!("{}{}", wrap(modal), wrap("诈骗；第二百六十六条；有期徒刑三年"))),
        of("answer in an answer", wrap(&format!("<answer>{modal}</answer>"))),
        of("text after the answer", format!("{}以上。", wrap(modal))),
        of("no reasoning block", format!("<answer>{modal}</answer>")),
        of("invented charge", wrap("坏事；第二百六十四条；有期徒刑一年")),
        of("impossible term", wrap("盗窃；第二百六十四条；有期徒刑九十九年")),
        Degenerate { name: "never ends", text: wrap(modal), finished: false },
    ]
}

/// The mean reward of each degenerate answer over cases, by name. Cases without a reward (abstentions) are left out of
/// the mean, which is `None` if no case has one.
pub fn mean_rewards(rules: &RuleSet, cases: &[Case]) -> Vec<(&'static str, Option<f64>)> {
    let mut sums: Vec<(&'static str, f64, usize)> = Vec::new();
    for case in cases {
        let prompt = case.prompt_text();
        for (index, degenerate) in suite(&prompt).into_iter().enumerate() {
            if sums.len() == index {
                sums.push((degenerate.name, 0.0, 0));
            }
            let tokens = degenerate.text.chars().count();
            let completion = Completion { text: &degenerate.text, finished: degenerate.finished, tokens };
            if let Some(reward) = rules.judge(&prompt, case.answer.as_deref(), &completion).reward {
                sums[index].1 += reward;
                sums[index].2 += 1;
            }
        }
    }
    sums.into_iter().map(|(name, sum, n)| (name, (n > 0).then(|| sum / n as f64))).collect()
}
