//! Completions at several steps: the text, its verdicts, and the tokens that the teacher would not have chosen.
//!
//! A token's tint shows the probability that the teacher gave it: no tint from 0.5 on, and stronger ones below 0.5,
//! 0.2, 0.05 and 0.01. Tokens are tinted if the teacher's log-probabilities were stored and the tokens' texts are
//! known.
//!
//! Read next: [`super::page`].

use std::fmt::Write;

use store::{Rollout, Verdict, VerdictOutcome};

use super::data::{StageTranscripts, Transcript};
use super::figures::{axis, count, escape};
use super::words::Words;

/// One stage's completions.
pub fn section(stage: &StageTranscripts, words: &Words) -> String {
    let Some(first) = stage.entries.first() else { return String::new() };
    let title = match stage.entries.len() {
        1 => "",
        _ if stage.same_prompt => words.same_prompt,
        _ => words.different_prompts,
    };
    let mut out = format!("<h3>{} <small>{title}</small></h3>", escape(&stage.stage));
    if stage.same_prompt {
        out.push_str(&prompt(&first.rollout, words));
    }
    for entry in &stage.entries {
        if !stage.same_prompt {
            out.push_str(&prompt(&entry.rollout, words));
        }
        out.push_str(&completion(entry, words));
    }
    let tinted = stage.entries.iter().any(|e| e.rollout.logprobs_teacher.is_some() && e.pieces.is_some());
    if tinted {
        out.push_str(&legend(words));
    }
    out
}

fn prompt(rollout: &Rollout, words: &Words) -> String {
    let answer =
        rollout.answer.as_ref().map(|a| format!("<p class=\"answer\"><i>{}</i> {}</p>", words.answer, escape(a)));
    format!("<blockquote class=\"prompt\">{}{}</blockquote>", escape(&rollout.prompt), answer.unwrap_or_default())
}

fn completion(entry: &Transcript, words: &Words) -> String {
    let row = &entry.rollout;
    let reward = match (row.reward, &row.logprobs_teacher) {
        (Some(reward), _) => format!("{} <b>{}</b>", words.reward, axis(reward)),
        (None, Some(teacher)) if !teacher.is_empty() => {
            let mean = teacher.iter().sum::<f32>() / teacher.len() as f32;
            format!("{} <b>{}</b>", words.agreement, probability(mean))
        }
        (None, _) if row.verdicts.is_empty() => words.not_judged.to_owned(),
        (None, _) => words.no_reward.to_owned(),
    };
    let cut = if row.finished { String::new() } else { format!(" · <span class=\"warn\">{}</span>", words.cut_short) };
    let verdicts: String = row.verdicts.iter().map(|v| verdict(v, words)).collect();
    format!(
        "<article class=\"completion\"><header><span>{}</span><span>{reward} · {} {}{cut}</span></header>\
         <pre>{}</pre><ul class=\"verdicts\">{verdicts}</ul></article>",
        words.step.replace("{}", &entry.step.to_string()),
        count(row.tokens.len() as u64),
        words.tokens,
        text(entry, words),
    )
}

fn verdict(v: &Verdict, words: &Words) -> String {
    let (class, value) = match (v.outcome, v.value) {
        (VerdictOutcome::Score, Some(value)) => ("score", axis(value)),
        (VerdictOutcome::Score, None) | (VerdictOutcome::Abstain, _) => ("abstain", words.abstained.to_owned()),
        (VerdictOutcome::Failed, _) => ("warn", words.failed.to_owned()),
        (VerdictOutcome::TimedOut, _) => ("warn", words.timed_out.to_owned()),
    };
    let reason = if v.reason.is_empty() { String::new() } else { format!(" <i>{}</i>", escape(&v.reason)) };
    format!("<li><span>{}</span> <b class=\"{class}\">{value}</b>{reason}</li>", escape(&v.rule))
}

/// The completion, with each token tinted if possible.
fn text(entry: &Transcript, words: &Words) -> String {
    let row = &entry.rollout;
    let (Some(pieces), Some(teacher)) = (&entry.pieces, &row.logprobs_teacher) else { return escape(&row.completion) };
    if pieces.len() != teacher.len() {
        return escape(&row.completion);
    }
    let mut out = String::new();
    for ((piece, &teacher), &own) in pieces.iter().zip(teacher).zip(&row.logprobs) {
        let title = format!("{} {} · {} {}", words.teacher, probability(teacher), words.student, probability(own));
        write!(out, "<span class=\"t{}\" title=\"{title}\">{}</span>", tint(teacher), escape(piece))
            .expect("a string takes all");
    }
    out
}

/// The tint of a token for the teacher's log-probability in nats: 0 for none … 4 for the strongest.
fn tint(logprob: f32) -> usize {
    [0.5f32, 0.2, 0.05, 0.01].iter().filter(|&&p| logprob < p.ln()).count()
}

fn probability(logprob: f32) -> String {
    axis((f64::from(logprob.exp()) * 1e4).round() / 1e4)
}

fn legend(words: &Words) -> String {
    let steps = ["≥ 0.5", "≥ 0.2", "≥ 0.05", "≥ 0.01", "< 0.01"];
    let keys: String = steps.iter().enumerate().map(|(i, s)| format!("<span class=\"t{i}\">{s}</span> ")).collect();
    format!("<p class=\"legend\">{} {keys}</p>", words.tint_legend)
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
