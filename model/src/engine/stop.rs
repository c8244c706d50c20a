//! Strings that end a text, found as it comes.

/// Holds text back as long as it may be the beginning of a string that ends it.
#[derive(Debug, Default)]
pub(super) struct StopStrings {
    strings: Vec<String>,
    held: String,
}

impl StopStrings {
    pub(super) fn new(strings: Vec<String>) -> Self {
        Self {
            strings: strings.into_iter().filter(|string| !string.is_empty()).collect(),
            held: String::new(),
        }
    }

    /// Takes more text. Gives what is certain to be in front of any of the strings, and whether one of them has come: then nothing
    /// comes behind.
    pub(super) fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        if let Some(end) = self.strings.iter().filter_map(|string| self.held.find(string)).min() {
            self.held.truncate(end);
            return (std::mem::take(&mut self.held), true);
        }
        let is_beginning = |from: usize| {
            let rest = &self.held[from..];
            self.strings.iter().any(|string| string.starts_with(rest))
        };
        let places = self.held.char_indices().map(|(at, _)| at);
        let certain = places.into_iter().find(|&at| is_beginning(at)).unwrap_or(self.held.len());
        let rest = self.held.split_off(certain);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What was held back, when nothing more comes.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::StopStrings;
    use proptest::prelude::*;

    #[test]
    fn text_in_front_of_a_string_comes_and_nothing_behind() {
        let mut stop = StopStrings::new(vec!["END".to_owned(), "\n\n".to_owned(), String::new()]);
        assert_eq!(stop.push("abE"), ("ab".to_owned(), false));
        assert_eq!(stop.push("Nx"), ("ENx".to_owned(), false));
        assert_eq!(stop.push("\n"), (String::new(), false));
        assert_eq!(stop.push("EN"), ("\n".to_owned(), false));
        assert_eq!(stop.push("D\n\n"), (String::new(), true));
        let mut unfinished = StopStrings::new(vec!["END".to_owned()]);
        assert_eq!(unfinished.push("EN"), (String::new(), false));
        assert_eq!(unfinished.finish(), "EN");
    }

    proptest! {
        #[test]
        fn pieces_give_what_the_whole_text_gives(
            pieces in prop::collection::vec("[abé]{0,4}", 0..8),
            strings in prop::collection::vec("[abé]{0,4}", 0..4),
        ) {
            let whole = pieces.concat();
            let ends = strings.iter().filter(|string| !string.is_empty()).filter_map(|string| whole.find(string.as_str()));
            // The earliest end of a string decides, since text comes from the front.
            let mut stop = StopStrings::new(strings.clone());
            let (mut got, mut stopped) = (String::new(), false);
            for piece in pieces.iter().flat_map(|piece| piece.chars()) {
                let (text, ended) = stop.push(piece.encode_utf8(&mut [0; 4]));
                got.push_str(&text);
                if ended {
                    stopped = true;
                    break;
                }
            }
            if !stopped {
                got.push_str(&stop.finish());
                prop_assert_eq!(&got, &whole);
            }
            prop_assert_eq!(stopped, ends.count() > 0);
            prop_assert!(whole.starts_with(&got));
            if stopped {
                let rest = &whole[got.len()..];
                prop_assert!(strings.iter().any(|string| !string.is_empty() && rest.starts_with(string.as_str())));
            }
        }
    }
}
