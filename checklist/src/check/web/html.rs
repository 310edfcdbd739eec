//! What a page consists of, as far as checks want to know: tags with their attributes, scripts, forms, text.

use std::collections::BTreeMap;

use html5gum::emitters::default::DefaultEmitter;
use html5gum::{Token, Tokenizer};

/// A page.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) tags: Vec<Tag>,
    pub(super) forms: Vec<Form>,
    /// Text of the scripts that stand in the page, as they run.
    pub(super) scripts: Vec<String>,
    /// Of each of them, whether it runs: data and what waits for consent does not.
    pub(super) runs: Vec<bool>,
    /// Links: where to, and their words.
    pub(super) links: Vec<(String, String)>,
    /// The text that people see.
    pub(super) text: String,
    /// Of it, what stands in `<main>` or `<article>`.
    pub(super) body: String,
}

/// A tag.
#[derive(Debug, Clone)]
pub(super) struct Tag {
    pub(super) name: String,
    pub(super) attributes: BTreeMap<String, String>,
}

/// A form with its fields.
#[derive(Debug, Default)]
pub(super) struct Form {
    pub(super) action: String,
    pub(super) method: String,
    pub(super) fields: Vec<Tag>,
}

impl Tag {
    /// An attribute; empty where it is not there.
    pub(super) fn get(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

impl Form {
    pub(super) fn posts(&self) -> bool {
        self.method.eq_ignore_ascii_case("post")
    }

    /// Whether somebody logs in with it.
    pub(super) fn has_password(&self) -> bool {
        self.fields.iter().any(|f| f.get("type").eq_ignore_ascii_case("password"))
    }
}

impl Document {
    pub(super) fn parse(html: &str) -> Self {
        let mut page = Self::default();
        let mut emitter = DefaultEmitter::default();
        // Without it the text of scripts would be read as tags.
        emitter.naively_switch_states(true);
        let (mut form, mut script, mut hidden, mut link) = (None::<Form>, false, false, None::<(String, String)>);
        let mut within = 0u32;
        for token in Tokenizer::new_with_emitter(html, emitter) {
            let Ok(token) = token;
            match token {
                Token::StartTag(tag) => {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let attributes = tag.attributes.iter().map(|(k, v)| (text(k), text(v))).collect();
                    let tag = Tag { name: text(&tag.name), attributes };
                    match tag.name.as_str() {
                        "form" => {
                            page.forms.extend(form.take());
                            let (action, method) = (tag.get("action").to_owned(), tag.get("method").to_owned());
                            form = Some(Form { action, method, fields: Vec::new() });
                        }
                        "input" | "button" | "select" | "textarea" => {
                            if let Some(form) = &mut form {
                                form.fields.push(tag.clone());
                            }
                        }
                        "script" => {
                            script = true;
                            page.scripts.push(String::new());
                            let kind = tag.get("type").to_ascii_lowercase();
                            page.runs.push(kind.is_empty() || kind == "module" || kind.contains("javascript"));
                        }
                        "style" | "noscript" | "template" => hidden = true,
                        "main" | "article" => within += 1,
                        "a" => link = Some((tag.get("href").to_owned(), String::new())),
                        _ => {}
                    }
                    page.tags.push(tag);
                }
                Token::EndTag(tag) => match tag.name.as_slice() {
                    b"form" => page.forms.extend(form.take()),
                    b"script" => script = false,
                    b"style" | b"noscript" | b"template" => hidden = false,
                    b"main" | b"article" => within = within.saturating_sub(1),
                    b"a" => page.links.extend(link.take()),
                    _ => {}
                },
                Token::String(text) => {
                    let text = String::from_utf8_lossy(&text);
                    match page.scripts.last_mut() {
                        Some(last) if script => last.push_str(&text),
                        _ if hidden => {}
                        _ => {
                            page.text.push_str(&text);
                            page.text.push(' ');
                            if within > 0 {
                                page.body.push_str(&text);
                                page.body.push(' ');
                            }
                            if let Some((_, words)) = &mut link {
                                words.push_str(&text);
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        page.forms.extend(form);
        page.links.extend(link);
        page
    }

    /// The tags of a name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Tag> {
        self.tags.iter().filter(move |tag| tag.name == name)
    }

    /// The text that people see, with single spaces.
    pub(super) fn words(&self) -> String {
        self.text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_links_scripts_and_text() {
        let page = Document::parse(
            "<html><body><style>p{}</style><p>Hello  <b>you</b></p><a href='/privacy'>Our <i>privacy</i> policy</a>\
             <script src=/a.js></script><script>if (1<2) { x = '<form>' }</script>\
             <form method=POST action=/login><input type=hidden name=csrf value=0123><input type=password></form></body>",
        );
        assert_eq!(page.words(), "Hello you Our privacy policy");
        assert_eq!(page.links, [("/privacy".to_owned(), "Our privacy policy".to_owned())]);
        assert_eq!((page.forms.len(), page.forms[0].fields.len(), page.forms[0].posts()), (1, 2, true));
        assert!(page.forms[0].has_password());
        assert_eq!(page.scripts[1], "if (1<2) { x = '<form>' }");
    }
}
