//! Idiom chain (成语接龙): each idiom begins with the last character of the one before; the dictionary is the rule.
//!
//! In a single move the prompt is `接龙：一心一意，意气风发。` and the completion is `<think>末字是发。</think><answer>发扬光大</answer>`.
//! [`Game`] is the environment for episodes of several turns. No case has an answer, since many are right.
//!
//! The corpus holds idioms in prose, and exercises of other kinds with their answers (fill the gaps of an idiom; name
//! its last character).
//!
//! **Splits** depend on the idiom that the answer has to follow. For an idiom of the corpus's half, the corpus may show
//! one that follows it. It never does so for an idiom of a split, so training never shows the step that a case asks
//! for. Every idiom may occur alone in the corpus, since a model has to know the dictionary. The form of the prompt
//! never occurs in the corpus. `heldout_unseen` words the question differently and has longer chains.
//!
//! Read next: [`crate::rewards::dictionary`] (the rule), [`crate::environment`] (the trait of environments).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kernels::rng::{Key, Stream};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::case::{Case, Completion, Grade, Prompt, Split};
use crate::environment::{Environment, Reply};
use crate::partition::{self, Part};
use crate::paths::located;
use crate::refusal::Refusal;
use crate::rewards::dictionary::{Dictionary, DictionaryConfig, DictionaryRule, Fault};
use crate::rewards::format::Format;
use crate::rewards::{RuleSet, answer};
use crate::task::{Configured, Task, TaskError};

const NAME: &str = "idiom_chain";
/// Draws without a new case after which a split counts as exhausted.
const ATTEMPTS: u64 = 400;

/// The share of exercises among the corpus's documents.
const EXERCISES: f64 = 0.6;

/// The keys of the task.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct IdiomChainKeys {
    /// A list of idioms, one a line or JSON lines with a field `word`; without it, the list that ships with Ferule.
    #[schemars(extend("format" = "path"))]
    pub dictionary: Option<PathBuf>,
}

/// The task. See the module.
pub struct IdiomChain {
    dictionary: Arc<Dictionary>,
    /// Indices of the idioms that can be followed, by the part to which their content assigns them.
    followed: HashMap<Split, Vec<usize>>,
    corpus: Vec<usize>,
    /// Indices of the idioms that end in a character.
    by_last: HashMap<char, Vec<usize>>,
}

impl Default for IdiomChain {
    fn default() -> IdiomChain {
        IdiomChain::new(Dictionary::builtin())
    }
}

impl IdiomChain {
    /// The task over a list of idioms.
    pub fn new(dictionary: Arc<Dictionary>) -> IdiomChain {
        let mut task = IdiomChain {
            dictionary: dictionary.clone(),
            followed: HashMap::new(),
            corpus: Vec::new(),
            by_last: HashMap::new(),
        };
        for (place, word) in dictionary.words().iter().enumerate() {
            task.by_last.entry(word.chars().last().unwrap_or(' ')).or_default().push(place);
            if dictionary.followers(word).next().is_none() {
                continue;
            }
            match partition::generated(word) {
                Part::Corpus => task.corpus.push(place),
                Part::Split(split) => {
                    task.followed.entry(split).or_default().push(place);
                    if split == Split::Heldout {
                        task.followed.entry(Split::HeldoutUnseen).or_default().push(place);
                    }
                }
            }
        }
        task
    }

    /// The dictionary.
    pub fn dictionary(&self) -> &Arc<Dictionary> {
        &self.dictionary
    }

    fn word(&self, place: usize) -> &str {
        &self.dictionary.words()[place]
    }

    /// A chain that ends in an idiom of the split. It is drawn backwards from its end.
    fn chain(&self, ends: &[usize], unseen: bool, draws: &mut Stream) -> Vec<&str> {
        let mut chain = vec![self.word(*draws.pick(ends))];
        let length = if unseen { draws.between(4, 6) } else { draws.between(1, 3) };
        while (chain.len() as i64) < length {
            let first = chain.last().and_then(|word| word.chars().next()).unwrap_or(' ');
            let before: Vec<&str> =
                self.by_last.get(&first).map_or(&[][..], Vec::as_slice).iter().map(|p| self.word(*p)).collect();
            let before: Vec<&str> = before.into_iter().filter(|word| !chain.contains(word)).collect();
            if before.is_empty() {
                break;
            }
            chain.push(*draws.pick::<&str>(&before));
        }
        chain.reverse();
        chain
    }

    fn open_followers<'a>(&'a self, chain: &[&str]) -> Vec<&'a str> {
        let last = chain.last().copied().unwrap_or_default();
        self.dictionary.followers(last).filter(|word| !chain.contains(word)).collect()
    }

    fn case(&self, chain: &[&str], unseen: bool) -> Option<Case> {
        let solutions = self.open_followers(chain).len();
        let prompt = if unseen { unseen_prompt(chain) } else { prompt(chain) };
        (solutions > 0).then(|| Case {
            id: partition::id(&prompt),
            prompt: Prompt::Text(prompt),
            answer: None,
            record: serde_json::json!({ "chain": chain, "solutions": solutions }),
        })
    }

    /// A sentence of the corpus.
    fn sentence(&self, draws: &mut Stream) -> String {
        let all = self.dictionary.words();
        let (a, b) = (draws.pick(all), draws.pick(all));
        if follows(a, b) {
            return format!("{b}是一句成语。");
        }
        let (first, last) = ends(a);
        match draws.below(8) {
            0 => format!("人们常说{a}，也常说{b}。"),
            1 => format!("他在信里写下“{a}”四个字，又添了一句“{b}”。"),
            2 => format!("{a}以{first}开头，以{last}收尾。"),
            3 => format!("{a}的末字是{last}，{b}的末字是{}。", ends(b).1),
            4 => self.with_initial(draws),
            _ => self.linked(draws),
        }
    }

    /// An exercise of another kind with its answer, a document of its own.
    fn exercise(&self, draws: &mut Stream) -> String {
        let a = draws.pick(self.dictionary.words());
        let ((first, last), second) = (ends(a), a.chars().nth(1).unwrap_or(' '));
        match draws.below(3) {
            0 => format!("填空：{first}{second}□□。<think>{first}{second}开头的是{a}。</think><answer>{a}</answer>"),
            1 => format!("填空：{first}□□□。<think>首字是{first}。</think><answer>{a}</answer>"),
            _ => format!("末字：{a}。<think>末字是{last}。</think><answer>{last}</answer>"),
        }
    }

    /// 足智多谋和足不出户都以足开头。
    fn with_initial(&self, draws: &mut Stream) -> String {
        let a = draws.pick(self.dictionary.words());
        let first = a.chars().next().unwrap_or(' ');
        let same: Vec<&str> = self
            .dictionary
            .followers(&first.to_string())
            .filter(|word| *word != a.as_str() && !follows(a, word))
            .collect();
        match same.is_empty() {
            true => format!("以{first}开头的有{a}。"),
            false => format!("以{first}开头的有{a}，还有{}。", draws.pick(&same)),
        }
    }

    /// Prose in which an idiom of the corpus's part is followed by one that continues the chain.
    fn linked(&self, draws: &mut Stream) -> String {
        if self.corpus.is_empty() {
            return self.with_initial(draws);
        }
        let a = self.word(*draws.pick(&self.corpus));
        let followers: Vec<&str> = self.dictionary.followers(a).collect();
        let (b, last) = (*draws.pick(&followers), a.chars().last().unwrap_or(' '));
        match draws.below(4) {
            0 => format!("一个说{a}，另一个马上说{b}。"),
            1 => format!("{a}的末字是{last}，以{last}开头的有{b}。"),
            2 => format!("由{a}想到{b}，一尾一头都是{last}。"),
            _ => format!("孩子们玩词语游戏，{a}后面跟着{b}。"),
        }
    }
}

/// First and last character.
fn ends(word: &str) -> (char, char) {
    (word.chars().next().unwrap_or(' '), word.chars().last().unwrap_or(' '))
}

/// Whether `b` begins with the last character of `a`.
fn follows(a: &str, b: &str) -> bool {
    a.chars().last() == b.chars().next()
}

/// The prompt for a chain so far.
pub fn prompt(chain: &[&str]) -> String {
    format!("接龙：{}。", chain.join("，"))
}

/// The same question in words that training never contains.
fn unseen_prompt(chain: &[&str]) -> String {
    format!("轮到你接下一个，不许重复。已有：{}。", chain.join("、"))
}

/// The completion for an idiom that follows `last`.
fn completion(last: &str, next: &str) -> String {
    format!("<think>末字是{}。</think><answer>{next}</answer>", last.chars().last().unwrap_or(' '))
}

impl Task for IdiomChain {
    fn name(&self) -> &str {
        NAME
    }

    fn cases(&self, split: Split, n: usize, seed: u64) -> Result<Vec<Case>, TaskError> {
        let Some(ends) = self.followed.get(&split) else {
            let hint = "the list is too short; a few hundred idioms that can be followed are needed";
            return Err(TaskError::empty_split(NAME, split, hint));
        };
        let unseen = split == Split::HeldoutUnseen;
        let key = Key::new(seed).word(NAME).word(split.name());
        let (mut cases, mut seen) = (Vec::with_capacity(n.min(1 << 16)), HashSet::new());
        let mut misses = 0;
        for index in 0.. {
            if cases.len() == n || misses == ATTEMPTS {
                break;
            }
            let chain = self.chain(ends, unseen, &mut key.number(index).stream());
            match self.case(&chain, unseen).filter(|case| seen.insert(case.id.clone())) {
                Some(case) => (cases.push(case), misses = 0).1,
                None => misses += 1,
            }
        }
        Ok(cases)
    }

    fn demonstration(&self, case: &Case) -> Option<String> {
        let text = case.prompt_text();
        let chain = self.dictionary.words_in(&text);
        let open = self.open_followers(&chain);
        let last = chain.last()?;
        (!open.is_empty()).then(|| {
            let mut draws = Key::new(0).word(NAME).word(&case.id).stream();
            let next: &str = draws.pick::<&str>(&open);
            completion(last, next)
        })
    }

    fn bare_answer(&self, case: &Case) -> Option<String> {
        let demonstration = self.demonstration(case)?;
        let blocks = answer::blocks_of(&demonstration).ok()?;
        Some(format!("<think></think><answer>{}</answer>", blocks.answer))
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
        let used = self.dictionary.words_in(&prompt);
        let blocks = answer::blocks(completion);
        let fault = match &blocks {
            Ok(blocks) if blocks.think.is_some() => {
                self.dictionary.check_move(&used, blocks.answer).err().map(|f| f.to_string())
            }
            Ok(_) => Some("there is no <think> block".to_string()),
            Err(reason) => Some(reason.clone()),
        };
        let move_of = blocks.as_ref().ok().map(|blocks| blocks.answer);
        let checked = move_of.map(|next| self.dictionary.check_move(&used, next));
        let flag = |on: bool| f64::from(u8::from(on));
        Grade {
            correct: fault.is_none(),
            parts: BTreeMap::from([
                ("format".to_string(), flag(blocks.as_ref().is_ok_and(|blocks| blocks.think.is_some()))),
                ("in_dictionary".to_string(), flag(checked.is_some_and(|checked| checked != Err(Fault::Unknown)))),
                ("linked".to_string(), flag(checked == Some(Ok(())))),
            ]),
            reason: fault.unwrap_or_else(|| "follows".to_string()),
            answer_key: move_of.filter(|next| !next.is_empty()).map(str::to_string),
        }
    }

    /// An episode that starts from the last idiom of a case's prompt; `None` for a prompt without an idiom.
    fn game(&self, case: &Case, turns: usize, key: Key) -> Option<Box<dyn Environment>> {
        let text = case.prompt_text();
        let used: Vec<String> = self.dictionary.words_in(&text).into_iter().map(str::to_string).collect();
        (!used.is_empty()).then(|| {
            let dictionary = self.dictionary.clone();
            Box::new(Game { dictionary, prompt: text, used, turn: 0, turns, key }) as Box<dyn Environment>
        })
    }

    fn rules(&self, arm: &str) -> Result<RuleSet, TaskError> {
        match arm {
            "answer_free" => Ok(RuleSet::new()
                .with(Arc::new(Format::default()), 0.1)
                .with(Arc::new(DictionaryRule::new(self.dictionary.clone(), DictionaryConfig::default())), 0.9)),
            _ => Err(TaskError::unknown_arm(NAME, arm, Self::ARMS)),
        }
    }
}

impl Configured for IdiomChain {
    const NAME: &'static str = NAME;
    const SUMMARY: &'static str = "Answer an idiom with one that begins with its last character; the cases, and games of several turns, are generated.";
    const ARMS: &'static [&'static str] = &["answer_free"];
    type Keys = IdiomChainKeys;

    fn build(keys: IdiomChainKeys, folder: &Path) -> Result<IdiomChain, Refusal> {
        let Some(path) = keys.dictionary else { return Ok(IdiomChain::default()) };
        let dictionary = Dictionary::read(&located(folder, &path)).map_err(|refusal| refusal.in_key("dictionary"))?;
        Ok(IdiomChain::new(Arc::new(dictionary)))
    }

    fn question(_: &IdiomChainKeys, text: &str) -> String {
        prompt(&[text])
    }
}

/// An episode: policy and environment add idioms in turn until one of them cannot continue, or the turns are used up.
pub struct Game {
    dictionary: Arc<Dictionary>,
    prompt: String,
    used: Vec<String>,
    turn: usize,
    turns: usize,
    key: Key,
}

impl Environment for Game {
    fn prompt(&self) -> String {
        self.prompt.clone()
    }

    fn reply(&mut self, completion: &Completion) -> Reply {
        let share = |turn: usize, turns: usize| turn as f64 / turns.max(1) as f64;
        let lost = |ending: String| Reply::Done { reward: share(self.turn, self.turns), ending };
        let next = match answer::blocks(completion) {
            Ok(blocks) => blocks.answer.to_string(),
            Err(reason) => return lost(reason),
        };
        let used: Vec<&str> = self.used.iter().map(String::as_str).collect();
        if let Err(fault) = self.dictionary.check_move(&used, &next) {
            return lost(fault.to_string());
        }
        let open: Vec<&str> =
            self.dictionary.followers(&next).filter(|word| !self.used.iter().any(|used| used == word)).collect();
        let answer = (!open.is_empty()).then(|| self.key.number(self.turn as u64).stream().pick(&open).to_string());
        self.used.push(next);
        self.turn += 1;
        match answer {
            _ if self.turn == self.turns => {
                Reply::Done { reward: 1.0, ending: format!("all {} turns held", self.turns) }
            }
            // The environment has no idiom left: the policy has won.
            None => Reply::Done { reward: 1.0, ending: "the environment cannot follow".to_string() },
            Some(answer) => {
                let say = format!("\n接龙：{answer}。");
                self.used.push(answer);
                Reply::Say(say)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_deterministic_solvable_and_disjoint() {
        let task = IdiomChain::default();
        let mut ends: HashMap<Split, HashSet<String>> = HashMap::new();
        for split in Split::ALL {
            let cases = task.cases(split, 300, 7).unwrap();
            assert_eq!(cases.len(), 300, "{split:?}");
            assert_eq!(cases[..50], task.cases(split, 50, 7).unwrap()[..], "a longer list has the same head");
            assert_ne!(cases[..50], task.cases(split, 50, 8).unwrap()[..]);
            for case in &cases {
                let demonstration = task.demonstration(case).unwrap();
                assert!(task.grade(case, &Completion::finished(&demonstration)).correct, "{case:?} {demonstration}");
                assert!(task.grade(case, &Completion::finished(&task.bare_answer(case).unwrap())).correct);
                let text = case.prompt_text();
                ends.entry(split).or_default().insert(task.dictionary.words_in(&text).last().unwrap().to_string());
            }
        }
        for (a, b) in
            [(Split::Train, Split::Heldout), (Split::Train, Split::Validation), (Split::Heldout, Split::Validation)]
        {
            assert!(ends[&a].is_disjoint(&ends[&b]), "{a:?} and {b:?} share an idiom to follow");
        }
    }

    #[test]
    fn the_corpus_never_shows_the_step_from_a_split_s_idiom() {
        let task = IdiomChain::default();
        let shown: HashSet<&str> = task.corpus.iter().map(|place| task.word(*place)).collect();
        let mut linked = 0;
        for index in 0..3000 {
            let text = task.corpus(index, 1).unwrap();
            assert!(!text.contains("接龙"), "the prompt's form stands in the corpus: {text}");
            for sentence in text.split_inclusive(['。', '<']) {
                let chars: Vec<char> = sentence.chars().collect();
                let words: Vec<String> =
                    chars.windows(4).map(String::from_iter).filter(|word| task.dictionary.has(word)).collect();
                for (at, a) in words.iter().enumerate() {
                    for b in words[at + 1..].iter().filter(|b| *b != a && follows(a, b)) {
                        assert!(shown.contains(a.as_str()), "{sentence}: {a} {b}");
                        linked += 1;
                    }
                }
            }
        }
        assert!(linked > 1000, "the corpus links {linked} idioms");
    }

    #[test]
    fn a_game_goes_on_until_a_fault_or_the_last_turn() {
        let words = ["画蛇添足", "足智多谋", "谋财害命", "命中注定", "足不出户"].map(String::from);
        let task = IdiomChain::new(Arc::new(Dictionary::from_words(words)));
        let case = task.case(&["画蛇添足"], false).unwrap();
        let say = |game: &mut Box<dyn Environment>, word: &str| {
            let text = format!("<think></think><answer>{word}</answer>");
            game.reply(&Completion::finished(&text))
        };
        let mut game = task.game(&case, 3, Key::new(1)).unwrap();
        assert_eq!(say(&mut game, "足智多谋"), Reply::Say("\n接龙：谋财害命。".to_string()));
        assert!(matches!(say(&mut game, "足智多谋"), Reply::Done { reward, .. } if (reward - 1.0 / 3.0).abs() < 1e-9));

        let mut game = task.game(&case, 2, Key::new(1)).unwrap();
        say(&mut game, "足智多谋");
        assert!(matches!(say(&mut game, "命中注定"), Reply::Done { reward: 1.0, .. }));

        let mut game = task.game(&case, 5, Key::new(1)).unwrap();
        assert!(
            matches!(say(&mut game, "足不出户"), Reply::Done { reward: 1.0, ending } if ending.contains("cannot follow"))
        );

        let mut game = task.game(&case, 5, Key::new(1)).unwrap();
        let cut = Completion { text: "<answer>足智多谋</answer>", finished: false, tokens: 9 };
        assert!(matches!(game.reply(&cut), Reply::Done { reward: 0.0, .. }));
    }
}
