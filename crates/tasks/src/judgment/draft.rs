//! Built-in cases: a deterministic generator of short facts, with everything that is known about them.
//!
//! A [`Draft`] is a pure function of a key ([`kernels::rng::Key`]) and of the half of the wordings from which it draws.
//! It chooses charge, tier, figure and factors first and puts them into words afterwards, so the facts cannot
//! contradict the outcome. It takes nothing from real judgments, and it does not know splits.
//!
//! Facts hold at most [`MAX_CHARS`] characters; longer ones are drawn again.

use super::answer::Answer;
use super::article::Article;
use super::penalty::{Penalty, Range};
use super::table::{self, Band};
use super::wordings::{Bank, Charge, Scene, Unit, bank};
use kernels::rng::{Key, Stream};

/// The greatest length of the facts, in characters.
pub const MAX_CHARS: usize = 130;

/// Pairs of factors that cannot occur in one case.
const EXCLUDE: [(&str, &str); 4] = [("自首", "坦白"), ("累犯", "前科"), ("未成年", "累犯"), ("未成年", "前科")];

/// One charge of a case.
#[derive(Clone, Debug)]
pub struct Count {
    /// The charge.
    pub charge: &'static Charge,
    /// How it was committed.
    pub scene: &'static Scene,
    /// The figure that decides the tier, as written in the facts, without 人民币; empty if there is none.
    pub figure: String,
    /// Its value in the scene's unit.
    pub value: f64,
    /// The range of this charge alone.
    pub range: Range,
}

/// A case with everything that is known about it.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The facts.
    pub facts: String,
    /// The defendant's name.
    pub defendant: String,
    /// One or two charges.
    pub counts: Vec<Count>,
    /// The factors' names, in the order of the facts.
    pub factors: Vec<&'static str>,
    /// The band that the factors lead to.
    pub band: Band,
    /// The penalties that count as right.
    pub range: Range,
    /// The penalty that the document states, drawn from `range`.
    pub penalty: Penalty,
}

impl Draft {
    /// The answer that the document states.
    pub fn answer(&self) -> Answer {
        Answer {
            charges: self.counts.iter().map(|count| count.charge.name.clone()).collect(),
            articles: Some(self.counts.iter().map(|count| article(count.charge)).collect()),
            penalty: Some(self.penalty),
        }
    }

    /// An expert's reasoning in one line: the conduct (if there is a single charge), figure and tier, range, and the
    /// factors with the band that they lead to.
    pub fn chain(&self) -> String {
        let one = self.counts.len() == 1;
        let counts: Vec<String> = self
            .counts
            .iter()
            .map(|count| {
                let range = count.scene.tier().range_words();
                let element = if one { format!("{}，", count.charge.element) } else { String::new() };
                format!("{element}{}{}，{range}", count.figure, count.scene.label)
            })
            .collect();
        let merged = if self.counts.len() > 1 { "；并罚" } else { "" };
        let factors = if self.factors.is_empty() { "无情节".to_string() } else { self.factors.join("、") };
        format!("{}；{factors}，{}{merged}", counts.join("；"), self.band.word())
    }
}

/// The article of a charge.
pub fn article(charge: &Charge) -> Article {
    Article::parse(&charge.article).expect("wordings.toml names articles")
}

/// The draft of a key: the first attempt under the key that fits into [`MAX_CHARS`].
pub fn draft(key: Key, unseen: bool) -> Draft {
    (0..)
        .map(|attempt| attempt_draft(&mut key.number(attempt).stream(), unseen))
        .find(|draft| draft.facts.chars().count() <= MAX_CHARS)
        .expect("attempts do not end")
}

fn attempt_draft(random: &mut Stream, unseen: bool) -> Draft {
    let bank = bank();
    let defendant = random.pick(bank.names.half(unseen)).clone();
    let charge = random.pick(&bank.charges);
    let mut chosen = vec![(charge, random.pick(&charge.scenes))];
    if random.chance(0.13) {
        chosen.extend(second(bank, charge, chosen[0].1, random));
    }
    let victim = random.pick(bank.victims.half(unseen)).clone();
    let mut facts = date(random);
    let mut counts = Vec::new();
    let mut own_factors: Vec<&'static str> = Vec::new();
    for (index, &(charge, scene)) in chosen.iter().enumerate() {
        let (figure, value) = figure(scene, unseen, random);
        let mut text = random.pick(scene.half(unseen)).clone();
        if index > 0 {
            text = text.replace("被告人{D}", "{D}");
            let opening: &&str = random.pick(&["另查明，", "此外，", "同月，"]);
            facts.push_str(opening);
        }
        let person = if index == 0 { victim.clone() } else { other(&victim, bank.victims.half(unseen), random) };
        text = text
            .replace("{V}", &person)
            .replace("{P}", random.pick(bank.places.half(unseen)).as_str())
            .replace("{I}", random.pick(bank.things.half(unseen)).as_str())
            .replace(
                "{N}",
                &if random.chance(0.2) && scene.unit == Unit::Yuan {
                    format!("人民币{figure}")
                } else {
                    figure.clone()
                },
            );
        facts.push_str(&text);
        own_factors.extend(scene.with.iter().map(|name| bank.factor(name).name.as_str()));
        counts.push(Count { charge, scene, figure, value, range: Range::terms(1, 1) });
    }
    let caught = ["抓", "查", "搜出", "堵住", "识破", "报警", "落网"].iter().any(|word| facts.contains(word));
    let mut drawn = draw_factors(bank, &chosen, caught, facts.contains(&victim), random);
    random.shuffle(&mut drawn);
    let idle = idle_sentences(bank, &counts, &drawn, caught, unseen, random);
    let told: Vec<String> = drawn.iter().map(|name| random.pick(bank.factor(name).half(unseen)).clone()).collect();
    for sentence in idle.iter().chain(&told) {
        facts.push_str(&sentence.replace("{V}", &victim));
    }
    let facts = facts.replace("{D}", &defendant);

    let factors: Vec<&'static str> = own_factors.into_iter().chain(drawn).collect();
    let tiers: Vec<&table::Tier> = counts.iter().map(|count| count.scene.tier()).collect();
    let (band, range, ranges) = table::case_range(&tiers, &factors);
    for (count, range) in counts.iter_mut().zip(ranges) {
        count.range = range;
    }
    let penalty = penalty(&counts, random);
    Draft { facts, defendant, counts, factors, band, range, penalty }
}

/// A second charge that is possible besides the first; both are in tiers of at most ten years.
fn second(
    bank: &'static Bank,
    first: &Charge,
    scene: &Scene,
    random: &mut Stream,
) -> Option<(&'static Charge, &'static Scene)> {
    const BESIDE: [&str; 7] = ["盗窃", "危险驾驶", "容留他人吸毒", "非法持有毒品", "寻衅滋事", "诈骗", "故意伤害"];
    let light = |scene: &Scene| scene.tier().bounds().1 <= 36 && scene.with.is_empty();
    if scene.tier().bounds().1 > 120 || !scene.with.is_empty() || first.name == "受贿" {
        return None;
    }
    let others: Vec<(&Charge, &Scene)> = bank
        .charges
        .iter()
        .filter(|charge| BESIDE.contains(&charge.name.as_str()) && charge.name != first.name)
        // Possession of what one sells is part of the selling. An assault is not charged twice.
        .filter(|charge| !(first.name == "贩卖毒品" && charge.name == "非法持有毒品"))
        .filter(|charge| !(first.name == "非法持有毒品" && charge.name == "贩卖毒品"))
        .flat_map(|charge| charge.scenes.iter().filter(|s| light(s)).map(move |scene| (charge, scene)))
        .collect();
    Some(*random.pick(&others))
}

fn other(victim: &str, victims: &[String], random: &mut Stream) -> String {
    let others: Vec<&String> = victims.iter().filter(|name| *name != victim).collect();
    random.pick(&others).to_string()
}

fn date(random: &mut Stream) -> String {
    let year = random.between(2022, 2025);
    let month = random.between(1, 12);
    match random.below(3) {
        0 => format!("{year}年{month}月，"),
        1 => format!("{year}年{month}月{}日，", random.between(1, 28)),
        _ => format!("{year}年{month}月{}日{}，", random.between(1, 28), random.pick(&["晚", "凌晨", "上午", "下午"])),
    }
}

/// A figure of the scene as text and value. It is from the reserved part of the scene's range if and only if `unseen`.
fn figure(scene: &Scene, unseen: bool, random: &mut Stream) -> (String, f64) {
    if scene.unit == Unit::None {
        return (String::new(), 0.0);
    }
    loop {
        let drawn = scene.from * (scene.to / scene.from).powf(random.unit());
        let value = match scene.unit {
            Unit::Yuan => round_to(drawn, if random.chance(0.6) { 2 } else { 3 }),
            Unit::Gram if drawn < 10.0 => (drawn * 10.0).round() / 10.0,
            _ => drawn.round(),
        };
        if value < scene.from || value > scene.to || scene.is_reserved(value) != unseen {
            continue;
        }
        let text = match scene.unit {
            Unit::Yuan => yuan(value, random),
            Unit::Gram => format!("{value}克"),
            Unit::Mg => format!("{value}毫克/100毫升"),
            Unit::Machine | Unit::None => format!("{value}台"),
        };
        return (text, value);
    }
}

fn round_to(value: f64, digits: i32) -> f64 {
    let unit = 10f64.powi(value.log10().floor() as i32 + 1 - digits);
    ((value / unit).round() * unit).round()
}

/// An amount in 元, or in 万元 if that is shorter.
fn yuan(value: f64, random: &mut Stream) -> String {
    if value >= 10_000.0 && value % 1000.0 == 0.0 && random.chance(0.6) {
        format!("{}万元", value / 10_000.0)
    } else {
        format!("{value}元")
    }
}

fn draw_factors(
    bank: &'static Bank,
    chosen: &[(&'static Charge, &'static Scene)],
    caught: bool,
    has_victim: bool,
    random: &mut Stream,
) -> Vec<&'static str> {
    let wanted = match random.unit() {
        u if u < 0.22 => 0,
        u if u < 0.62 => 1,
        u if u < 0.9 => 2,
        _ => 3,
    };
    let mut drawn: Vec<&'static str> = Vec::new();
    for _ in 0..wanted {
        let open: Vec<(&'static str, u32)> = bank
            .factors
            .iter()
            .map(|factor| (factor.name.as_str(), factor.weight))
            .filter(|(name, weight)| *weight > 0 && !drawn.contains(name))
            .filter(|(name, _)| chosen.iter().all(|(charge, _)| charge.allows.iter().any(|allowed| allowed == name)))
            .filter(|(name, _)| !(caught && *name == "自首") && (has_victim || *name != "弱势对象"))
            .filter(|(name, _)| chosen.len() == 1 || !matches!(*name, "弱势对象" | "从犯"))
            .filter(|(name, _)| {
                !EXCLUDE.iter().any(|(a, b)| (a == name && drawn.contains(b)) || (b == name && drawn.contains(a)))
            })
            .collect();
        let total: u32 = open.iter().map(|(_, weight)| weight).sum();
        if total == 0 {
            break;
        }
        let mut left = random.below(u64::from(total)) as u32;
        for (name, weight) in open {
            if left < weight {
                drawn.push(name);
                break;
            }
            left -= weight;
        }
    }
    drawn
}

/// Up to two sentences that decide nothing.
fn idle_sentences(
    bank: &Bank,
    counts: &[Count],
    factors: &[&str],
    caught: bool,
    unseen: bool,
    random: &mut Stream,
) -> Vec<String> {
    let mut sentences = Vec::new();
    if random.chance(0.3) {
        let sentence = random.pick(bank.idle.half(unseen));
        let capture = sentence.contains('抓') || sentence.contains("落网");
        let family = sentence.contains("已婚") || sentence.contains("无业");
        let settled =
            factors.contains(&"未成年") || counts.iter().any(|c| matches!(c.charge.name.as_str(), "受贿" | "职务侵占"));
        if !(capture && (caught || factors.contains(&"自首"))) && !(family && settled) {
            sentences.push(sentence.clone());
        }
    }
    if random.chance(0.3) {
        let sentence = random.pick(bank.idle_figures.half(unseen));
        let amounts = counts.iter().any(|count| count.scene.unit == Unit::Yuan && count.scene.with.is_empty());
        if amounts || !sentence.starts_with("起诉书") {
            let (low, high): (f64, f64) = match () {
                () if sentence.contains("工资") => (2500.0, 20_000.0),
                () if sentence.contains("罚款") => (100.0, 2000.0),
                () if sentence.contains("房租") => (600.0, 4000.0),
                () => (600.0, 600_000.0),
            };
            let figure = round_to(low * (high / low).powf(random.unit()), 2);
            sentences.push(sentence.replace("{X}元", &yuan(figure, random)));
        }
    }
    sentences
}

/// The penalty that the document states. With two charges a term is drawn for each, and the total lies between the
/// higher term and their sum; imprisonment absorbs detention (刑法第六十九条).
fn penalty(counts: &[Count], random: &mut Stream) -> Penalty {
    let detention = |count: &Count| count.scene.tier().bounds().1 <= 6;
    if let [count] = counts {
        return draw_penalty(&stated(count), detention(count), random);
    }
    let terms: Vec<u32> = counts
        .iter()
        .filter(|count| !detention(count))
        .map(|count| draw_penalty(&stated(count), false, random).months().expect("tiers beside others have terms"))
        .collect();
    let highest = *terms.iter().max().expect("one of two charges is imprisonment");
    let sum: u32 = terms.iter().sum();
    let rest = sum - highest;
    let between = natural_terms(highest + rest / 3, highest + rest * 3 / 4);
    Penalty::of_months(between.last().copied().unwrap_or(highest))
}

/// The part of a charge's range from which its document draws. If the sentence says 减轻, that part is below the tier,
/// because that is what the word means.
fn stated(count: &Count) -> Range {
    let (least, _) = count.scene.tier().bounds();
    let mut range = count.range;
    if !range.exempt && range.min_months < least {
        range.max_months = range.max_months.min(least - 1);
    }
    range
}

/// A penalty drawn from a range. Terms are round, like those of courts.
fn draw_penalty(range: &Range, detention: bool, random: &mut Stream) -> Penalty {
    if range.exempt && random.chance(0.6) {
        return Penalty::Exempt;
    }
    let terms = natural_terms(range.min_months, range.max_months);
    if terms.is_empty() || (range.life && random.chance(0.2)) {
        return if range.death && random.chance(0.1) { Penalty::Death } else { Penalty::Life };
    }
    match *random.pick(&terms) {
        months if detention => Penalty::Detention(months),
        months => Penalty::of_months(months),
    }
}

/// The round terms in `[low, high]`: every month up to one year, multiples of two or three months up to three years,
/// half years up to ten years, and whole years beyond.
fn natural_terms(low: u32, high: u32) -> Vec<u32> {
    let round = |m: u32| match m {
        0..=12 => true,
        13..=36 => m.is_multiple_of(2) || m.is_multiple_of(3),
        37..=120 => m.is_multiple_of(6),
        _ => m.is_multiple_of(12),
    };
    // Detention of one or two months is rare outside drunken driving, whose thirds are two months wide.
    let low = if high > 6 { low.max(3) } else { low };
    (low..=high).filter(|&m| round(m)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drafts(unseen: bool) -> impl Iterator<Item = Draft> {
        (0..3000).map(move |index| draft(Key::new(11).number(index), unseen))
    }

    #[test]
    fn a_draft_is_a_function_of_its_key() {
        let once = draft(Key::new(5).number(9), false);
        assert_eq!(once.facts, draft(Key::new(5).number(9), false).facts);
        assert_ne!(once.facts, draft(Key::new(6).number(9), false).facts);
    }

    #[test]
    fn the_penalty_lies_in_the_range_and_in_the_law() {
        for case in drafts(false).chain(drafts(true)) {
            assert!(case.range.contains(case.penalty), "{case:#?}");
            assert_eq!(Penalty::parse(&case.penalty.to_string()), Ok(case.penalty));
        }
    }

    #[test]
    fn a_sentence_below_the_tier_lies_below_it() {
        let below = drafts(false).filter(|case| case.band == Band::Below && case.counts.len() == 1);
        for case in below {
            let (least, _) = case.counts[0].scene.tier().bounds();
            assert!(case.penalty.months().is_some_and(|months| months < least), "{case:?}");
        }
    }

    #[test]
    fn figures_lie_in_the_tier_and_in_their_half() {
        for unseen in [false, true] {
            for case in drafts(unseen) {
                for count in case.counts.iter().filter(|count| count.scene.unit != Unit::None) {
                    assert!((count.scene.from..=count.scene.to).contains(&count.value), "{case:?}");
                    assert_eq!(count.scene.is_reserved(count.value), unseen, "{case:?}");
                    assert!(case.facts.contains(&count.figure), "{case:?}");
                }
            }
        }
    }

    #[test]
    fn facts_do_not_contradict_themselves() {
        for case in drafts(false).chain(drafts(true)) {
            let has = |name: &str| case.factors.contains(&name);
            assert!(!case.facts.contains('{'), "{}", case.facts);
            for (a, b) in EXCLUDE {
                assert!(!(has(a) && has(b)), "{}", case.facts);
            }
            assert!(!(has("自首") && case.facts.contains("抓获。")), "{}", case.facts);
            assert!(!(has("未成年") && case.facts.contains("已婚")), "{}", case.facts);
            if has("累犯") {
                assert!(matches!(case.penalty, Penalty::Imprisonment(_) | Penalty::Life | Penalty::Death), "{case:?}");
            }
        }
    }

    #[test]
    fn every_charge_factor_and_band_occurs() {
        let cases: Vec<Draft> = drafts(false).collect();
        for charge in &bank().charges {
            assert!(cases.iter().any(|case| case.counts[0].charge.name == charge.name), "{}", charge.name);
        }
        for factor in &bank().factors {
            assert!(cases.iter().any(|case| case.factors.contains(&factor.name.as_str())), "{}", factor.name);
        }
        for band in [Band::Heavier, Band::Middle, Band::Lighter, Band::Below, Band::Exempt] {
            assert!(cases.iter().any(|case| case.band == band), "{band:?}");
        }
        let two = cases.iter().filter(|case| case.counts.len() == 2).count();
        assert!((100..500).contains(&two), "{two}");
    }
}
