//! The task as a whole: splits, demonstrations, rewards, degenerate answers, real records.

mod degenerate;
mod trial;

use std::collections::HashSet;

use super::grade::Record;
use super::task::without_middle;
use super::wordings::bank;
use super::*;
use crate::case::{Case, Completion, Split};
use crate::task::{Task, TaskError};

fn cases(split: Split, n: usize) -> Vec<Case> {
    Judgment::generated().cases(split, n, 17).unwrap()
}

fn record(case: &Case) -> Record {
    serde_json::from_value(case.record.clone()).unwrap()
}

#[test]
fn a_longer_list_has_the_same_head() {
    for split in Split::ALL {
        let long = cases(split, 60);
        assert_eq!(cases(split, 20), long[..20]);
        let ids: HashSet<&String> = long.iter().map(|case| &case.id).collect();
        assert_eq!(ids.len(), 60);
        assert_ne!(Judgment::generated().cases(split, 20, 18).unwrap(), long[..20]);
    }
}

#[test]
fn no_text_belongs_to_two_splits_or_to_the_corpus() {
    let task = Judgment::generated();
    let mut owner = std::collections::HashMap::new();
    for split in Split::ALL {
        for seed in 0..3 {
            for case in task.cases(split, 400, seed).unwrap() {
                let other = owner.insert(record(&case).facts, split);
                assert!(other.is_none_or(|other| other == split), "{}", case.prompt_text());
            }
        }
    }
    let corpus: String = (0..3000).map(|index| task.corpus(index, 1).unwrap()).collect();
    for (facts, split) in owner {
        assert!(!corpus.contains(&facts), "{split:?} {facts}");
    }
}

#[test]
fn unseen_wordings_and_figures_stand_nowhere_else() {
    let task = Judgment::generated();
    let mut seen: String = (0..2000).map(|index| task.corpus(index, 3).unwrap()).collect();
    for split in [Split::Train, Split::Heldout, Split::Validation] {
        seen.extend(cases(split, 500).iter().map(Case::prompt_text));
    }
    let bank = bank();
    for name in bank.names.half(true).iter().chain(bank.victims.half(true)).chain(bank.places.half(true)) {
        assert!(!seen.contains(name), "{name}");
    }
    for charge in &bank.charges {
        for text in charge.scenes.iter().flat_map(|scene| scene.half(true)) {
            // The longest stretch between slots.
            let stretch = text.split(['{', '}']).max_by_key(|piece| piece.chars().count()).unwrap();
            assert!(stretch.chars().count() < 6 || !seen.contains(stretch), "{stretch}");
        }
    }
}

#[test]
fn every_demonstration_is_right_and_fully_rewarded() {
    let task = Judgment::generated();
    let (answers, free) = (task.rules("answers").unwrap(), task.rules("answer_free").unwrap());
    for split in [Split::Train, Split::Heldout, Split::Validation] {
        for case in cases(split, 600) {
            for text in [task.demonstration(&case).unwrap(), task.bare_answer(&case).unwrap()] {
                let completion = Completion::finished(&text);
                let grade = task.grade(&case, &completion);
                assert!(grade.correct, "{text} {grade:?}");
                assert!(
                    ["charge_f1", "article_f1", "in_range"].iter().all(|part| grade.parts[*part] == 1.0),
                    "{grade:?}"
                );
                let prompt = case.prompt_text();
                let judged = answers.judge(&prompt, case.answer.as_deref(), &completion);
                assert_eq!(judged.reward, Some(1.0), "{prompt}{text} {judged:?}");
                let judged = free.judge(&prompt, None, &completion);
                assert_eq!(judged.reward, Some(1.0), "{prompt}{text} {judged:?}");
            }
        }
    }
}

#[test]
fn degenerate_answers_score_low_under_every_arm() {
    let task = Judgment::generated();
    let cases = cases(Split::Train, 400);
    for arm in rules::ARMS {
        for (name, mean) in degenerate::mean_rewards(&task.rules(arm).unwrap(), &cases) {
            let limit = if name.contains("modal") || name.contains("copied prompt as") { 0.12 } else { 0.05 };
            assert!(mean.unwrap() <= limit, "{arm}: {name}: {mean:?}");
        }
    }
    for case in &cases {
        for answer in degenerate::suite(&case.prompt_text()) {
            let completion = Completion { text: &answer.text, finished: answer.finished, tokens: 1 };
            let grade = task.grade(case, &completion);
            let constant = matches!(answer.name, "modal answer" | "copied prompt as reasoning");
            assert!(constant || !grade.correct, "{} {grade:?}", answer.name);
        }
    }
}

#[test]
fn texts_are_short_enough_to_train_on() {
    let task = Judgment::generated();
    let cases = cases(Split::Train, 1000);
    let mean = |lengths: Vec<usize>| lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
    let prompts: Vec<usize> = cases.iter().map(|case| case.prompt_text().chars().count()).collect();
    let completions: Vec<usize> =
        cases.iter().map(|case| task.demonstration(case).unwrap().replace("<think>", "").chars().count()).collect();
    assert!(*prompts.iter().max().unwrap() <= 140);
    assert!(mean(prompts.clone()) < 90.0, "{}", mean(prompts));
    assert!(mean(completions.clone()) < 85.0, "{}", mean(completions));
}

#[test]
fn the_answer_free_rule_on_trial() {
    let seen = trial::trial(&cases(Split::Heldout, 500));
    assert_eq!((seen.abstained, seen.charges_agree, seen.penalties_agree), (0, 500, 500));
    // Unseen wordings. The word lists were written with them in view too, yet nothing in their construction makes the
    // rule an oracle there.
    let unseen = trial::trial(&cases(Split::HeldoutUnseen, 500));
    assert!(unseen.charges_agree >= 400, "{unseen:?}");
}

#[test]
fn real_records_are_split_graded_and_never_a_corpus() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cases.jsonl");
    let lines: Vec<String> = (0..200)
        .map(|i| match i % 2 {
            0 => format!(r#"{{"fact":"被告人张某第{i}次窃得手机一部。","charges":["盗窃"],"articles":[264],"months":10}}"#),
            _ => format!(
                r#"{{"fact":"被告人李某酒后驾车，第{i}号。","meta":{{"accusation":["危险驾驶"],"relevant_articles":[133],"term_of_imprisonment":{{"imprisonment":2,"life_imprisonment":false,"death_penalty":false}}}}}}"#
            ),
        })
        .collect();
    std::fs::write(&path, lines.join("\n")).unwrap();
    let task = Judgment::from_files(&[&path], None).unwrap();
    let of = |split| task.cases(split, 1000, 1).unwrap();
    let sizes = [of(Split::Train).len(), of(Split::Heldout).len(), of(Split::Validation).len()];
    assert_eq!(sizes.iter().sum::<usize>(), 200);
    assert!(sizes[0] > 110 && sizes[1] > 20 && sizes[2] > 5, "{sizes:?}");
    assert_eq!(task.cases(Split::Train, 5, 1).unwrap(), of(Split::Train)[..5]);
    assert!(matches!(task.cases(Split::HeldoutUnseen, 1, 1), Err(TaskError::EmptySplit(_))));
    assert_eq!(task.corpus(0, 0), None);
    let rules = task.rules("answers").unwrap();
    for case in of(Split::Train) {
        let text = task.demonstration(&case).unwrap();
        let completion = Completion::finished(&text);
        assert!(task.grade(&case, &completion).correct, "{text}");
        assert_eq!(rules.judge("", case.answer.as_deref(), &completion).reward, Some(1.0));
    }
    // A record that gives the number alone does not count the right suffix against an answer.
    let drunk = of(Split::Train).into_iter().find(|case| case.prompt_text().contains("酒后")).unwrap();
    let text = "<think></think><answer>危险驾驶；第一百三十三条之一；拘役二个月</answer>";
    assert_eq!(task.grade(&drunk, &Completion::finished(text)).parts["article_f1"], 1.0);
    assert_eq!(rules.judge("", drunk.answer.as_deref(), &Completion::finished(text)).reward, Some(1.0));
}

#[test]
fn long_facts_lose_their_middle_and_say_so() {
    let text: String = ('一'..).take(100).collect();
    let (short, cut) = without_middle(&text, 40);
    assert_eq!((short.chars().count(), cut), (40, 61));
    assert!(short.starts_with('一') && short.ends_with(text.chars().last().unwrap()));
    assert_eq!(without_middle(&text, 100), (text, 0));
}

#[test]
fn unknown_arms_and_files_are_named() {
    let message = Judgment::generated().rules("both").err().unwrap().to_string();
    assert!(message.contains("`both`") && message.contains("answer_free"), "{message}");
    let message = Judgment::from_files(&["no/such.jsonl"], None).err().unwrap().to_string();
    assert!(message.starts_with("files: no/such.jsonl: ") && message.contains("hint: "), "{message}");
}
