//! The trial of a rule set: degenerate completions, and the rewards that the set gives them.
//!
//! Every rule set that ships with Ferule must give each of them at most [`CEILING`]. A task adds its own (every charge
//! at once, the most frequent answer). If one earned more, a policy would learn it instead of the task.
//!
//! This is not the whole trial of a rule. Evaluation measures the agreement with people's verdicts, and stored rollouts
//! show what a trained policy has found.

use super::RuleSet;
use crate::case::{Case, Completion};

/// The highest reward that a degenerate completion may get.
pub const CEILING: f64 = 0.2;

/// A completion that deserves no reward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Degenerate {
    /// The name of the trick.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Whether it ends with the end token.
    pub finished: bool,
}

impl Degenerate {
    /// A degenerate completion that ends with the end token.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Degenerate {
        Degenerate { name: name.into(), text: text.into(), finished: true }
    }

    /// The completion that the rule set judges.
    pub fn completion(&self) -> Completion<'_> {
        Completion { finished: self.finished, ..Completion::finished(&self.text) }
    }
}

/// A degenerate completion to which a rule set gave too much reward.
#[derive(Debug, Clone, PartialEq)]
pub struct Loophole {
    /// The name of the trick.
    pub attack: String,
    /// The case's prompt.
    pub prompt: String,
    /// Its reward, above [`CEILING`].
    pub reward: f64,
}

/// The completions that no task should reward. `right` is a completion with the right answer, if one is known. Two
/// answer blocks, a right answer without an end token, and similar tricks are made from it.
pub fn degenerate(case: &Case, right: Option<&str>) -> Vec<Degenerate> {
    let prompt = case.prompt_text();
    let mut attacks = vec![
        Degenerate::new("empty", ""),
        Degenerate::new("format only", "<think></think><answer></answer>"),
        Degenerate::new("format with blanks", "<think> </think>\n<answer> </answer>"),
        Degenerate::new("format with a dash", "<think>…</think><answer>-</answer>"),
        Degenerate::new("copied prompt", prompt.as_str()),
        Degenerate::new("copied prompt as the answer", format!("<think>{prompt}</think><answer>{prompt}</answer>")),
        Degenerate::new("repeated", "嗯".repeat(200)),
        Degenerate::new("repeated blocks", "<think></think><answer></answer>".repeat(20)),
        Degenerate {
            name: "never ending".to_string(),
            text: format!("<think>{}", "想一想，".repeat(100)),
            finished: false,
        },
    ];
    if let Some(right) = right {
        attacks.extend([
            Degenerate::new("two answer blocks", format!("{right}<answer>x</answer>")),
            Degenerate::new("the right answer twice", format!("{right}{right}")),
            Degenerate::new("the right answer and more", format!("{right}等等")),
            Degenerate::new("text before the right answer", format!("好的。{right}")),
            Degenerate { name: "the right answer, cut short".to_string(), text: right.to_string(), finished: false },
            Degenerate::new("the right answer, unclosed", right.trim_end_matches("</answer>")),
        ]);
    }
    attacks
}

/// The degenerate completions of a case to which a rule set gives too much reward.
pub fn loopholes(rules: &RuleSet, case: &Case, attacks: &[Degenerate]) -> Vec<Loophole> {
    let prompt = case.prompt_text();
    let paid = attacks.iter().filter_map(|attack| {
        let reward = rules.judge(&prompt, case.answer.as_deref(), &attack.completion()).reward?;
        (reward > CEILING).then(|| Loophole { attack: attack.name.clone(), prompt: prompt.clone(), reward })
    });
    paid.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Prompt, Split};
    use crate::countdown::Countdown;
    use crate::idiom_chain::IdiomChain;
    use crate::judgment::Judgment;
    use crate::rewards::exact::Exact;
    use crate::rewards::format::Format;
    use crate::rewards::length::Length;
    use crate::task::Task;
    use std::sync::Arc;

    #[test]
    fn no_shipped_rule_set_pays_for_a_degenerate_completion() {
        let tasks: Vec<Box<dyn Task>> =
            vec![Box::new(Countdown::default()), Box::new(IdiomChain::default()), Box::new(Judgment::generated())];
        for task in &tasks {
            let arms: Vec<_> =
                ["answers", "answer_free"].iter().filter_map(|arm| Some((arm, task.rules(arm).ok()?))).collect();
            assert!(!arms.is_empty(), "{} has no arm", task.name());
            for (arm, rules) in arms {
                for case in task.cases(Split::Train, 40, 1).unwrap() {
                    let right = task.demonstration(&case);
                    let found = loopholes(&rules, &case, &degenerate(&case, right.as_deref()));
                    assert!(found.is_empty(), "{} {arm}: {found:#?}", task.name());
                    if let Some(right) = right {
                        let judged =
                            rules.judge(&case.prompt_text(), case.answer.as_deref(), &Completion::finished(&right));
                        assert!(judged.reward > Some(0.9), "{} {arm}: {right} {judged:?}", task.name());
                    }
                }
            }
        }
    }

    #[test]
    fn a_constant_answer_earns_little_where_cases_differ() {
        for (task, constant) in
            [(Box::new(Countdown::default()) as Box<dyn Task>, "1+1+1"), (Box::new(IdiomChain::default()), "一心一意")]
        {
            let rules = task.rules("answer_free").unwrap();
            let text = format!("<think>。</think><answer>{constant}</answer>");
            let cases = task.cases(Split::Train, 300, 2).unwrap();
            let total: f64 = cases
                .iter()
                .filter_map(|case| rules.judge(&case.prompt_text(), None, &Completion::finished(&text)).reward)
                .sum();
            assert!(total / cases.len() as f64 <= CEILING, "{}: {}", task.name(), total / cases.len() as f64);
        }
    }

    #[test]
    fn a_weak_set_is_found_out() {
        let case = Case {
            id: "0".into(),
            prompt: Prompt::Text("1+1=".into()),
            answer: Some("2".into()),
            record: serde_json::Value::Null,
        };
        let attacks = degenerate(&case, Some("<think>x</think><answer>2</answer>"));
        let weak = RuleSet::new().with(Arc::new(Length::default()), 1.0);
        assert!(loopholes(&weak, &case, &attacks).iter().any(|found| found.attack == "repeated"));
        let strict = RuleSet::new().with(Arc::new(Format::default()), 0.1).with(Arc::new(Exact::default()), 0.9);
        assert_eq!(loopholes(&strict, &case, &attacks), []);
    }
}
