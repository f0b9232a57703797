//! Countdown: reach a target with given numbers and + − × ÷, using each number once. The usual small task of R1-Zero
//! replications.
//!
//! The prompt is `拿3、5、7凑22。`, the completion `<think>3*5=15，15+7=22。</think><answer>3*5+7</answer>`. No case has an answer:
//! the rule works from the prompt alone.
//!
//! **Splits** depend on a case's content: its target, and its numbers in any order. The corpus has a part of its own.
//! It holds equations in prose and three kinds of exercise: compute a result; write a sum with a given result; make any
//! sum of given numbers. It never contains the form of the prompt. `heldout_unseen` words the question differently and
//! has one number above the range.
//!
//! Read next: [`crate::rewards::countdown`] (the rule).

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use kernels::rng::{Key, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::case::{Case, Completion, Grade, Prompt, Split};
use crate::partition::{self, Part};
use crate::refusal::Refusal;
use crate::rewards::countdown::{self, CountdownConfig};
use crate::rewards::format::Format;
use crate::rewards::{Evidence, Rule, RuleSet, answer};
use crate::task::{Configured, Task, TaskError};

const NAME: &str = "countdown";
/// Draws without a new case after which a split counts as exhausted.
const ATTEMPTS: u64 = 20_000;

/// The share of exercises among the corpus's documents.
const EXERCISES: f64 = 0.8;

/// The keys of the task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CountdownKeys {
    /// How many numbers are given.
    #[schemars(range(min = 2, max = 6))]
    pub numbers: usize,
    /// The greatest number.
    #[schemars(range(min = 2, max = 10_000))]
    pub max_number: i64,
    /// The greatest target.
    #[schemars(range(min = 2, max = 1_000_000))]
    pub max_target: i64,
    /// The operations, some of `+-*/`. Division is drawn only where it leaves no remainder.
    pub operations: String,
}

impl Default for CountdownKeys {
    fn default() -> CountdownKeys {
        CountdownKeys { numbers: 3, max_number: 25, max_target: 99, operations: "+-*".to_string() }
    }
}

/// The task. See the module.
#[derive(Debug, Clone)]
pub struct Countdown {
    settings: CountdownKeys,
    operations: Vec<char>,
}

impl Default for Countdown {
    fn default() -> Countdown {
        Countdown { operations: vec!['+', '-', '*'], settings: CountdownKeys::default() }
    }
}

/// One way to reach a target, as it was drawn.
#[derive(Debug, Clone)]
struct Solution {
    numbers: Vec<i64>,
    target: i64,
    expression: String,
    /// The steps, one per operation, such as `3*5=15`.
    steps: Vec<String>,
}

/// A partial result while drawing: its value, how it is written, and its last operation.
struct Node {
    value: i64,
    text: String,
    operation: Option<char>,
}

impl Countdown {
    /// The task with these keys. Their numbers must be in range.
    ///
    /// # Errors
    /// No operation, or one that is not in `+-*/`.
    pub fn new(settings: CountdownKeys) -> Result<Countdown, Refusal> {
        let operations: Vec<char> = settings.operations.chars().collect();
        if operations.is_empty() || operations.iter().any(|operation| !"+-*/".contains(*operation)) {
            let problem = format!("\"{}\" is not some of + - * /", settings.operations);
            return Err(Refusal::new(problem, "for example \"+-*\"").in_key("operations"));
        }
        Ok(Countdown { settings, operations })
    }

    /// Draws numbers, combines them in random order, and takes the result as the target. `None` if it is out of range.
    fn draw(&self, unseen: bool, draws: &mut Stream) -> Option<Solution> {
        let mut numbers: Vec<i64> =
            (0..self.settings.numbers).map(|_| draws.between(1, self.settings.max_number)).collect();
        if unseen {
            let above = self.settings.max_number + draws.between(1, (self.settings.max_number / 4).max(1));
            let place = draws.below(numbers.len() as u64) as usize;
            numbers[place] = above;
        }
        let mut nodes: Vec<Node> =
            numbers.iter().map(|value| Node { value: *value, text: value.to_string(), operation: None }).collect();
        let mut steps = Vec::new();
        while nodes.len() > 1 {
            let left = nodes.swap_remove(draws.below(nodes.len() as u64) as usize);
            let right = nodes.swap_remove(draws.below(nodes.len() as u64) as usize);
            let operation = *draws.pick(&self.operations);
            let value = match operation {
                '+' => left.value + right.value,
                '-' => left.value - right.value,
                '*' => left.value.checked_mul(right.value)?,
                _ if left.value % right.value == 0 => left.value / right.value,
                _ => return None,
            };
            // Intermediate results stay positive and near the range, as they do when a person calculates.
            if value <= 0 || value > self.settings.max_target * 4 {
                return None;
            }
            steps.push(format!("{}{operation}{}={value}", left.value, right.value));
            nodes.push(join(left, operation, right, value));
        }
        let root = nodes.pop()?;
        let trivial = numbers.contains(&root.value);
        (root.value <= self.settings.max_target && !trivial).then_some(Solution {
            numbers,
            target: root.value,
            expression: root.text,
            steps,
        })
    }

    fn case(&self, solution: &Solution, unseen: bool) -> Case {
        let prompt = if unseen { unseen_prompt(solution) } else { prompt(&solution.numbers, solution.target) };
        Case {
            id: partition::id(&content(&solution.numbers, solution.target)),
            prompt: Prompt::Text(prompt),
            answer: None,
            record: serde_json::json!({
                "numbers": solution.numbers, "target": solution.target, "expression": solution.expression, "steps": solution.steps,
            }),
        }
    }

    /// A sum from the corpus's part.
    fn corpus_solution(&self, draws: &mut Stream) -> Solution {
        loop {
            match self.draw(false, draws) {
                Some(found) if partition::generated(&content(&found.numbers, found.target)) == Part::Corpus => {
                    return found;
                }
                _ => {}
            }
        }
    }

    /// A sentence of the corpus with one sum from the corpus's part.
    fn sentence(&self, draws: &mut Stream) -> String {
        if self.settings.numbers > 2 && draws.chance(0.25) {
            return self.simple_sum(draws);
        }
        let solution = self.corpus_solution(draws);
        let Solution { target, expression, .. } = &solution;
        let steps = solution.steps.join("，");
        match draws.below(4) {
            0 => format!("先算{steps}，所以{expression}={target}。"),
            1 => format!("{target}可以写成{expression}。"),
            2 => format!("{expression}的结果是{target}，因为{steps}。"),
            _ => format!("要凑出{target}，就写{expression}：{steps}。"),
        }
    }

    /// An exercise of another kind with its answer, a document of its own.
    fn exercise(&self, draws: &mut Stream) -> String {
        let Solution { numbers, target, expression, steps } = self.corpus_solution(draws);
        let steps = steps.join("，");
        match draws.below(6) {
            0 => format!("算一算{expression}。<think>{steps}。</think><answer>{target}</answer>"),
            1 => format!("凑{target}。<think>{steps}。</think><answer>{expression}</answer>"),
            _ => format!("拿{}随便算。<think>{steps}。</think><answer>{expression}</answer>", listed(&numbers)),
        }
    }

    /// A sum of two numbers. It reveals no case if cases have more than two numbers.
    fn simple_sum(&self, draws: &mut Stream) -> String {
        let (a, b) = (draws.between(1, self.settings.max_target), draws.between(1, self.settings.max_number));
        let (text, value) = match draws.below(3) {
            0 => (format!("{a}+{b}"), a + b),
            1 if a > b => (format!("{a}-{b}"), a - b),
            _ => (format!("{b}*{}", a % self.settings.max_number + 1), b * (a % self.settings.max_number + 1)),
        };
        match draws.chance(0.5) {
            true => format!("{text}={value}。"),
            false => format!("{value}等于{text}。"),
        }
    }
}

/// Writes `left operation right` with the necessary brackets only.
fn join(left: Node, operation: char, right: Node, value: i64) -> Node {
    let rank = |operation: Option<char>| match operation {
        Some('+' | '-') => 1,
        Some(_) => 2,
        None => 3,
    };
    let own = rank(Some(operation));
    let left_text = if rank(left.operation) < own { format!("({})", left.text) } else { left.text };
    let tight = rank(right.operation) < own || rank(right.operation) == own && matches!(operation, '-' | '/');
    let right_text = if tight { format!("({})", right.text) } else { right.text };
    Node { value, text: format!("{left_text}{operation}{right_text}"), operation: Some(operation) }
}

/// The content by which two cases are equal: the numbers in any order, and the target.
fn content(numbers: &[i64], target: i64) -> String {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    format!("{NAME} {sorted:?} {target}")
}

fn listed(numbers: &[i64]) -> String {
    numbers.iter().map(i64::to_string).collect::<Vec<_>>().join("、")
}

/// The prompt for given numbers and a target.
pub fn prompt(numbers: &[i64], target: i64) -> String {
    format!("拿{}凑{target}。", listed(numbers))
}

/// The same question in words that training never contains.
fn unseen_prompt(solution: &Solution) -> String {
    format!("手上有{}，每个数恰好用一次，怎样列式才等于{}？", listed(&solution.numbers), solution.target)
}

impl Task for Countdown {
    fn name(&self) -> &str {
        NAME
    }

    fn cases(&self, split: Split, n: usize, seed: u64) -> Result<Vec<Case>, TaskError> {
        let unseen = split == Split::HeldoutUnseen;
        let key = Key::new(seed).word(NAME).word(split.name());
        let (mut cases, mut seen, mut misses) = (Vec::with_capacity(n.min(1 << 16)), HashSet::new(), 0);
        for index in 0.. {
            if cases.len() == n || misses == ATTEMPTS {
                break;
            }
            let drawn = self.draw(unseen, &mut key.number(index).stream()).filter(|solution| {
                unseen || partition::generated(&content(&solution.numbers, solution.target)) == Part::Split(split)
            });
            match drawn.map(|solution| self.case(&solution, unseen)).filter(|case| seen.insert(case.id.clone())) {
                Some(case) => (cases.push(case), misses = 0).1,
                None => misses += 1,
            }
        }
        match cases.is_empty() && n > 0 {
            true => Err(TaskError::empty_split(NAME, split, "widen max_number or max_target")),
            false => Ok(cases),
        }
    }

    fn demonstration(&self, case: &Case) -> Option<String> {
        let steps: Vec<&str> = case.record["steps"].as_array()?.iter().filter_map(|step| step.as_str()).collect();
        let expression = case.record["expression"].as_str()?;
        Some(format!("<think>{}。</think><answer>{expression}</answer>", steps.join("，")))
    }

    fn bare_answer(&self, case: &Case) -> Option<String> {
        Some(format!("<think></think><answer>{}</answer>", case.record["expression"].as_str()?))
    }

    fn corpus(&self, index: u64, seed: u64) -> Option<String> {
        let mut draws = Key::new(seed).word(NAME).word("corpus").number(index).stream();
        if draws.chance(EXERCISES) {
            return Some(self.exercise(&mut draws));
        }
        let sentences = draws.between(3, 6);
        Some((0..sentences).map(|_| self.sentence(&mut draws)).collect())
    }

    fn grade(&self, case: &Case, completion: &Completion) -> Grade {
        let prompt = case.prompt_text();
        let rule = countdown::Countdown::new(CountdownConfig { partial: 0.1, ..Default::default() });
        let verdict = rule.judge(&Evidence { prompt: &prompt, answer: None, completion });
        let blocks = answer::blocks(completion);
        let formed = blocks.as_ref().is_ok_and(|blocks| blocks.think.is_some());
        let value = verdict.value().unwrap_or(0.0);
        let flag = |on: bool| f64::from(u8::from(on));
        Grade {
            correct: formed && value == 1.0,
            parts: BTreeMap::from([
                ("format".to_string(), flag(formed)),
                ("uses_the_numbers".to_string(), flag(value > 0.0)),
            ]),
            reason: verdict.reason().to_string(),
            answer_key: blocks.ok().map(|blocks| blocks.answer.to_string()).filter(|answer| !answer.is_empty()),
        }
    }

    fn rules(&self, arm: &str) -> Result<RuleSet, TaskError> {
        match arm {
            "answer_free" => Ok(RuleSet::new()
                .with(Arc::new(Format::default()), 0.1)
                .with(Arc::new(countdown::Countdown::default()), 0.9)),
            _ => Err(TaskError::unknown_arm(NAME, arm, Self::ARMS)),
        }
    }
}

impl Configured for Countdown {
    const NAME: &'static str = NAME;
    const SUMMARY: &'static str =
        "Reach a target with given numbers and + − × ÷, each number used once; the cases are generated.";
    const ARMS: &'static [&'static str] = &["answer_free"];
    type Keys = CountdownKeys;

    fn build(keys: CountdownKeys, _: &Path) -> Result<Countdown, Refusal> {
        Countdown::new(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(numbers: usize, operations: &str) -> Countdown {
        Countdown::new(CountdownKeys { numbers, operations: operations.to_string(), ..Default::default() }).unwrap()
    }

    #[test]
    fn cases_are_solvable_deterministic_and_disjoint() {
        for task in [Countdown::default(), with(4, "+-*/")] {
            let mut ids: HashSet<String> = HashSet::new();
            for split in Split::ALL {
                let cases = task.cases(split, 400, 3).unwrap();
                assert_eq!(cases.len(), 400, "{split:?}");
                assert_eq!(cases[..100], task.cases(split, 100, 3).unwrap()[..]);
                for case in &cases {
                    assert!(ids.insert(case.id.clone()), "a case stands in two splits or twice: {case:?}");
                    for text in [task.demonstration(case).unwrap(), task.bare_answer(case).unwrap()] {
                        let grade = task.grade(case, &Completion::finished(&text));
                        assert!(grade.correct, "{case:?} {text} {grade:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_corpus_gives_no_case_away() {
        let task = Countdown::default();
        let mut sums = 0;
        for index in 0..2000 {
            let text = task.corpus(index, 5).unwrap();
            let asked = text.split('拿').skip(1).filter_map(|rest| rest.split('。').next());
            assert!(
                asked.into_iter().all(|asked| !asked.contains('凑')),
                "the prompt's form stands in the corpus: {text}"
            );
            for run in text.split(|c: char| !"0123456789+-*/()".contains(c)).filter(|run| run.contains(['+', '-', '*']))
            {
                let found = crate::rewards::expression::evaluate(run).unwrap();
                if found.numbers.len() == 3 {
                    let numbers: Vec<i64> = found.numbers.iter().map(|number| number.to_f64() as i64).collect();
                    let part = partition::generated(&content(&numbers, found.value.to_f64() as i64));
                    assert_eq!(part, Part::Corpus, "{run}");
                    sums += 1;
                }
            }
        }
        assert!(sums > 2000, "{sums}");
    }

    #[test]
    fn brackets_are_written_where_needed() {
        let leaf = |value: i64| Node { value, text: value.to_string(), operation: None };
        let sum = || join(leaf(1), '+', leaf(2), 3);
        assert_eq!(join(sum(), '*', leaf(3), 9).text, "(1+2)*3");
        assert_eq!(join(leaf(9), '-', sum(), 6).text, "9-(1+2)");
        assert_eq!(join(leaf(9), '+', sum(), 12).text, "9+1+2");
        assert_eq!(join(leaf(8), '/', join(leaf(2), '*', leaf(2), 4), 2).text, "8/(2*2)");
    }

    #[test]
    fn settings_that_cannot_hold_are_refused() {
        let operations = |operations: &str| CountdownKeys { operations: operations.into(), ..Default::default() };
        assert!(Countdown::new(operations("*/")).is_ok());
        for settings in ["^", ""].map(operations) {
            assert_eq!(Countdown::new(settings).expect_err("refused").place.key(), "operations");
        }
    }
}
