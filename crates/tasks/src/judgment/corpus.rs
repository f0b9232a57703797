//! The pretraining corpus of the judgment task: prose that states its own conclusions.
//!
//! It has three kinds of document: narratives of built-in cases with the court's opinion and sentence; tiers of the
//! articles in other words; and worked explanations of how figures and factors lead to a range. It never contains the
//! task's own notation (`<think>`, `案情：`, three parts between ；). The facts of its cases come from a part of the
//! generator's space that no split draws from; a hash of the content decides which part that is.

use super::draft::{Draft, article};
use super::penalty::{Penalty, term_words};
use super::table::{self, Band, Tier};
use super::wordings::{Unit, bank};
use kernels::rng::{Key, Stream};

/// The share of narratives. Six in ten of the other documents are explanations.
const NARRATIVES: f64 = 0.75;

/// One document. `case` gives a case to narrate, whose facts no split contains.
pub fn document(key: Key, case: impl FnOnce() -> Draft) -> String {
    let mut random = key.word("document").stream();
    match random.unit() {
        u if u < NARRATIVES => narrative(&case(), &mut random),
        u if u < NARRATIVES + (1.0 - NARRATIVES) * 0.6 => explanation(&mut random),
        _ => statute(&mut random),
    }
}

/// Facts, opinion and sentence, in the style of a judgment.
fn narrative(case: &Draft, random: &mut Stream) -> String {
    let opening: &&str = random.pick(&["经审理查明，", "经审理查明：", "公诉机关指控，", "审理查明，"]);
    format!("{opening}{}本院认为，{}{}", case.facts, opinion(case, random), sentence(case, random))
}

/// The reason for the charge, and what the factors add up to.
fn opinion(case: &Draft, random: &mut Stream) -> String {
    let who = &case.defendant;
    let mut text = format!("被告人{who}");
    for (index, count) in case.counts.iter().enumerate() {
        if index > 0 {
            text.push_str("；又");
        }
        let charge = &count.charge.name;
        let (element, label) = (&count.charge.element, &count.scene.label);
        text += &match random.below(3) {
            0 => format!("{element}，{}{label}，其行为已构成{charge}罪", count.figure),
            1 => format!("{element}，{label}，构成{charge}罪"),
            _ => format!("的行为构成{charge}罪，{label}"),
        };
        if random.chance(0.6) {
            text += &format!("，应处{}", count.scene.tier().range_words());
        }
    }
    if case.counts.len() > 1 {
        text.push_str("，应数罪并罚");
    }
    text.push('。');
    if !case.factors.is_empty() {
        text += &format!("{who}有{}情节，", case.factors.join("、"));
    } else if random.chance(0.5) {
        text.push_str("本案无情节，");
    }
    text += match case.band {
        Band::Heavier => "依法从重处罚。",
        Band::Middle if case.factors.is_empty() => "居中量刑。",
        Band::Middle => "从宽与从重相抵，居中量刑。",
        Band::Lighter => "依法从轻处罚。",
        Band::Below => "依法减轻处罚。",
        Band::Exempt => "犯罪轻微，可以免除处罚。",
    };
    text
}

/// The operative part.
fn sentence(case: &Draft, random: &mut Stream) -> String {
    let law = random.pick(&["《中华人民共和国刑法》", "刑法"]);
    let articles: Vec<String> = case.counts.iter().map(|count| article(count.charge).to_string()).collect();
    let charges: Vec<String> = case.counts.iter().map(|count| format!("{}罪", count.charge.name)).collect();
    let verb = match case.penalty {
        Penalty::Exempt => "",
        _ if case.counts.len() > 1 => "决定执行",
        _ => "判处",
    };
    format!(
        "依照{law}{}，判决如下：被告人{}犯{}，{verb}{}。",
        articles.join("、"),
        case.defendant,
        charges.join("、"),
        case.penalty
    )
}

/// One tier of one charge in plain words.
fn statute(random: &mut Stream) -> String {
    let charge = random.pick(&bank().charges);
    let mut text = format!("刑法{}规定的是{}罪。", article(charge), charge.name);
    let mut scenes: Vec<_> = charge.scenes.iter().filter(|scene| scene.with.is_empty()).collect();
    scenes.dedup_by(|a, b| a.row == b.row);
    for scene in scenes {
        let tier = scene.tier();
        text += &match (tier.condition.kind.as_str(), span_words(tier, scene.unit)) {
            (_, Some(span)) => format!("{}，{span}，属于{}，处{}；", charge.element, scene.label, penalty_words(tier)),
            _ => format!("{}，{}的，处{}；", charge.element, scene.label, penalty_words(tier)),
        };
    }
    text.pop();
    text.push('。');
    text
}

/// 三千元以上不满三万元: the span of figures in which the tier applies in every province.
fn span_words(tier: &Tier, unit: Unit) -> Option<String> {
    let measured = matches!(
        (tier.condition.kind.as_str(), unit),
        ("amount_yuan", Unit::Yuan) | ("grams", Unit::Gram) | ("mg_per_100ml", Unit::Mg) | ("count", Unit::Machine)
    );
    let (low, high) = tier.certain_span().filter(|_| measured)?;
    let words = |figure: f64| match unit {
        Unit::Yuan if figure >= 10_000.0 => format!("{}万元", figure / 10_000.0),
        Unit::Yuan => format!("{figure}元"),
        Unit::Gram => format!("{figure}克"),
        Unit::Mg => format!("{figure}毫克/100毫升"),
        Unit::Machine | Unit::None => format!("{figure}台"),
    };
    Some(match (low > 0.0, high.is_finite()) {
        (true, true) => format!("{}以上不满{}", words(low), words(high)),
        (true, false) => format!("{}以上", words(low)),
        _ => format!("不满{}", words(high)),
    })
}

fn penalty_words(tier: &Tier) -> String {
    let kinds = |kinds: &[&str]| -> String {
        let rest: Vec<&str> = kinds.iter().copied().filter(|kind| tier.has(kind)).collect();
        if rest.is_empty() { String::new() } else { format!("、{}", rest.join("、")) }
    };
    match tier.bounds() {
        (1, 6) => "拘役".to_string(),
        (1, _) => format!("{}有期徒刑{}", tier.range_words(), kinds(&["拘役", "管制"])),
        (180, 180) => format!("十五年有期徒刑{}", kinds(&["无期徒刑", "死刑"])),
        _ => format!("{}有期徒刑{}", tier.range_words(), kinds(&["无期徒刑", "死刑"])),
    }
}

/// An explanation of how a figure or a factor leads to a range.
fn explanation(random: &mut Stream) -> String {
    let charge = random.pick(&bank().charges);
    let scene = random.pick(&charge.scenes);
    let tier = scene.tier();
    let (net, weighing) = *random.pick(&[
        (1, "只有从宽情节的，从轻"),
        (0, "从宽和从重情节相抵或者都没有的，居中"),
        (-1, "只有从重情节的，从重"),
    ]);
    let (_, range) = table::adjusted(tier, net, false);
    let reach = match () {
        () if range.min_months >= range.max_months && range.life => "无期徒刑".to_string(),
        () if range.min_months == range.max_months => term_words(range.max_months),
        () => format!("{}至{}", term_words(range.min_months), term_words(range.max_months)),
    };
    match random.below(3) {
        0 => format!(
            "{}罪的量刑：{}，{}的，法定刑是{}。{weighing}，宣告刑一般在{reach}之间。",
            charge.name,
            charge.element,
            scene.label,
            penalty_words(tier)
        ),
        1 => format!(
            "构成{}罪，{}，适用刑法{}，幅度为{}；{weighing}处罚，大致是{reach}。",
            charge.name,
            scene.label,
            article(charge),
            tier.range_words()
        ),
        _ => {
            let factor = random.pick(&bank().factors);
            let words = random.pick(factor.half(false)).replace("{D}", "被告人").replace("{V}", "被害人");
            let effect = match factor.name.as_str() {
                "累犯" | "前科" | "弱势对象" => "从重处罚",
                "从犯" | "未遂" | "未成年" => "从轻或者减轻处罚",
                _ => "从轻处罚",
            };
            format!(
                "案件中写明“{words}”，这是{}情节，可以{effect}。在{}罪中，{weighing}，约{reach}。",
                factor.name, charge.name
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judgment::draft::draft;

    #[test]
    fn documents_never_have_the_tasks_notation() {
        for index in 0..3000 {
            let key = Key::new(1).number(index);
            let text = document(key, || draft(key, false));
            assert!(!text.contains('<') && !text.contains("案情：") && !text.contains('{'), "{text}");
            assert!(text.ends_with('。'), "{text}");
        }
    }

    #[test]
    fn narratives_state_the_penalty_of_their_case() {
        let case = draft(Key::new(4), false);
        let text = narrative(&case, &mut Key::new(4).stream());
        assert!(text.contains(&case.penalty.to_string()) && text.contains(&case.counts[0].charge.name), "{text}");
    }
}
