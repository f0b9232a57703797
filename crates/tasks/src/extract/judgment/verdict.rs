//! Parses the verdict: the defendant, the charges, the sentence for each charge, and the sentence to be served.

use super::defendant::{Charged, Defendant};
use super::sentence::Sentence;

/// Words that show that an older sentence is merged into this one. The facts then do not determine the sentence.
const MERGED: [&str; 9] = ["撤销", "前罪", "原判", "余刑", "尚未执行", "没有执行", "未执行的", "前判", "漏罪"];
/// Words that show that the court did not convict of the charge before them.
const NOT_FOUND: [&str; 5] = ["证据不足", "不成立", "不构成", "不予支持", "不予认定"];
/// Words that end a charge's name if no comma does.
const STOPS: [&str; 9] = ["判处", "免予", "免于", "免除", "单处", "，", ",", "；", "。"];
/// Words that begin the sentence to be served for several charges.
const TOGETHER: [&str; 8] = [
    "决定执行",
    "决定合并执行",
    "合并决定执行",
    "决定对其执行",
    "决定对被告人执行",
    "合并执行",
    "决定执 行",
    "并罚执行",
];

/// Words that begin the sum of the terms of several charges.
const SUMS: [&str; 7] = ["总和刑期", "合并刑期", "刑期总和", "总刑期", "数罪并罚", "两罪并罚", "合并有期徒刑"];

/// Parses a verdict against one defendant.
///
/// # Errors
/// The reason why it is unclear.
pub fn read(verdict: &str) -> Result<Defendant, &'static str> {
    let plain = joined_lines(&without_brackets(verdict));
    let mut name: Option<String> = None;
    let mut charges: Vec<Charged> = Vec::new();
    let mut together: Option<Sentence> = None;
    for item in items(&plain) {
        let found = convictions(item);
        for (place, conviction) in found.iter().enumerate() {
            let next = found.get(place + 1).map_or(item.len(), |next| next.begins);
            let part = &item[conviction.ends..next];
            if ["罪、", "罪和", "罪及", "罪与"].iter().any(|joint| conviction.charge.contains(joint)) {
                return Err("it names several charges with one sentence");
            }
            let (own, rest) = match TOGETHER.iter().filter_map(|word| part.find(word)).min() {
                Some(at) => (&part[..at], Some(&part[at..])),
                None => (part, None),
            };
            let own = SUMS.iter().filter_map(|word| own.find(word)).min().map_or(own, |at| &own[..at]);
            if NOT_FOUND.iter().any(|word| own.contains(word)) {
                continue;
            }
            match (&name, &conviction.name) {
                (Some(known), Some(new)) if known != new => return Err("it has several defendants"),
                (None, Some(new)) => name = Some(new.clone()),
                _ => {}
            }
            let sentence = Sentence::read(clause(own, rest.is_some() || place + 1 < found.len()))?;
            let sentence = sentence.ok_or("it states no sentence for a charge")?;
            charges.push(Charged { charge: conviction.charge.clone(), sentence });
            if let Some(rest) = rest {
                let last =
                    Sentence::read(clause(rest, false))?.ok_or("it states no sentence for all charges together")?;
                if together.replace(last).is_some() {
                    return Err("it states several sentences for all charges together");
                }
            }
        }
        if found.is_empty()
            && let Some(at) = TOGETHER.iter().filter_map(|word| item.find(word)).min()
        {
            let last =
                Sentence::read(clause(&item[at..], false))?.ok_or("it states no sentence for all charges together")?;
            if together.replace(last).is_some() {
                return Err("it states several sentences for all charges together");
            }
        }
    }
    let known = name.as_deref().unwrap_or_default();
    if items(&plain).iter().any(|item| judges_another(item, known)) {
        return Err("it has several defendants");
    }
    if let Some(at) = plain.find("无罪")
        && charges.is_empty()
    {
        let name = name_before(&plain[..at]).ok_or("it does not name the defendant")?;
        if plain.matches("无罪").count() > 1 {
            return Err("it has several defendants");
        }
        return Ok(Defendant { name, charges, sentence: Sentence { kind: "无罪", ..Sentence::default() } });
    }
    if charges.is_empty() {
        return Err("its verdict names no charge");
    }
    if MERGED.iter().any(|word| plain.contains(word)) {
        return Err("an older sentence goes into this one");
    }
    let mut seen: Vec<&str> = charges.iter().map(|charged| charged.charge.as_str()).collect();
    seen.sort_unstable();
    if seen.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("it names a charge twice");
    }
    let sentence = match (charges.as_slice(), together) {
        ([only], None) => only.sentence.clone(),
        ([_], Some(_)) => return Err("an older sentence goes into this one"),
        (_, Some(together)) => together,
        (_, None) => return Err("it has several charges and no sentence for all of them"),
    };
    let name = name.ok_or("it does not name the defendant")?;
    Ok(Defendant { name, charges, sentence })
}

/// Whether an item judges another person: 三、被告人周某无罪.
fn judges_another(item: &str, known: &str) -> bool {
    let item = item.trim_start_matches(|c: char| "一二三四五六七八九十、 \u{3000}\n".contains(c));
    let judges = ["判处", "无罪", "免予刑事", "免于刑事", "单处"].iter().any(|word| item.contains(word));
    !known.is_empty() && judges && item.strip_prefix("被告人").is_some_and(|name| !name.trim_start().starts_with(known))
}

/// The length up to which brackets belong to a charge's name, in characters: 故意杀人（未遂）罪.
const SHORT: usize = 4;

/// The text without longer remarks in brackets, such as the date from which a term is counted, sums that were paid, or
/// time that was served.
fn without_brackets(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let (mut depth, mut inside) = (0_usize, String::new());
    for c in text.chars() {
        match c {
            '（' | '(' | '﹙' => depth += 1,
            ')' | '）' | '﹚' if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    if inside.chars().count() <= SHORT {
                        plain.extend(["（", &inside, "）"]);
                    }
                    inside.clear();
                }
            }
            c if depth == 0 => plain.push(c),
            c => inside.push(c),
        }
    }
    plain
}

/// The text without line ends inside a clause. Line ends after punctuation, before an item or before 被告人 stay.
fn joined_lines(text: &str) -> String {
    let mut joined = String::with_capacity(text.len());
    for line in text.split_whitespace() {
        let ended = joined.chars().next_back().is_none_or(|c| "，。；：、,;:”…".contains(c));
        let number = line.chars().take_while(|c| "一二三四五六七八九十0123456789".contains(*c)).count();
        let item = number > 0 && line.chars().nth(number).is_some_and(|c| matches!(c, '、' | '.' | '．'));
        if ended || item || line.starts_with("被告人") {
            joined.push('\n');
        }
        joined.push_str(line);
    }
    joined
}

/// The numbered items of a verdict: 一、… 二、…
fn items(text: &str) -> Vec<&str> {
    let mut starts = vec![0];
    for (at, _) in text.match_indices('、') {
        let number = text[..at].chars().rev().take_while(|c| "一二三四五六七八九十".contains(*c)).count();
        if number == 0 || number > 2 {
            continue;
        }
        let begin = text[..at].char_indices().rev().nth(number - 1).map_or(0, |(at, _)| at);
        let before = text[..begin].trim_end().chars().next_back();
        if before.is_none_or(|c| "。；;：:，）".contains(c)) || text[..begin].ends_with([' ', '\n', '\u{3000}']) {
            starts.push(begin);
        }
    }
    starts.push(text.len());
    starts.windows(2).map(|pair| &text[pair[0]..pair[1]]).filter(|item| !item.trim().is_empty()).collect()
}

/// A conviction: 被告人王某犯盗窃罪.
struct Conviction {
    /// Its beginning in the item.
    begins: usize,
    /// The end of its charge in the item.
    ends: usize,
    name: Option<String>,
    charge: String,
}

fn convictions(item: &str) -> Vec<Conviction> {
    let mut found: Vec<Conviction> = Vec::new();
    for (at, word) in item.match_indices('犯') {
        if found.last().is_some_and(|last| at < last.ends) {
            continue;
        }
        let before = item[..at].chars().next_back();
        let rest = &item[at + word.len()..];
        // 犯罪, 主犯, 累犯 and the like are no convictions.
        if rest.starts_with(['罪', '人', '的']) || before.is_some_and(|c| "主从累罪惯".contains(c)) {
            continue;
        }
        let stop = STOPS.iter().filter_map(|stop| rest.find(stop)).min().unwrap_or(rest.len());
        let Some(end) = rest[..stop].rfind('罪') else { continue };
        let charge =
            rest[..end].trim_start_matches(['有', '了', '：', '“', '"']).trim_matches(['“', '”', '"', ' ', '\u{3000}']);
        let charge: String = charge.chars().filter(|c| !c.is_whitespace()).collect();
        if charge.is_empty() || charge.chars().count() > 40 {
            continue;
        }
        let ends = at + word.len() + end + '罪'.len_utf8();
        found.push(Conviction { begins: at, ends, name: name_before(&item[..at]), charge });
    }
    found
}

/// The name at the end of a text: 被告人王某.
fn name_before(text: &str) -> Option<String> {
    let (_, name) = text.rsplit_once("被告人")?;
    let name: String = name.chars().filter(|c| !c.is_whitespace() && !"：:“”\"".contains(*c)).collect();
    let plain = !name.is_empty() && name.chars().count() <= 15 && !name.contains(['，', '；', '。', '、', '犯']);
    plain.then_some(name)
}

/// The part of a text that holds the sentence: up to its full stop, or up to the next conviction.
fn clause(text: &str, followed: bool) -> &str {
    if followed {
        return text;
    }
    let mut end = text.find('。').unwrap_or(text.len());
    // 判处有期徒刑三年。宣告缓刑，缓刑考验期为四年。
    let rest = text[end..].trim_start_matches(['。', ' ', '\n']);
    let more = ["宣告缓刑", "并处罚金", "罚金人民币"].iter().any(|word| rest.starts_with(word));
    if more || rest.starts_with("缓刑") && !rest.starts_with("缓刑考验期") {
        let begin = text.len() - rest.len();
        end = rest.find('。').map_or(text.len(), |at| begin + at);
    }
    let part = &text[..end];
    // Some courts repeat the kind in 刑期从判决执行之日起计算.
    let end = ["刑期自", "刑期从", "刑期的", "缓刑考验期从", "缓刑考验期限从", "缓刑考验期自"]
        .iter()
        .filter_map(|word| part.find(word))
        .min();
    &part[..end.unwrap_or(part.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_charge_and_several() {
        let one = read(
            "一、被告人王某犯盗窃罪，判处有期徒刑一年二个月，并处罚金人民币三千元。（刑期自2016年起） 二、责令退赔。",
        )
        .unwrap();
        assert_eq!((one.name.as_str(), one.charges[0].charge.as_str()), ("王某", "盗窃"));
        assert_eq!((one.sentence.months, one.sentence.fine), (Some(14.0), Some(3000.0)));
        let text = "被告人李某犯掩饰、隐瞒犯罪所得罪，判处拘役三个月；犯诈骗罪，判处有期徒刑八个月；数罪并罚，决定执行有期徒刑八个月。";
        let several = read(text).unwrap();
        let names: Vec<&str> = several.charges.iter().map(|charged| charged.charge.as_str()).collect();
        assert_eq!(names, ["掩饰、隐瞒犯罪所得", "诈骗"]);
        assert_eq!(several.sentence.months, Some(8.0));
        let acquitted =
            read("一、被告人赵某犯盗窃罪，判处拘役一个月。二、被告人赵某犯抢劫罪证据不足，指控不成立。").unwrap();
        assert_eq!(acquitted.charges.len(), 1);
        assert_eq!(read("被告人钱某无罪。").unwrap().sentence.kind, "无罪");
    }

    #[test]
    fn what_is_not_clear_is_refused_with_the_reason() {
        for (text, why) in [
            ("被告人王某犯盗窃罪，判处拘役一个月；被告人李某犯盗窃罪，判处拘役二个月。", "several defendants"),
            ("撤销某法院判决中对王某的缓刑部分；被告人王某犯盗窃罪，判处拘役一个月。", "older sentence"),
            ("被告人王某犯盗窃罪、诈骗罪，判处拘役一个月。", "several charges with one"),
            ("一、被告人王某犯盗窃罪，判处拘役一个月。二、被告人李某无罪。", "several defendants"),
            ("驳回起诉。", "no charge"),
            ("被告人王某犯盗窃罪，判处有期徒刑一年；犯诈骗罪，判处有期徒刑二年。", "no sentence for all"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
