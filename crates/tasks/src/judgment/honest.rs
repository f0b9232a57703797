//! What must be said wherever this task's figures or outputs are shown.

/// In English, one paragraph.
pub const HONEST_WORDS: &str = "The built-in cases are synthetic: they were made from a table of tiers and factors and say \
nothing about real courts. The model estimates what a court decided, not what is lawful or just. The range that counts as \
right is a convention of this project, not the law's. This is not legal advice, and it must not decide or recommend a \
sentence: artificial intelligence does not take the judge's place (法发〔2022〕33号). The reasoning that is printed need not be \
what caused the answer.";

/// In Chinese, one paragraph.
pub const HONEST_WORDS_ZH: &str = "内置案例是由量刑档次表与情节表合成的，不反映任何真实法院的情况。模型估计的是法院曾经怎样判，\
而不是怎样判才合法或者公正；评分所用的幅度是本项目的约定，并非法律规定。输出不是法律意见，也不得用来决定或者建议刑罚：人工智能不得代替\
法官裁判（法发〔2022〕33号）。所显示的推理过程不一定是得出答案的原因。";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages_say_every_point() {
        for point in ["synthetic", "estimates", "not legal advice", "must not decide", "33号", "need not be"] {
            assert!(HONEST_WORDS.contains(point), "{point}");
        }
        for point in ["合成", "估计", "不是法律意见", "不得用来决定", "33号", "不一定是"] {
            assert!(HONEST_WORDS_ZH.contains(point), "{point}");
        }
    }
}
