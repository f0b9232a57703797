//! The rules that reward a policy on judgments, in two arms.
//!
//! `answers` uses the charge, the article and the penalty that the document states; every distinct case is metered.
//! `answer_free` uses the prompt alone and asks whether the answer agrees with the law and with the facts
//! ([`super::statute`]). In both, [`Form`] is a gate: a completion that the grader cannot parse scores 0.

use std::sync::Arc;

use super::answer::{Answer, is_known_charge};
use super::grade::{articles, f1, read};
use super::penalty::{Penalty, log_distance};
use super::statute::Statute;
use crate::rewards::{Evidence, Reads, Rule, RuleSet, Verdict};

/// The names of the arms.
pub const ARMS: [&str; 2] = ["answers", "answer_free"];

/// The set of an arm; `None` for an unknown name.
pub fn arm(name: &str) -> Option<RuleSet> {
    let gated = RuleSet::new().with_gate(Arc::new(Form), 0.0, 1.0);
    match name {
        "answers" => Some(
            gated
                .with(Arc::new(StatedCharge), 0.35)
                .with(Arc::new(StatedArticle), 0.15)
                .with(Arc::new(StatedPenalty), 0.5),
        ),
        "answer_free" => Some(gated.with(Arc::new(Statute), 1.0)),
        _ => None,
    }
}

/// `judgment_form`: the end token, one think and one answer block, three readable parts, charges that exist.
pub struct Form;

impl Rule for Form {
    fn name(&self) -> &str {
        "judgment_form"
    }

    fn reads(&self) -> Reads {
        Reads::Prompt
    }

    fn judge(&self, evidence: &Evidence) -> Verdict {
        match read(evidence.completion) {
            Err(reason) => Verdict::zero(reason),
            Ok((answer, _)) => match answer.charges.iter().find(|name| !is_known_charge(name)) {
                Some(name) => Verdict::zero(format!("there is no charge {name}")),
                None => Verdict::pass(true, "well formed"),
            },
        }
    }
}

/// The known and the given answer, or the verdict if one of them is missing.
fn compared(evidence: &Evidence) -> Result<(Answer, Answer, Penalty), Verdict> {
    let abstain = |reason: String| Verdict::Abstain { reason };
    let known = evidence.answer.ok_or_else(|| abstain("the case has no answer".to_string()))?;
    let known = Answer::parse(known).map_err(|reason| abstain(format!("the known answer: {reason}")))?;
    let (given, penalty) = read(evidence.completion).map_err(Verdict::zero)?;
    Ok((known, given, penalty))
}

/// `judgment_charge`: 1 if the set of charges equals the stated one, otherwise three tenths of their F1.
pub struct StatedCharge;

impl Rule for StatedCharge {
    fn name(&self) -> &str {
        "judgment_charge"
    }

    fn reads(&self) -> Reads {
        Reads::Answer
    }

    fn judge(&self, evidence: &Evidence) -> Verdict {
        let (known, given, _) = match compared(evidence) {
            Ok(compared) => compared,
            Err(verdict) => return verdict,
        };
        match f1(&given.charge_set(), &known.charge_set()) {
            1.0 => Verdict::pass(true, "charges as stated"),
            overlap => Verdict::score(
                0.3 * overlap,
                format!("{}, stated {}", given.charges.join("、"), known.charges.join("、")),
            ),
        }
    }
}

/// `judgment_article`: F1 of the articles. If the stated ones are plain numbers, suffixes such as 之一 are not compared.
pub struct StatedArticle;

impl Rule for StatedArticle {
    fn name(&self) -> &str {
        "judgment_article"
    }

    fn reads(&self) -> Reads {
        Reads::Answer
    }

    fn judge(&self, evidence: &Evidence) -> Verdict {
        let (known, given, _) = match compared(evidence) {
            Ok(compared) => compared,
            Err(verdict) => return verdict,
        };
        if known.articles.is_none() {
            return Verdict::Abstain { reason: "no article is stated".to_string() };
        }
        // CAIL2018 writes 133 for 第一百三十三条之一, so plain numbers match any suffix.
        let exact = f1(&articles(&given, true), &articles(&known, true));
        let plain = known.article_set().iter().all(|article| article.sub == 0);
        let governs =
            known.charges.iter().any(|charge| super::table::of_charge(charge).any(|tier| tier.article().sub > 0));
        let score =
            if plain && governs { exact.max(f1(&articles(&given, false), &articles(&known, false))) } else { exact };
        Verdict::score(score, format!("F1 of articles {score:.2}"))
    }
}

/// `judgment_penalty`: how near the penalty is to the stated one: 1 if it is equal, falling to 0 at a log-distance of
/// 0.4. It is 0 unless the charges equal the stated ones, so that a penalty earns nothing for a guessed charge.
pub struct StatedPenalty;

impl StatedPenalty {
    /// The log-distance from which the score is 0.
    pub const REACH: f64 = 0.4;
}

impl Rule for StatedPenalty {
    fn name(&self) -> &str {
        "judgment_penalty"
    }

    fn reads(&self) -> Reads {
        Reads::Answer
    }

    fn judge(&self, evidence: &Evidence) -> Verdict {
        let (known, given, penalty) = match compared(evidence) {
            Ok(compared) => compared,
            Err(verdict) => return verdict,
        };
        let Some(stated) = known.penalty else {
            return Verdict::Abstain { reason: "no penalty is stated".to_string() };
        };
        if given.charge_set() != known.charge_set() {
            return Verdict::zero("the charges are not the stated ones");
        }
        let term = |p: Penalty| matches!(p, Penalty::Detention(_) | Penalty::Imprisonment(_));
        let score = match (penalty, stated) {
            (a, b) if a == b => 1.0,
            (a, b) if term(a) && term(b) => (1.0 - log_distance(a, b) / StatedPenalty::REACH).max(0.0),
            _ => 0.0,
        };
        Verdict::score(score, format!("{penalty}, stated {stated}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reward(known: &str, text: &str) -> Option<f64> {
        let completion = crate::case::Completion::finished(text);
        arm("answers").unwrap().judge("案情", Some(known), &completion).reward
    }

    #[test]
    fn nearer_is_better_and_only_for_the_right_charge() {
        let known = "盗窃；第二百六十四条；有期徒刑一年";
        let of = |answer: &str| reward(known, &format!("<think></think><answer>{answer}</answer>")).unwrap();
        assert_eq!(of("盗窃；第二百六十四条；有期徒刑一年"), 1.0);
        let (near, far) = (of("盗窃；264；1年2月"), of("盗窃；264；3年"));
        assert!(1.0 > near && near > far && far == 0.5, "{near} {far}");
        assert_eq!(of("诈骗；266；有期徒刑一年"), 0.0);
        assert!(of("盗窃、诈骗；264、266；有期徒刑一年") < 0.2);
        assert_eq!(of("盗墓；264；有期徒刑一年"), 0.0);
        assert_eq!(of("盗窃；第二百六十四条；死刑"), 0.5);
    }

    #[test]
    fn what_no_source_states_is_not_judged() {
        let text = "<think></think><answer>盗窃；264；3年</answer>";
        assert_eq!(reward("盗窃；不详；不详", text), Some(1.0));
        let completion = crate::case::Completion::finished(text);
        assert_eq!(arm("answers").unwrap().judge("案情", None, &completion).reward, None);
    }

    #[test]
    fn arms_declare_what_they_read() {
        assert!(arm("answers").unwrap().reads_answers());
        assert!(!arm("answer_free").unwrap().reads_answers());
        assert!(arm("other").is_none());
    }
}
