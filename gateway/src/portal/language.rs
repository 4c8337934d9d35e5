//! The languages of the pages. English stands in the code; each other language is a file of the same sentences.
//!
//! Which one a page speaks is the browser's wish (`Accept-Language`), and belongs to the request: [`speaking`] says it for all that
//! answers one, so that no page has to be told. What programs read (logs, problem documents, the command line) stays English.

use std::{borrow::Cow, collections::HashMap, sync::OnceLock};

use http::{HeaderMap, HeaderValue, header};
use maud::{Markup, Render as _, html};

/// Languages that a browser lists, of which so many are looked at.
const WISHES_MAX: usize = 16;

/// What stands for a part of a sentence that is filled in.
const GAP: &str = "{}";

tokio::task_local! {
    static SPOKEN: Language;
}

/// A language that the pages speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// As in the code.
    English,
    /// `languages/de.txt`.
    German,
}

/// Answers a request in a language.
pub async fn speaking<T>(language: Language, answer: impl Future<Output = T>) -> T {
    SPOKEN.scope(language, answer).await
}

/// A sentence in the language of the request; as it is where that language does not have it. What was filled into the English one
/// is found where the file has `{}`.
#[must_use]
pub fn say(english: &str) -> Cow<'_, str> {
    match Language::spoken().catalogue() {
        Some(catalogue) => catalogue.translate(english).map_or(Cow::Borrowed(english), Cow::Owned),
        None => Cow::Borrowed(english),
    }
}

/// A sentence with markup where it has `{}`.
#[must_use]
pub fn phrase(english: &'static str, parts: &[Markup]) -> Markup {
    let sentence = match Language::spoken().catalogue() {
        Some(catalogue) => catalogue.sentences.get(english).copied().unwrap_or(english),
        None => english,
    };
    let mut parts = parts.iter();
    html! {
        @for (index, text) in sentence.split(GAP).enumerate() {
            @if index > 0 && let Some(part) = parts.next() { (part) }
            (text.render())
        }
    }
}

impl Language {
    /// What the browser asks for most, of what there is (RFC 9110, 12.5.4).
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all(header::ACCEPT_LANGUAGE).iter();
        let wishes =
            values.filter_map(|value| HeaderValue::to_str(value).ok()).flat_map(|value| value.split(','));
        let mut best = (Self::English, 0.0);
        for (language, weight) in wishes.take(WISHES_MAX).filter_map(wish) {
            if weight > best.1 {
                best = (language, weight);
            }
        }
        best.0
    }

    /// The language of the request that is being answered.
    pub(super) fn spoken() -> Self {
        SPOKEN.try_with(|language| *language).unwrap_or(Self::English)
    }

    /// As HTML's `lang` has it (RFC 5646).
    pub(super) const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
        }
    }

    fn catalogue(self) -> Option<&'static Catalogue> {
        static GERMAN: OnceLock<Catalogue> = OnceLock::new();
        match self {
            Self::English => None,
            Self::German => Some(GERMAN.get_or_init(|| Catalogue::parse(include_str!("languages/de.txt")))),
        }
    }
}

/// One entry of `Accept-Language`: `de-AT;q=0.8`.
fn wish(entry: &str) -> Option<(Language, f32)> {
    let mut parts = entry.split(';');
    let tag = parts.next()?.trim();
    let weight = parts.find_map(|part| part.trim().strip_prefix("q=")).map_or(Ok(1.0), str::parse).ok()?;
    let primary = tag.split('-').next()?;
    let known = [Language::English, Language::German];
    known
        .into_iter()
        .find(|language| language.tag().eq_ignore_ascii_case(primary))
        .map(|language| (language, weight))
}

/// Sentences by their English.
struct Catalogue {
    sentences: HashMap<&'static str, &'static str>,
    /// Those with gaps, which are found by their parts.
    with_gaps: Vec<(&'static str, &'static str)>,
}

impl Catalogue {
    fn parse(text: &'static str) -> Self {
        let lines = || text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let pairs = lines().zip(lines().skip(1));
        let sentences: HashMap<_, _> =
            pairs.filter_map(|(english, other)| Some((english, other.strip_prefix("= ")?))).collect();
        let with_gaps = sentences.iter().filter(|(english, _)| english.contains(GAP));
        Self { with_gaps: with_gaps.map(|(english, other)| (*english, *other)).collect(), sentences }
    }

    fn translate(&self, english: &str) -> Option<String> {
        if let Some(found) = self.sentences.get(english) {
            return Some((*found).to_owned());
        }
        self.with_gaps.iter().find_map(|(pattern, other)| {
            let filled = filled(pattern, english)?;
            let mut filled = filled.into_iter();
            let mut texts = other.split(GAP);
            let first = texts.next()?.to_owned();
            Some(texts.fold(first, |sentence, text| sentence + filled.next().unwrap_or_default() + text))
        })
    }
}

/// What stands in the gaps of `pattern` for it to be `text`.
fn filled<'a>(pattern: &str, text: &'a str) -> Option<Vec<&'a str>> {
    let mut parts = pattern.split(GAP);
    let mut rest = text.strip_prefix(parts.next()?)?;
    let mut parts: Vec<&str> = parts.collect();
    let last = parts.pop()?;
    let mut filled = Vec::new();
    for part in parts {
        let (before, after) = rest.split_once(part)?;
        filled.push(before);
        rest = after;
    }
    filled.push(rest.strip_suffix(last)?);
    Some(filled)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::authorize::Reason;

    fn wished(value: &str) -> Language {
        Language::of(&HeaderMap::from_iter([(header::ACCEPT_LANGUAGE, value.parse().unwrap())]))
    }

    fn in_german<T>(answer: impl FnOnce() -> T) -> T {
        SPOKEN.sync_scope(Language::German, answer)
    }

    #[test]
    fn the_browser_is_answered_in_what_it_asks_for_most() {
        for value in ["de", "de-AT,de;q=0.9,en;q=0.8", "fr, DE-ch;q=0.5, en;q=0.4", "en;q=0.3, de;q=0.7"] {
            assert_eq!(wished(value), Language::German, "{value}");
        }
        for value in ["", "en-GB", "en,de;q=0.9", "fr", "deu", "de;q=0", "de;q=x", ";;", "*"] {
            assert_eq!(wished(value), Language::English, "{value}");
        }
        assert_eq!(Language::of(&HeaderMap::new()), Language::English);
    }

    #[test]
    fn sentences_are_found_whole_by_their_parts_or_not_at_all() {
        assert_eq!(say("Not allowed"), "Not allowed");
        in_german(|| {
            assert_eq!(say("Not allowed"), "Nicht erlaubt");
            assert_eq!(say("Wait until 2026-01-01 08:00 (UTC)."), "Warten Sie bis 2026-01-01 08:00 (UTC).");
            assert_eq!(say("What nobody has translated"), "What nobody has translated");
            let page = phrase("You may not use {} at {}.", &[html! { b { "<x>" } }, html! { "y" }]);
            assert_eq!(page.into_string(), "Sie dürfen <b>&lt;x&gt;</b> unter y nicht benutzen.");
        });
    }

    #[test]
    fn every_sentence_has_its_gaps_in_every_language() {
        for (english, other) in &Language::German.catalogue().unwrap().sentences {
            assert_eq!(english.matches(GAP).count(), other.matches(GAP).count(), "{english}");
        }
    }

    /// The words of the pages, as they stand in the code.
    #[test]
    fn every_sentence_of_the_pages_is_there_in_every_language() {
        let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let literal = regex::Regex::new(
            r#"(?:say|phrase|bad_request|problem)\((?:[^"()]*,\s*)?\s*"((?:[^"\\]|\\[^n])+)""#,
        )
        .unwrap();
        let breaks = regex::Regex::new(r"\\\n\s*").unwrap();
        let catalogue = Language::German.catalogue().unwrap();
        let (mut seen, mut missing) = (0, Vec::new());
        for folder in ["portal", "authenticate"] {
            for file in std::fs::read_dir(source.join(folder)).unwrap() {
                let path = file.unwrap().path();
                if path.extension().is_none_or(|kind| kind != "rs") {
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap();
                for found in literal.captures_iter(code) {
                    let english = breaks.replace_all(&found[1], "").replace("\\\"", "\"");
                    seen += 1;
                    if catalogue.translate(&english).is_none() {
                        missing.push(english);
                    }
                }
            }
        }
        assert!(seen > 80, "only {seen} sentences were found in the code");
        for reason in Reason::ALL {
            let words = reason.sentence_when_refused();
            if catalogue.translate(words).is_none() {
                missing.push(words.to_owned());
            }
        }
        assert_eq!(missing, Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn any_text_is_said(text in ".{0,80}") {
            prop_assert!(in_german(|| !say(&text).is_empty()) || text.is_empty());
        }

        #[test]
        fn any_wish_is_read(value in "[ -~]{0,80}") {
            _ = wished(&value);
        }
    }
}
