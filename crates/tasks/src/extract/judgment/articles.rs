//! The articles of the Criminal Law that a verdict cites as its basis: 依照《中华人民共和国刑法》第二百六十四条、第六十七条第三款之规定.

use super::amounts::number;

/// Words that begin the legal basis.
const BASES: [&str; 4] = ["依照", "依据", "根据", "按照"];
/// The last article of the Criminal Law.
const LAST: f64 = 452.0;

/// The articles that the last sentence of a text cites; that is the sentence before the verdict. Returns base numbers,
/// in increasing order. Other laws are skipped.
pub fn cited(before_verdict: &str) -> Vec<u32> {
    let text = before_verdict.trim_end_matches(|c: char| c.is_whitespace() || "。：:，".contains(c));
    let begin = |text: &str| text.rfind('。').map_or(0, |at| at + '。'.len_utf8());
    let last = begin(text);
    if let Some(found) = basis(&text[last..]) {
        return found;
    }
    // The basis may be a sentence of its own before the one that opens the verdict.
    let before = text[..last].trim_end_matches('。');
    let sentence = &before[begin(before)..];
    if sentence.ends_with("规定") { basis(sentence).unwrap_or_default() } else { Vec::new() }
}

/// The articles that a sentence cites after 依照 or a similar word; `None` if it names no law there.
fn basis(sentence: &str) -> Option<Vec<u32>> {
    // Some sources break lines at arbitrary places.
    let sentence: String = sentence.chars().filter(|c| !c.is_whitespace()).collect();
    let places = BASES.iter().flat_map(|word| sentence.match_indices(word)).map(|(at, _)| at);
    let from = places.filter(|&at| sentence[at..].contains('《') || sentence[at..].contains("刑法")).min()?;
    let mut articles = Vec::new();
    let (mut criminal, mut rest) = (false, &sentence[from..]);
    while let Some(c) = rest.chars().next() {
        let (values, taken) = numbers(rest.strip_prefix('第').unwrap_or(rest));
        let step = if c == '《' {
            let name = rest.split('》').next().unwrap_or(rest);
            criminal = name.ends_with("刑法");
            name.len()
        } else if !values.is_empty() {
            let taken = taken + if c == '第' { c.len_utf8() } else { 0 };
            // 第七十二第一款 lacks its 条, and 、五十三条 lacks its 第.
            let ended = rest[taken..].starts_with('条') || c == '第' && rest[taken..].starts_with('第');
            if criminal && ended {
                articles
                    .extend(values.iter().filter(|v| (1.0..=LAST).contains(*v) && v.fract() == 0.0).map(|v| *v as u32));
            }
            taken
        } else {
            // The law's name without title marks.
            if rest.starts_with("刑法第") {
                criminal = true;
            } else if rest.starts_with("刑事诉讼法第") {
                criminal = false;
            }
            c.len_utf8()
        };
        rest = &rest[step.min(rest.len())..];
    }
    articles.sort_unstable();
    articles.dedup();
    Some(articles)
}

/// The numbers with which a text begins, as in 五十二、五十三条, and their length in bytes.
fn numbers(text: &str) -> (Vec<f64>, usize) {
    let (mut values, mut end) = (Vec::new(), 0);
    let mut from = 0;
    while let Some((value, taken)) = number(&text[from..]) {
        values.push(value);
        end = from + taken;
        match text[end..].chars().next().filter(|c| matches!(c, '、' | '和' | '及')) {
            Some(joint) => from = end + joint.len_utf8(),
            None => break,
        }
    }
    (values, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn articles_of_the_criminal_law_alone() {
        let text = "累犯适用第六十五条。综上，依照《中华人民共和国刑法》第二百六十四条、第七十二第一款、第一百三十三条之一第一款，\
                    第五三条，《最高人民法院关于适用〈中华人民共和国刑法〉的解释》第四条，《中华人民共和国刑事诉讼法》第十五条之规定，";
        assert_eq!(cited(text), [53, 72, 133, 264]);
        assert_eq!(cited("没有依据。"), Vec::<u32>::new());
        let text = "依据《中华人民共和国》刑法第二百六十四条、五十二条、第五十三条、第六十一、六十二条、第七十三条第二、三\n款之规定。判决如下：";
        assert_eq!(cited(text.strip_suffix("判决如下：").unwrap()), [52, 53, 61, 62, 73, 264]);
        // An article after which the court only weighs the sentence is no basis of the verdict.
        assert_eq!(cited("依照《中华人民共和国刑法》第六十七条可以从轻。综上，"), Vec::<u32>::new());
        assert_eq!(cited("依照《中华人民共和国刑法》第３４７条第七款"), [347]);
    }
}
