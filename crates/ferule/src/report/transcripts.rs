//! Completions at several steps: the text, its verdicts, and the tokens that the teacher would not have chosen.
//!
//! A token's tint shows the probability that the teacher gave it: no tint from 0.5 on, and stronger ones below 0.5,
//! 0.2, 0.05 and 0.01. Tokens are tinted if the teacher's log-probabilities were stored and the tokens' texts are
//! known.
//!
//! Read next: [`super::page`].

use maud::{Markup, html};
use store::{Rollout, Verdict, VerdictOutcome};

use super::data::{StageTranscripts, Transcript};
use super::figures::{axis, count};
use super::words::Words;

/// One stage's completions.
pub fn section(stage: &StageTranscripts, words: &Words) -> Markup {
    let title = match stage.entries.len() {
        0 => return Markup::default(),
        1 => "",
        _ if stage.same_prompt => words.same_prompt,
        _ => words.different_prompts,
    };
    let tinted = stage.entries.iter().any(|e| e.rollout.logprobs_teacher.is_some() && e.pieces.is_some());
    html! {
        h3 { bdi { (stage.stage) } " " small { (title) } }
        @for (i, entry) in stage.entries.iter().enumerate() {
            @if i == 0 || !stage.same_prompt { (prompt(&entry.rollout, words)) }
            (completion(entry, words))
        }
        @if tinted { (legend(words)) }
    }
}

fn prompt(rollout: &Rollout, words: &Words) -> Markup {
    html! {
        blockquote.prompt dir="auto" {
            (rollout.prompt)
            @if let Some(answer) = &rollout.answer { p.answer { i { (words.answer) } " " bdi { (answer) } } }
        }
    }
}

fn completion(entry: &Transcript, words: &Words) -> Markup {
    let row = &entry.rollout;
    let reward = match (row.reward, &row.logprobs_teacher) {
        (Some(reward), _) => html! { (words.reward) " " b { (axis(reward)) } },
        (None, Some(teacher)) if !teacher.is_empty() => {
            let mean = teacher.iter().sum::<f32>() / teacher.len() as f32;
            html! { (words.agreement) " " b { (probability(mean)) } }
        }
        (None, _) if row.verdicts.is_empty() => html! { (words.not_judged) },
        (None, _) => html! { (words.no_reward) },
    };
    html! {
        article.completion {
            header {
                span { (words.step.replace("{}", &entry.step.to_string())) }
                span {
                    (reward) " · " (count(row.tokens.len() as u64)) " " (words.tokens)
                    @if !row.finished { " · " span.warn { (words.cut_short) } }
                }
            }
            pre dir="auto" { (text(entry, words)) }
            ul.verdicts { @for v in &row.verdicts { (verdict(v, words)) } }
        }
    }
}

fn verdict(v: &Verdict, words: &Words) -> Markup {
    let (class, value) = match (v.outcome, v.value) {
        (VerdictOutcome::Score, Some(value)) => ("score", axis(value)),
        (VerdictOutcome::Score, None) | (VerdictOutcome::Abstain, _) => ("abstain", words.abstained.to_owned()),
        (VerdictOutcome::Failed, _) => ("warn", words.failed.to_owned()),
        (VerdictOutcome::TimedOut, _) => ("warn", words.timed_out.to_owned()),
    };
    html! {
        li { span { bdi { (v.rule) } } " " b class=(class) { (value) } @if !v.reason.is_empty() { " " i { bdi { (v.reason) } } } }
    }
}

/// The completion, with each token tinted if possible.
fn text(entry: &Transcript, words: &Words) -> Markup {
    let row = &entry.rollout;
    let tokens = entry.pieces.as_ref().zip(row.logprobs_teacher.as_ref());
    let Some((pieces, teacher)) = tokens.filter(|(pieces, teacher)| pieces.len() == teacher.len()) else {
        return html! { (row.completion) };
    };
    html! {
        @for ((piece, &teacher), &own) in pieces.iter().zip(teacher).zip(&row.logprobs) {
            @let title =
                format!("{} {} · {} {}", words.teacher, probability(teacher), words.student, probability(own));
            span class={ "t" (tint(teacher)) } title=(title) { (piece) }
        }
    }
}

/// The tint of a token for the teacher's log-probability in nats: 0 for none … 4 for the strongest.
fn tint(logprob: f32) -> usize {
    [0.5f32, 0.2, 0.05, 0.01].iter().filter(|&&p| logprob < p.ln()).count()
}

fn probability(logprob: f32) -> String {
    axis((f64::from(logprob.exp()) * 1e4).round() / 1e4)
}

fn legend(words: &Words) -> Markup {
    let steps = ["≥ 0.5", "≥ 0.2", "≥ 0.05", "≥ 0.01", "< 0.01"];
    html! {
        p.legend {
            (words.tint_legend) " "
            @for (i, step) in steps.iter().enumerate() { span class={ "t" (i) } { (step) } " " }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tints_follow_the_teacher() {
        let tints = [0.9f32, 0.5, 0.3, 0.1, 0.02, 0.001, 0.0].map(|p| tint(p.ln()));
        assert_eq!(tints, [0, 0, 1, 2, 3, 4, 4]);
    }
}
