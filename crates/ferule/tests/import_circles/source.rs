//! What a source file declares, imports and mentions, from its tokens. Test code is left out.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::BTreeSet;

/// One module: a file, or a `mod x { … }` in one.
#[derive(Debug, Default)]
pub struct Source {
    /// Items that it defines.
    pub items: BTreeSet<String>,
    /// Its `use` declarations.
    pub uses: Vec<Use>,
    /// Paths of two or more names in its code.
    pub paths: BTreeSet<Vec<String>>,
    /// Names that stand in its code outside `use`.
    pub words: BTreeSet<String>,
    /// Modules in files of their own.
    pub declared: Vec<String>,
    /// Modules that stand in this one's braces.
    pub inline: Vec<(String, Source)>,
}

/// One name that a `use` declaration brings in.
#[derive(Debug, Clone)]
pub struct Use {
    /// The name in this module; none for `*`.
    pub name: Option<String>,
    /// What it stands for.
    pub path: Vec<String>,
    /// Whether others may take it from here.
    pub public: bool,
}

/// Words after which an item's name stands.
const ITEMS: [&str; 9] = ["fn", "struct", "enum", "trait", "type", "const", "static", "union", "macro_rules"];

impl Source {
    /// The module of a file's text.
    pub fn parse(text: &str) -> Source {
        let tokens: TokenStream = text.parse().expect("Rust");
        let mut source = Source::default();
        source.read(&tokens.into_iter().collect::<Vec<_>>(), true);
        source
    }

    /// `items` is false inside braces, where what is declared is nobody else's.
    fn read(&mut self, tokens: &[TokenTree], items: bool) {
        let mut at = 0;
        while at < tokens.len() {
            let word = word(tokens.get(at)).unwrap_or_default();
            match &tokens[at] {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    let (end, test) = attribute(tokens, at);
                    at = if test { after_item(tokens, end) } else { end };
                }
                TokenTree::Ident(_) if word == "use" && !is(tokens.get(at + 1), '<') => {
                    let end = (at..tokens.len()).find(|&end| is(tokens.get(end), ';')).unwrap_or(tokens.len());
                    use_tree(&tokens[at + 1..end], Vec::new(), is_public(&tokens[..at]), &mut self.uses);
                    at = end;
                }
                TokenTree::Ident(_) if word == "mod" && items => {
                    let name = self::word(tokens.get(at + 1)).unwrap_or_default();
                    match tokens.get(at + 2) {
                        Some(TokenTree::Group(group)) => {
                            let mut inner = Source::default();
                            inner.read(&group.stream().into_iter().collect::<Vec<_>>(), true);
                            self.inline.push((name, inner));
                        }
                        _ => self.declared.push(name),
                    }
                    at += 3;
                }
                TokenTree::Ident(_) => {
                    let (path, end) = path(tokens, at);
                    if items && ITEMS.contains(&word.as_str()) {
                        let bang = usize::from(is(tokens.get(end), '!'));
                        self.items.extend(self::word(tokens.get(end + bang)));
                    }
                    if at == 0 || !is(tokens.get(at - 1), '.') {
                        self.words.insert(word);
                    }
                    if path.len() > 1 {
                        self.paths.insert(path);
                    }
                    at = end;
                }
                TokenTree::Group(group) => {
                    self.read(&group.stream().into_iter().collect::<Vec<_>>(), false);
                    at += 1;
                }
                _ => at += 1,
            }
        }
    }
}

fn word(token: Option<&TokenTree>) -> Option<String> {
    match token {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    }
}

fn is(token: Option<&TokenTree>, mark: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == mark)
}

fn is_group(token: Option<&TokenTree>, delimiter: Delimiter) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.delimiter() == delimiter)
}

/// The end of the attribute at `at`, and whether it leaves its item to tests.
fn attribute(tokens: &[TokenTree], at: usize) -> (usize, bool) {
    let inner = usize::from(is(tokens.get(at + 1), '!'));
    let test = match tokens.get(at + 1 + inner) {
        Some(TokenTree::Group(group)) => {
            let text = group.stream().to_string().replace(' ', "");
            text == "test" || text == "cfg(test)" || text.starts_with("cfg(all(test,")
        }
        _ => false,
    };
    (at + 2 + inner, test)
}

/// The end of the item that begins at `at`, further attributes first.
fn after_item(tokens: &[TokenTree], mut at: usize) -> usize {
    while is(tokens.get(at), '#') {
        at = attribute(tokens, at).0;
    }
    let ends =
        |&at: &usize| is(tokens.get(at), ';') || is(tokens.get(at), ',') || is_group(tokens.get(at), Delimiter::Brace);
    (at..tokens.len()).find(ends).map_or(tokens.len(), |end| end + 1)
}

/// The names joined by `::` from `at` on, and where they end.
fn path(tokens: &[TokenTree], mut at: usize) -> (Vec<String>, usize) {
    let mut names = Vec::new();
    while let Some(name) = word(tokens.get(at)) {
        names.push(name);
        at += 1;
        if !(is(tokens.get(at), ':') && is(tokens.get(at + 1), ':') && word(tokens.get(at + 2)).is_some()) {
            break;
        }
        at += 2;
    }
    (names, at)
}

/// Whether `pub` or `pub(…)` stands at the end.
fn is_public(before: &[TokenTree]) -> bool {
    let before = match before {
        [rest @ .., last] if is_group(Some(last), Delimiter::Parenthesis) => rest,
        all => all,
    };
    word(before.last()).is_some_and(|word| word == "pub")
}

fn use_tree(tokens: &[TokenTree], mut stem: Vec<String>, public: bool, uses: &mut Vec<Use>) {
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Ident(ident) if ident == "as" => {
                uses.push(Use { name: word(tokens.get(at + 1)), path: stem, public });
                return;
            }
            TokenTree::Ident(ident) => stem.push(ident.to_string()),
            TokenTree::Group(group) => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                for branch in inner.split(|token| is(Some(token), ',')).filter(|branch| !branch.is_empty()) {
                    use_tree(branch, stem.clone(), public, uses);
                }
                return;
            }
            TokenTree::Punct(punct) if punct.as_char() == '*' => {
                uses.push(Use { name: None, path: stem, public });
                return;
            }
            _ => {}
        }
    }
    // `use a::{self}` brings in `a`.
    stem.pop_if(|last| last == "self");
    uses.push(Use { name: stem.last().cloned(), path: stem, public });
}
