//! Stop strings in streamed text: what may be shown, and whether to stop.
//!
//! Text that may be the beginning of a stop string is kept back until that is decided, so no part of a stop string is
//! ever shown. Nothing after the beginning of a stop string is shown.

/// A stream of text that is cut at the first stop string.
#[derive(Clone, Debug)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

impl StopStrings {
    /// Searches for `stops`; empty ones never match.
    pub fn new(stops: &[String]) -> Self {
        Self { stops: stops.to_vec(), held: String::new(), stopped: false }
    }

    /// Adds text and returns what may be shown.
    pub fn push(&mut self, text: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(text);
        let stops = || self.stops.iter().filter(|stop| !stop.is_empty());
        if let Some(at) = stops().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let open = stops().map(|stop| longest_beginning(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - open);
        std::mem::replace(&mut self.held, rest)
    }

    /// Whether a stop string was found.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Ends the stream and returns the text that was kept back.
    pub fn finish(self) -> String {
        if self.stopped { String::new() } else { self.held }
    }
}

/// The length in bytes of the end of `text` that is a beginning of `stop`.
fn longest_beginning(text: &str, stop: &str) -> usize {
    let most = text.len().min(stop.len() - 1);
    (1..=most).rev().find(|&len| text.as_bytes().ends_with(&stop.as_bytes()[..len])).map_or(0, |len| {
        // The beginning of a multi-byte character is never the end of valid text.
        debug_assert!(text.is_char_boundary(text.len() - len));
        len
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes the pieces; returns the parts that are shown, and whether it stopped.
    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let stops: Vec<String> = stops.iter().map(|stop| stop.to_string()).collect();
        let mut watch = StopStrings::new(&stops);
        let mut shown: Vec<String> = pieces.iter().map(|piece| watch.push(piece)).collect();
        let stopped = watch.stopped();
        shown.push(watch.finish());
        (shown, stopped)
    }

    #[test]
    fn a_stop_string_over_several_pieces_is_never_shown() {
        assert_eq!(
            run(&["###"], &["a#", "#b", "##", "# rest"]),
            (vec!["a".into(), "##b".into(), "".into(), "".into(), "".into()], true)
        );
        assert_eq!(run(&["句号。"], &["一句", "号", "。二"]).0.concat(), "一");
    }

    #[test]
    fn text_held_back_in_vain_comes_at_the_end() {
        assert_eq!(run(&["END"], &["the EN"]), (vec!["the ".into(), "EN".into()], false));
        assert_eq!(run(&[], &["a", "b"]).0.concat(), "ab");
        assert_eq!(run(&[""], &["a"]), (vec!["a".into(), "".into()], false));
    }

    #[test]
    fn the_first_of_several_stop_strings_cuts() {
        assert_eq!(run(&["\n\n", "Q:"], &["yes\nQ: no\n\n"]).0.concat(), "yes\n");
    }
}
