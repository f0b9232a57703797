//! An article of the Criminal Law (刑法) in the notation of judgments: 第二百六十四条, 第一百三十三条之一.

use std::fmt;

use super::numerals;

/// An article of the Criminal Law, with its 之一, 之二 … as `sub` (0 without).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Article {
    /// The article's number, such as 264 in 第二百六十四条.
    pub number: u16,
    /// The number after 之, such as 1 in 第一百三十三条之一.
    pub sub: u8,
}

impl Article {
    /// The number of the law's last article, 第四百五十二条.
    pub const LAST: u16 = 452;

    /// Parses an article: `第二百六十四条`, `刑法第133条之一`, `264`, `133之一`, `133-1`. A paragraph (第一款) may follow and is dropped.
    ///
    /// # Errors
    /// A sentence if the text is no article, or one beyond the law's last article.
    pub fn parse(text: &str) -> Result<Article, String> {
        let wrong = || format!("{text:?} is not an article");
        let body = text.trim();
        let body = ["《中华人民共和国刑法》", "中华人民共和国刑法", "《刑法》", "刑法"]
            .iter()
            .find_map(|law| body.strip_prefix(law))
            .unwrap_or(body);
        let (number, rest) = match body.strip_prefix('第') {
            Some(rest) => rest.split_once('条').ok_or_else(wrong)?,
            None => {
                let end = body.find(['-', '之']).unwrap_or(body.len());
                body.split_at(end)
            }
        };
        let number = numerals::parse(number).ok_or_else(wrong)?;
        let (rest, paragraph) = match rest.find('第') {
            Some(start) => rest.split_at(start),
            None => (rest, ""),
        };
        if !paragraph.is_empty() {
            let inner = paragraph.strip_prefix('第').and_then(|p| p.strip_suffix('款'));
            inner.and_then(numerals::parse).ok_or_else(wrong)?;
        }
        let sub = match rest {
            "" => 0,
            _ => {
                let digits = rest.strip_prefix('之').or_else(|| rest.strip_prefix('-'));
                digits.and_then(numerals::parse).filter(|&sub| sub > 0 && sub < 20).ok_or_else(wrong)?
            }
        };
        match u16::try_from(number) {
            Ok(number) if (1..=Article::LAST).contains(&number) => Ok(Article { number, sub: sub as u8 }),
            _ => Err(format!("the Criminal Law has no article {number}")),
        }
    }
}

impl fmt::Display for Article {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "第{}条", numerals::chinese(u32::from(self.number)))?;
        match self.sub {
            0 => Ok(()),
            sub => write!(f, "之{}", numerals::chinese(u32::from(sub))),
        }
    }
}
