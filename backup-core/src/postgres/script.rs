//! The statements of a script that `pg_dump` wrote.

/// A script, split, with each statement's settings.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) statements: Vec<Statement>,
}

/// One statement, without its semicolon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) text: String,
    /// `SET` statements for storage that were in force: they go before it in whatever session runs it.
    pub(crate) settings: Vec<String>,
}

impl Script {
    /// The statements of `text`. Settings for tablespace and access method are kept with what they apply to; the other
    /// `SET`s stay statements.
    pub(crate) fn parse(text: &str) -> Self {
        let mut settings: Vec<String> = Vec::new();
        let mut statements = Vec::new();
        for statement in split(text) {
            let name = SETTINGS.iter().find(|name| statement.starts_with(**name));
            match name {
                Some(name) => {
                    settings.retain(|s| !s.starts_with(name));
                    settings.push(statement.to_owned());
                }
                None => statements.push(Statement { text: statement.to_owned(), settings: settings.clone() }),
            }
        }
        Self { statements }
    }
}

/// What a statement that may run beside others keeps from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Beside<'a> {
    /// An index: others of the same table may be built meanwhile.
    Index(&'a str),
    /// A key of its own: nothing else may happen to the table.
    Key(&'a str),
    /// A foreign key, to be made after all keys: nothing else may happen to these two.
    ForeignKey(&'a str, &'a str),
}

impl Beside<'_> {
    /// Whether one has to wait for the other.
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Index(_), Self::Index(_)) => false,
            _ => self.tables().any(|a| other.tables().any(|b| a == b)),
        }
    }

    /// Whether both may be run in one go: foreign keys need the others first.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        matches!(self, Self::ForeignKey(..)) == matches!(other, Self::ForeignKey(..))
    }

    fn tables(&self) -> impl Iterator<Item = &str> {
        let (first, second) = match self {
            Self::Index(table) | Self::Key(table) => (*table, None),
            Self::ForeignKey(table, to) => (*table, Some(*to)),
        };
        std::iter::once(first).chain(second)
    }
}

impl Statement {
    /// What it keeps from others, where it may run beside others at all.
    pub(crate) fn beside(&self) -> Option<Beside<'_>> {
        let table = |table| if self.text.starts_with("ALTER ") { Beside::Key(table) } else { Beside::Index(table) };
        self.index_of().map(table).or_else(|| self.foreign_key_of())
    }

    /// A foreign key of a table in one piece; those of partitioned tables lock more.
    fn foreign_key_of(&self) -> Option<Beside<'_>> {
        let (table, rest) = name(self.text.strip_prefix("ALTER TABLE ONLY ")?)?;
        let (_, rest) = name(rest.trim_start().strip_prefix("ADD CONSTRAINT ")?)?;
        let mut rest = rest.strip_prefix(" FOREIGN KEY (")?;
        loop {
            rest = name(rest)?.1;
            match rest.strip_prefix(", ") {
                Some(more) => rest = more,
                None => break,
            }
        }
        let (to, _) = name(rest.strip_prefix(") REFERENCES ")?)?;
        Some(Beside::ForeignKey(table, to))
    }

    /// The table that it builds an index or a key of its own on.
    pub(crate) fn index_of(&self) -> Option<&str> {
        let text = self.text.as_str();
        if let Some(rest) = text.strip_prefix("ALTER TABLE ONLY ") {
            let (table, rest) = name(rest)?;
            let rest = rest.trim_start().strip_prefix("ADD CONSTRAINT ")?;
            let (_, rest) = name(rest)?;
            let rest = rest.trim_start();
            let own = ["PRIMARY KEY", "UNIQUE", "EXCLUDE"].iter().any(|kind| rest.starts_with(kind));
            return own.then_some(table);
        }
        let rest = text.strip_prefix("CREATE UNIQUE INDEX ").or_else(|| text.strip_prefix("CREATE INDEX "))?;
        let (_, rest) = name(rest)?;
        let rest = rest.strip_prefix(" ON ")?;
        name(rest.strip_prefix("ONLY ").unwrap_or(rest)).map(|(table, _)| table)
    }

    /// The table, sequence or view that it makes, changes or is about: the parts of its name.
    pub(crate) fn object(&self) -> Option<Vec<String>> {
        let text = self.text.as_str();
        let named = |rest: &str| name(rest).map(|(object, _)| parts(object));
        let after = |mark: &str| text.find(mark).and_then(|at| named(&text[at + mark.len()..]));
        if text.starts_with("CREATE INDEX ") || text.starts_with("CREATE UNIQUE INDEX ") {
            return self.index_of().map(parts);
        }
        if let Some(rest) = text.strip_prefix("COMMENT ON COLUMN ") {
            let mut object = named(rest)?;
            object.pop();
            return Some(object);
        }
        if let Some(rest) = HEADS.iter().find_map(|head| text.strip_prefix(head)) {
            return named(rest);
        }
        if text.starts_with("GRANT ") || text.starts_with("REVOKE ") {
            return after(" ON TABLE ").or_else(|| after(" ON SEQUENCE "));
        }
        if let Some(rest) = text.strip_prefix("CREATE POLICY ") {
            let (_, rest) = name(rest)?;
            return named(rest.strip_prefix(" ON ")?);
        }
        if text.starts_with("CREATE TRIGGER ") || text.starts_with("CREATE CONSTRAINT TRIGGER ") {
            return after(" ON ");
        }
        None
    }
}

const SETTINGS: [&str; 2] = ["SET default_tablespace = ", "SET default_table_access_method = "];
const HEADS: [&str; 10] = [
    "CREATE TABLE ",
    "CREATE UNLOGGED TABLE ",
    "ALTER TABLE ONLY ",
    "ALTER TABLE ",
    "CREATE SEQUENCE ",
    "CREATE UNLOGGED SEQUENCE ",
    "ALTER SEQUENCE ",
    "COMMENT ON TABLE ",
    "COMMENT ON SEQUENCE ",
    "ALTER INDEX ",
];

/// Whether it says who owns something or may use it: what a restore under another user leaves out.
pub(crate) fn is_ownership(statement: &str) -> bool {
    if ["GRANT ", "REVOKE ", "ALTER DEFAULT PRIVILEGES "].iter().any(|head| statement.starts_with(head)) {
        return true;
    }
    if !statement.starts_with("ALTER ") {
        return false;
    }
    let before_name = match statement.strip_suffix('"') {
        Some(rest) => {
            // A quoted name; a quote inside it is doubled.
            let mut end = rest.len();
            let bytes = rest.as_bytes();
            loop {
                match bytes[..end].iter().rposition(|b| *b == b'"') {
                    None => return false,
                    Some(at) if at > 0 && bytes[at - 1] == b'"' => end = at - 1,
                    Some(at) => break &rest[..at],
                }
            }
        }
        None => statement.trim_end_matches(is_identifier),
    };
    before_name.ends_with(" OWNER TO ")
}

/// A possibly qualified name at the beginning of `text`, and what follows it.
fn name(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        if bytes.get(at) == Some(&b'"') {
            at += 1;
            loop {
                match (bytes.get(at)?, bytes.get(at + 1)) {
                    (b'"', Some(b'"')) => at += 2,
                    (b'"', _) => break at += 1,
                    _ => at += 1,
                }
            }
        } else {
            at += text[at..].find(|c| !is_identifier(c)).unwrap_or(text.len() - at);
        }
        if bytes.get(at) != Some(&b'.') {
            break;
        }
        at += 1;
    }
    (at > 0).then(|| text.split_at(at))
}

fn is_identifier(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

/// Where the possibly qualified name at the beginning of `text` ends.
pub(crate) fn name_end(text: &str) -> usize {
    name(text).map_or(0, |(name, _)| name.len())
}

/// The parts of a possibly qualified name at the beginning of `text`, without their quotes.
pub(crate) fn parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for c in text[..name_end(text)].chars() {
        match c {
            // A doubled quote ends the part and begins it again: it is one of the name's own.
            '"' => {
                quoted = !quoted;
                if quoted && !parts.last().is_some_and(String::is_empty) {
                    parts.last_mut().into_iter().for_each(|p| p.push('"'));
                }
            }
            '.' if !quoted => parts.push(String::new()),
            c => parts.last_mut().into_iter().for_each(|p| p.push(c)),
        }
    }
    parts
}

/// The statements of a script without their semicolons and the comments before them. Semicolons in strings, quoted
/// names, dollar quotes, parentheses, comments and SQL-standard function bodies end nothing; the rules are those of
/// `psql`. Lines that begin with `\restrict` or `\unrestrict` are no SQL and are left out.
pub(crate) fn split(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut start = None;
    let mut at = 0;
    let mut parentheses = 0_u32;
    let mut begins = 0_u32;
    // The first words of the statement, to know a routine's definition.
    let mut words: Vec<String> = Vec::new();
    while at < bytes.len() {
        let next = bytes.get(at + 1).copied();
        match bytes[at] {
            b'-' if next == Some(b'-') => at = line_end(bytes, at),
            b'/' if next == Some(b'*') => at = comment_end(bytes, at),
            b'\\' if start.is_none() => at = line_end(bytes, at),
            b' ' | b'\n' | b'\t' | b'\r' => at += 1,
            b';' if parentheses == 0 && begins == 0 => {
                if let Some(start) = start.take() {
                    out.push(text[start..at].trim_end());
                }
                words.clear();
                at += 1;
            }
            byte => {
                start.get_or_insert(at);
                match byte {
                    b'\'' => at = string_end(bytes, at, false),
                    b'"' => at = quoted_end(bytes, at, b'"'),
                    b'$' => at = dollar_end(bytes, at),
                    b'(' => {
                        parentheses += 1;
                        at += 1;
                    }
                    b')' => {
                        parentheses = parentheses.saturating_sub(1);
                        at += 1;
                    }
                    _ if is_word(byte) => {
                        let end = at + bytes[at..].iter().take_while(|b| is_word(**b) || **b == b'$').count();
                        let word = text[at..end].to_ascii_lowercase();
                        if bytes.get(end) == Some(&b'\'') && word == "e" {
                            at = string_end(bytes, end, true);
                            continue;
                        }
                        if parentheses == 0 && is_routine(&words) {
                            match word.as_str() {
                                "begin" => begins += 1,
                                "case" if begins > 0 => begins += 1,
                                "end" => begins = begins.saturating_sub(1),
                                _ => {}
                            }
                        }
                        if words.len() < 4 {
                            words.push(word);
                        }
                        at = end;
                    }
                    _ => at += 1,
                }
            }
        }
    }
    if let Some(start) = start {
        out.push(text[start..].trim_end());
    }
    out
}

fn is_routine(words: &[String]) -> bool {
    let is = |at: usize, options: &[&str]| words.get(at).is_some_and(|w| options.contains(&w.as_str()));
    let routine = ["function", "procedure"];
    is(0, &["create"]) && (is(1, &routine) || (is(1, &["or"]) && is(2, &["replace"]) && is(3, &routine)))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |n| at + n)
}

fn comment_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0;
    while at < bytes.len() {
        match &bytes[at..(at + 2).min(bytes.len())] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted_end(bytes: &[u8], at: usize, quote: u8) -> usize {
    // A doubled quote reads as the end of one and the beginning of the next, which comes to the same.
    memchr::memchr(quote, &bytes[at + 1..]).map_or(bytes.len(), |n| at + n + 2)
}

fn string_end(bytes: &[u8], at: usize, escapes: bool) -> usize {
    if !escapes {
        return quoted_end(bytes, at, b'\'');
    }
    let mut at = at + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'\'' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn dollar_end(bytes: &[u8], at: usize) -> usize {
    let tag = bytes[at + 1..].iter().take_while(|b| is_word(**b)).count();
    let closes = at + 1 + tag;
    if bytes.get(closes) != Some(&b'$') || bytes.get(at + 1).is_some_and(u8::is_ascii_digit) {
        return at + 1;
    }
    let mark = &bytes[at..=closes];
    memchr::memmem::find(&bytes[closes + 1..], mark).map_or(bytes.len(), |n| closes + 1 + n + mark.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_may_run_beside_what() {
        let statement = |text: &str| Statement { text: text.to_owned(), settings: Vec::new() };
        let index = statement("CREATE INDEX a ON public.orders USING btree (id)");
        let other = statement("CREATE UNIQUE INDEX b ON public.orders USING btree (at)");
        let key = statement("ALTER TABLE ONLY public.orders\n    ADD CONSTRAINT c PRIMARY KEY (id)");
        let text = "ALTER TABLE ONLY public.\"Item) REFERENCES x\"\n    ADD CONSTRAINT d FOREIGN KEY (\"a) REFERENCES b\", c) REFERENCES public.orders(id, x) ON DELETE CASCADE";
        let foreign = statement(text);
        assert_eq!(foreign.beside(), Some(Beside::ForeignKey("public.\"Item) REFERENCES x\"", "public.orders")));
        let conflict = |a: &Statement, b: &Statement| a.beside().unwrap().conflicts(&b.beside().unwrap());
        assert!(!conflict(&index, &other) && conflict(&index, &key) && conflict(&key, &key));
        assert!(conflict(&foreign, &index) && conflict(&foreign, &foreign));
        assert!(!conflict(&key, &statement("CREATE INDEX e ON public.customers USING btree (id)")));
        let is_like = |a: &Statement, b: &Statement| a.beside().unwrap().is_like(&b.beside().unwrap());
        assert!(is_like(&index, &key) && !is_like(&key, &foreign));
        // Of a partitioned table.
        let parts =
            statement("ALTER TABLE public.visits\n    ADD CONSTRAINT f FOREIGN KEY (id) REFERENCES public.orders(id)");
        assert_eq!(parts.beside(), None);
    }

    #[test]
    fn semicolons_inside_something_end_nothing() {
        let text = r#"\restrict abc
--
-- Name: a; Type: TABLE; Schema: public; Owner: x
--

SET x = 'a;''b';
CREATE FUNCTION public."f;(x" () RETURNS int AS $_$ SELECT 1; -- $$
$_$ LANGUAGE sql;
CREATE OR REPLACE FUNCTION g(a int) RETURNS int LANGUAGE sql
BEGIN ATOMIC
 SELECT CASE WHEN a > 1 THEN 1 ELSE 2 END;
 SELECT 2;
END;
CREATE RULE r AS ON INSERT TO t DO INSTEAD ( DELETE FROM a; DELETE FROM b; );
COMMENT ON TABLE t IS E'it\'s; /* no comment */';
/* one /* inside; another */ ; */
SELECT $1$ || 'x'; SELECT a$b$c;
\unrestrict abc
ALTER TABLE begin OWNER TO x;
last"#;
        let found = split(text);
        let heads: Vec<_> = found.iter().map(|s| s.split_whitespace().take(3).collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            heads,
            [
                "SET x =",
                "CREATE FUNCTION public.\"f;(x\"",
                "CREATE OR REPLACE",
                "CREATE RULE r",
                "COMMENT ON TABLE",
                "SELECT $1$ ||",
                "SELECT a$b$c",
                "ALTER TABLE begin",
                "last"
            ]
        );
        assert!(found[2].ends_with("END"));
        assert!(found[3].ends_with(')'));
    }

    #[test]
    fn owners_and_grants_are_told_from_structure() {
        for yes in [
            "GRANT SELECT ON TABLE public.t TO shop",
            "REVOKE ALL ON SCHEMA public FROM PUBLIC",
            "ALTER DEFAULT PRIVILEGES FOR ROLE a IN SCHEMA b GRANT SELECT ON TABLES TO c",
            "ALTER TABLE public.t OWNER TO shop",
            "ALTER FUNCTION public.f(a text) OWNER TO \"O\"\"Brien; x\"",
            "ALTER LARGE OBJECT 5 OWNER TO ünal",
        ] {
            assert!(is_ownership(yes), "{yes}");
        }
        for no in [
            "ALTER TABLE public.t ADD COLUMN x text DEFAULT 'y OWNER TO z'",
            "COMMENT ON TABLE t IS 'OWNER TO x'",
            "CREATE TABLE t (a int)",
            "ALTER TABLE ONLY public.t ADD CONSTRAINT \"OWNER TO \" CHECK (a > 1)",
            "ALTER SEQUENCE s OWNED BY t.a",
        ] {
            assert!(!is_ownership(no), "{no}");
        }
    }

    #[test]
    fn an_index_knows_its_table() {
        let of = |text: &str| Statement { text: text.into(), settings: vec![] }.index_of().map(str::to_owned);
        assert_eq!(
            of("CREATE UNIQUE INDEX \"i ON\" ON public.\"t;\" USING btree (a)").as_deref(),
            Some("public.\"t;\"")
        );
        assert_eq!(of("CREATE INDEX i ON ONLY s.t USING gin (a)").as_deref(), Some("s.t"));
        assert_eq!(of("ALTER TABLE ONLY s.t\n    ADD CONSTRAINT p PRIMARY KEY (a)").as_deref(), Some("s.t"));
        assert_eq!(of("ALTER TABLE ONLY s.t\n    ADD CONSTRAINT p FOREIGN KEY (a) REFERENCES x(y)"), None);
        assert_eq!(of("CREATE TABLE s.t (a int)"), None);
    }

    #[test]
    fn names_come_apart() {
        assert_eq!(parts("public.orders (id)"), ["public", "orders"]);
        assert_eq!(parts(r#""a.b"."c""d" x"#), ["a.b", "c\"d"]);
        assert_eq!(parts(r#"s."T".c"#), ["s", "T", "c"]);
    }

    #[test]
    fn storage_settings_stay_with_their_statements() {
        let script = Script::parse(
            "SET default_tablespace = '';\nCREATE TABLE a();\nSET default_tablespace = fast;\nSET lock_timeout = 0;\nCREATE TABLE b();",
        );
        assert_eq!(script.statements.len(), 3);
        assert_eq!(script.statements[0].settings, ["SET default_tablespace = ''"]);
        assert_eq!(script.statements[2].settings, ["SET default_tablespace = fast"]);
    }

    proptest! {
        #[test]
        fn quoted_things_survive_splitting(parts in prop::collection::vec("[a-z;'\"$() -]{0,12}", 1..6)) {
            let quoted: Vec<String> = parts.iter().map(|p| format!("SELECT '{}'", p.replace('\'', "''"))).collect();
            let text = quoted.join(";\n") + ";\n";
            prop_assert_eq!(split(&text), quoted);
        }

        #[test]
        fn nothing_makes_it_panic(text in "[a-zA-Z;'\"$()\\\\/* \n-]{0,200}") {
            split(&text);
        }
    }
}
