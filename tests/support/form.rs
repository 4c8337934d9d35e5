//! The first form of an HTML page, as far as the pages of the tests need it.

/// A form: where it goes and what it sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// The URL it is sent to, as written; empty means the page itself.
    pub action: String,
    /// Whether it is posted.
    pub posted: bool,
    /// Names and values of its fields and of its last named button.
    pub fields: Vec<(String, String)>,
}

impl Form {
    /// Finds the first form of a page; buttons after its end belong to it too.
    #[must_use]
    pub fn first(page: &str) -> Option<Self> {
        let mut form: Option<Self> = None;
        for tag in page.split('<').skip(1).map(|rest| rest.split('>').next().unwrap_or_default()) {
            let name = tag.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
            let attribute = |name| attribute(tag, name).unwrap_or_default();
            match (&mut form, name.as_str()) {
                (None, "form") => {
                    let posted = attribute("method").eq_ignore_ascii_case("post");
                    form = Some(Self { action: attribute("action"), posted, fields: Vec::new() });
                }
                (Some(form), "input" | "button") if !attribute("name").is_empty() => {
                    form.fields.push((attribute("name"), attribute("value")));
                }
                _ => {}
            }
        }
        form
    }

    /// Whether it has a field of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(field, _)| field == name)
    }

    /// Types a value into a field.
    pub fn fill(&mut self, name: &str, value: &str) {
        for (_, old) in self.fields.iter_mut().filter(|(field, _)| field == name) {
            value.clone_into(old);
        }
    }

    /// The fields as `application/x-www-form-urlencoded`.
    #[must_use]
    pub fn encoded(&self) -> String {
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.fields).finish()
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let start = tag.find(&format!(" {name}=")).or_else(|| tag.find(&format!("\n{name}=")))? + name.len() + 2;
    let rest = &tag[start..];
    let value = match rest.chars().next()? {
        quote @ ('"' | '\'') => rest[1..].split(quote).next()?,
        _ => rest.split_whitespace().next()?,
    };
    Some(value.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_found_with_its_fields() {
        let page = r#"<p>x<form method="post" action="/a?b=1&amp;c=2"><input type="hidden" name="x" value="1">
            <input name='login' required></form><button name="go" value="yes">"#;
        let mut form = Form::first(page).unwrap();
        form.fill("login", "alice");
        assert_eq!((form.action.as_str(), form.posted), ("/a?b=1&c=2", true));
        assert_eq!(form.encoded(), "x=1&login=alice&go=yes");
    }

    #[test]
    fn a_page_without_a_form_has_none() {
        assert_eq!(Form::first("<p>nothing"), None);
    }
}
