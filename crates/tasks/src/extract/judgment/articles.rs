//! The articles of the Criminal Law on which a verdict rests: 依照《中华人民共和国刑法》第二百六十四条、第六十七条第三款之规定.

use super::amounts::number;

/// Words that open the legal basis.
const BASES: [&str; 4] = ["依照", "依据", "根据", "按照"];

/// The articles in the sentence that ends a text, which is the one before the verdict; base numbers, rising. Other laws are passed over.
pub fn cited(before_verdict: &str) -> Vec<u32> {
    let sentence = match before_verdict.rfind('。') {
        Some(at) => &before_verdict[at..],
        None => before_verdict,
    };
    let Some(from) = BASES.iter().filter_map(|word| sentence.find(word)).min() else { return Vec::new() };
    let mut articles = Vec::new();
    let (mut criminal, mut rest) = (false, &sentence[from..]);
    while let Some(c) = rest.chars().next() {
        let step = match c {
            '《' => {
                let name = rest.split('》').next().unwrap_or(rest);
                criminal = name.ends_with("刑法");
                name.len()
            }
            '第' => {
                let after = &rest[c.len_utf8()..];
                match number(after) {
                    // 第七十二第一款 lacks its 条.
                    Some((value, taken)) if criminal && after[taken..].trim_start().starts_with(['条', '第']) => {
                        if (1.0..=452.0).contains(&value) && value.fract() == 0.0 {
                            articles.push(value as u32);
                        }
                        c.len_utf8() + taken
                    }
                    Some((_, taken)) => c.len_utf8() + taken,
                    None => c.len_utf8(),
                }
            }
            c => c.len_utf8(),
        };
        rest = &rest[step.min(rest.len())..];
    }
    articles.sort_unstable();
    articles.dedup();
    articles
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
        assert_eq!(cited("依照《中华人民共和国刑法》第３４７条第七款"), [347]);
    }
}
