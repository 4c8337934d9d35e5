//! What somebody may open: the apps, and the command for what is no web page.

use maud::{Markup, html};

use super::{Frame, Look, Place, SCRIPT_PATH, layout, say};

/// A route, as its user sees it.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is for.
    pub description: &'a str,
    /// Its picture; only one within the page itself (`data:`) is shown.
    pub logo_url: Option<&'a str>,
    /// Where it is.
    pub from: &'a str,
    /// How it is opened.
    pub kind: Kind<'a>,
}

/// How a route is opened.
#[derive(Debug, Clone, Copy)]
pub enum Kind<'a> {
    /// By the browser, at [`Entry::from`].
    Page,
    /// By this command.
    Command(&'a str),
}

impl Entry<'_> {
    fn text(&self) -> String {
        format!("{} {} {}", self.name, self.description, self.from).to_lowercase()
    }

    /// Whether each of the words occurs.
    fn is_meant_by(&self, search: &str) -> bool {
        let text = self.text();
        search.to_lowercase().split_whitespace().all(|word| text.contains(word))
    }
}

/// Those routes that `search` means: all of them, when it is empty.
#[must_use]
pub fn routes(look: &Look, entries: &[Entry<'_>], search: &str) -> String {
    let shown: Vec<_> = entries.iter().filter(|entry| entry.is_meant_by(search)).collect();
    let content = html! {
        h1 { (say("Apps")) }
        form.search role="search" {
            input type="search" name="q" value=(search) aria-label=(say("Search")) placeholder=(say("Search by name or address")) maxlength="100";
            noscript { button.second { (say("Search")) } }
        }
        ul.routes { @for entry in &shown { (card(entry)) } }
        @if entries.is_empty() {
            p { (say("There is nothing here that you may open now. If you miss something, ask your administrator.")) }
        } @else {
            p data-none hidden[!shown.is_empty()] { (say("Nothing that you may open matches.")) }
        }
    };
    layout(Frame { look, title: "Apps", place: Some(Place::Routes), script: Some(SCRIPT_PATH) }, &content)
}

fn card(entry: &Entry<'_>) -> Markup {
    let initial = entry.name.chars().next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let picture = entry.logo_url.filter(|url| url.starts_with("data:image/"));
    html! {
        li data-text=(entry.text()) {
            @match picture {
                Some(url) => img.icon src=(url) alt="";,
                None => span.icon aria-hidden="true" { (initial) },
            }
            h2 {
                @match entry.kind {
                    Kind::Page if entry.from.starts_with("https://") => a href=(entry.from) { (entry.name) },
                    Kind::Page | Kind::Command(_) => (entry.name),
                }
            }
            p.quiet { @if entry.description.is_empty() { (entry.from) } @else { (entry.description) } }
            @if let Kind::Command(line) = entry.kind {
                div.line {
                    code { (line) }
                    button.second.small type="button" data-copy=(line) data-done=(say("Copied")) hidden { (say("Copy")) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_means_what_has_all_its_words() {
        let entries = [
            Entry {
                name: "Wiki",
                description: "What we know",
                logo_url: None,
                from: "https://wiki.corp.example",
                kind: Kind::Page,
            },
            Entry {
                name: "db",
                description: "",
                logo_url: None,
                from: "tcp+https://db.corp.example:5432",
                kind: Kind::Command("pomerium-cli tcp db.corp.example:5432"),
            },
        ];
        let page = |search| routes(&Look::default(), &entries, search);
        let (wiki, db) =
            (r#"<a href="https://wiki.corp.example">Wiki</a>"#, r#"data-copy="pomerium-cli tcp db"#);
        assert!(page("").contains(wiki) && page("").contains(db));
        assert!(page("KNOW wiki").contains(wiki) && !page("know wiki").contains(db));
        assert!(page("5432").contains(db) && !page("5432").contains(wiki));
        assert!(page("wiki db").contains("<p data-none>Nothing"));
        assert!(routes(&Look::default(), &[], "").contains("nothing here that you may open"));
    }
}
