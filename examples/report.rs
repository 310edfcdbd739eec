//! One HTML file that a person can read: no scripts, no external requests, light and dark.

use std::fmt::Write;

/// A report as it grows.
#[derive(Debug)]
pub struct Report {
    title: String,
    verdict: Verdict,
    body: String,
}

/// How a line, or the whole, is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All is well.
    Good,
    /// Something is worth a look.
    Open,
    /// Something failed.
    Bad,
    /// It is not known.
    Unknown,
}

impl Verdict {
    /// Good where `passed`.
    pub const fn of(passed: bool) -> Self {
        if passed { Self::Good } else { Self::Bad }
    }

    /// In a word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Open => "open",
            Self::Bad => "failed",
            Self::Unknown => "unknown",
        }
    }
}

impl Report {
    /// An empty report.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), verdict: Verdict::Good, body: String::new() }
    }

    /// How the whole is to be read: as its worst part.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// A heading with a verdict of its own.
    pub fn section(&mut self, heading: &str, verdict: Verdict) {
        self.verdict = match (self.verdict, verdict) {
            (Verdict::Bad, _) | (_, Verdict::Bad) => Verdict::Bad,
            (Verdict::Unknown, _) | (_, Verdict::Unknown) => Verdict::Unknown,
            (Verdict::Open, _) | (_, Verdict::Open) => Verdict::Open,
            (Verdict::Good, Verdict::Good) => Verdict::Good,
        };
        let word = verdict.word();
        self.push(format_args!("<h2>{} <span class=\"{word}\">{word}</span></h2>\n", escape(heading)));
    }

    /// A paragraph.
    pub fn text(&mut self, text: &str) {
        self.push(format_args!("<p>{}</p>\n", escape(text)));
    }

    /// A link to a file beside it.
    pub fn link(&mut self, file: &str, text: &str) {
        self.push(format_args!("<p><a href=\"{}\">{}</a></p>\n", escape(file), escape(text)));
    }

    /// Commands to type.
    pub fn commands(&mut self, text: &str) {
        self.push(format_args!("<pre>{}</pre>\n", escape(text)));
    }

    /// A table with a row of headings; cells that are figures are set to the right.
    pub fn table(&mut self, headings: &[&str], rows: &[Vec<String>]) {
        self.push(format_args!("<div class=\"wide\"><table><tr>"));
        for heading in headings {
            self.push(format_args!("<th>{}</th>", escape(heading)));
        }
        self.push(format_args!("</tr>\n"));
        for row in rows {
            self.push(format_args!("<tr>"));
            for cell in row {
                let figure = cell.starts_with(|c: char| c.is_ascii_digit());
                self.push(format_args!("<td{}>{}</td>", if figure { " class=\"figure\"" } else { "" }, escape(cell)));
            }
            self.push(format_args!("</tr>\n"));
        }
        self.push(format_args!("</table></div>\n"));
    }

    /// The whole page.
    pub fn html(&self) -> String {
        let title = escape(&self.title);
        let word = self.verdict.word();
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{title}</title>\n<style>{STYLE}</style></head>\n<body>\n<h1>{title} <span class=\"{word}\">{word}</span></h1>\n{}</body></html>\n",
            self.body
        )
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.body.write_fmt(text);
    }
}

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--soft:#8881}\
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
h1,h2{line-height:1.2}h2{margin-top:2.5rem;border-bottom:1px solid var(--line);padding-bottom:.3rem}\
span{font-size:.6em;vertical-align:middle;padding:.2em .7em;border-radius:1em;color:#fff}\
.good{background:#1a7f37}.open{background:#9a6700}.failed{background:#c62828}.unknown{background:#6b6b6b}\
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35rem .8rem .35rem 0;border-bottom:1px solid var(--line)}\
.figure{font-variant-numeric:tabular-nums}pre{background:var(--soft);padding:1rem;overflow-x:auto;border-radius:.4rem}\
@media print{body{margin:0}}";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_part_speaks_for_the_whole_and_text_is_escaped() {
        let mut report = Report::new("a <shop>");
        assert_eq!(report.verdict(), Verdict::Good);
        report.section("one", Verdict::Unknown);
        assert_eq!(report.verdict(), Verdict::Unknown);
        report.section("two", Verdict::Bad);
        report.section("three", Verdict::Good);
        assert_eq!(report.verdict(), Verdict::Bad);
        report.text("<script>");
        assert!(report.html().contains("a &lt;shop&gt;") && !report.html().contains("<script>"));
    }
}
