//! What is looked for in a file.
//!
//! A line is allowed by a comment on it or on the line before: `caretaker-allow` and why. Without a why it allows nothing.

use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;

use super::tree::Scan;
use crate::outcome::Place;
use crate::secrets;

/// In what a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    /// JavaScript and TypeScript.
    Script,
    Php,
    /// Settings: secrets are looked for, nothing else.
    Settings,
}

impl Language {
    /// `None` of what is not read at all.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        if name.contains(".min.") || name.ends_with(".map") || name.contains(".test.") || name.contains(".spec.") {
            return None;
        }
        if name.starts_with(".env") || matches!(name.as_str(), ".npmrc" | ".htpasswd" | "dockerfile") {
            return Some(Self::Settings);
        }
        match name.rsplit_once('.')?.1 {
            "js" | "jsx" | "ts" | "tsx" | "mjs" | "cjs" | "vue" | "svelte" => Some(Self::Script),
            "php" | "phtml" | "inc" => Some(Self::Php),
            "yml" | "yaml" | "toml" | "ini" | "conf" | "env" | "sh" | "pem" | "key" | "sql" => Some(Self::Settings),
            "json" if !name.contains("lock") => Some(Self::Settings),
            _ => None,
        }
    }
}

struct Rules {
    script_sql: Vec<Regex>,
    php_sql: Vec<Regex>,
    script_html: Vec<Regex>,
    php_html: Vec<Regex>,
}

/// Empty only if one of them were no expression, which a test rules out.
static RULES: LazyLock<Option<Rules>> = LazyLock::new(|| {
    let all = |list: &[&str]| list.iter().map(|r| Regex::new(r)).collect::<Result<Vec<_>, _>>().ok();
    Some(Rules {
        script_sql: all(&[
            // A tagged template is safe: it has no parenthesis before it.
            r"\$(?:query|execute)RawUnsafe\s*\(\s*(?:`[^`]{0,4000}?\$\{|[A-Za-z_])",
            r#"\$(?:query|execute)RawUnsafe\s*\(\s*["'][^"']{0,4000}["']\s*\+"#,
            r"(?i)\.(?:query|execute|raw|unsafe|prepare|all|get|run)\s*\(\s*`\s*(?:SELECT|INSERT|UPDATE|DELETE|WITH|ALTER|DROP)\b[^`]{0,4000}?\$\{",
            r#"(?i)\.(?:query|execute|raw|unsafe|prepare|all|get|run)\s*\(\s*["']\s*(?:SELECT|INSERT|UPDATE|DELETE)\b[^"'\n]{0,2000}["']\s*\+"#,
        ])?,
        php_sql: all(&[
            r#"(?i)(?:query|exec|prepare)\s*\(\s*(?:\$\w+\s*,\s*)?"\s*(?:SELECT|INSERT|UPDATE|DELETE|REPLACE)\b[^"]{0,4000}?(?:\$[a-z_]|\{\$)"#,
            r#"(?i)["']\s*(?:SELECT|INSERT|UPDATE|DELETE|REPLACE)\s[^"'\n]{0,2000}(?:"|')\s*\.\s*\$"#,
            r#"(?i)=\s*"\s*(?:SELECT|INSERT|UPDATE|DELETE|REPLACE)\s[^"]{0,4000}?\$(?:_GET|_POST|_REQUEST|_COOKIE)"#,
        ])?,
        script_html: all(&[
            r"dangerouslySetInnerHTML",
            r#"\.(?:innerHTML|outerHTML)\s*\+?=\s*(?:[^\s'"`;=]|`[^`]*\$\{)"#,
            r"document\.write(?:ln)?\s*\(",
            r"\bv-html\s*=|\{@html\b",
            r"insertAdjacentHTML\s*\(",
        ])?,
        php_html: all(&[
            r"(?i)(?:\becho\b|\bprint\b|<\?=)(?:[^;?]|\?[^>]){0,400}?\$_(?:GET|POST|REQUEST|COOKIE|SERVER)\b",
        ])?,
    })
});

const CLEANS_SCRIPT: [&str; 5] = ["DOMPurify", "sanitize", "JSON.stringify", "escapeHtml", "escapeHTML"];
const CLEANS_PHP: [&str; 9] = [
    "htmlspecialchars",
    "htmlentities",
    "intval",
    "(int)",
    "json_encode",
    "strip_tags",
    "esc_html",
    "esc_attr",
    "urlencode",
];
const VALIDATES_SCRIPT: [&str; 10] =
    ["safeParse", ".parse(", "parseAsync", "validate", "yup", "joi", "valibot", "ajv", "checkSchema", "constructEvent"];
const VALIDATES_PHP: [&str; 12] = [
    "filter_input",
    "filter_var",
    "intval",
    "(int)",
    "preg_match",
    "ctype_",
    "validate",
    "is_numeric",
    "password_verify",
    "in_array",
    "mb_strlen",
    "Validator",
];
const LIMITERS: [&str; 8] = [
    "express-rate-limit",
    "@upstash/ratelimit",
    "rate-limiter-flexible",
    "limit_req",
    "RateLimiter",
    "throttle:",
    "rateLimit(",
    "slowDown(",
];

/// A piece of a long file, after so many lines.
pub(super) fn secrets_of_piece(scan: &mut Scan, path: &str, before: u32, text: &str) {
    let lines: Vec<&str> = text.lines().collect();
    find_secrets(scan, path, before, text, &lines);
}

fn find_secrets(scan: &mut Scan, path: &str, before: u32, text: &str, lines: &[&str]) {
    for secret in secrets::find(text) {
        if allows(lines, secret.line) {
            scan.allowed += 1;
            continue;
        }
        let rule = if secret.is_database { "database" } else { "secrets" };
        scan.say(rule, Place::new(path, Some(before + secret.line), secret.kind));
    }
}

pub(super) fn apply(scan: &mut Scan, path: &str, language: Option<Language>, text: &str) {
    let lines: Vec<&str> = text.lines().collect();
    find_secrets(scan, path, 0, text, &lines);
    if lines.iter().any(|l| l.contains("rate-limit") && allowed(l)) {
        scan.note("limited-elsewhere");
    }
    if LIMITERS.iter().any(|sign| text.contains(sign)) {
        scan.note("limiters");
    }
    let (Some(rules), Some(language)) = (RULES.as_ref(), language) else { return };
    if language == Language::Settings {
        return;
    }
    scan.code += 1;
    let (sql, html, cleans): (_, _, &[&str]) = match language {
        Language::Php => (&rules.php_sql, &rules.php_html, &CLEANS_PHP),
        _ => (&rules.script_sql, &rules.script_html, &CLEANS_SCRIPT),
    };
    for (rule, shapes, what) in
        [("sql", sql, "a query is glued together"), ("html", html, "unchecked text becomes HTML")]
    {
        for hit in shapes.iter().flat_map(|shape| shape.find_iter(text)) {
            let line = 1 + text[..hit.start()].matches('\n').count() as u32;
            let whole = lines.get(line as usize - 1).copied().unwrap_or_default();
            if is_comment(whole) || (rule == "html" && cleaned(&lines, line, hit.as_str(), cleans)) {
                continue;
            }
            if allows(&lines, line) {
                scan.allowed += 1;
                continue;
            }
            scan.say(rule, Place::new(path, Some(line), what));
        }
    }
    match language {
        Language::Php => php(scan, path, text, &lines),
        _ => script(scan, path, text, &lines),
    }
}

fn script(scan: &mut Scan, path: &str, text: &str, lines: &[&str]) {
    // Reading JSON is no look at what is in it.
    let without_json = text.replace("JSON.parse(", "");
    let lacks = |signs: &[&str]| !signs.iter().any(|s| without_json.contains(s));
    let reads = first(lines, &["req.json()", "request.json()", "req.body", "request.body", ".formData()", "formData:"]);
    let is_handler = path.contains("/api/")
        || path.starts_with("api/")
        || path.contains("route.")
        || text.contains("'use server'")
        || text.contains("\"use server\"");
    if let Some(line) = reads.filter(|_| is_handler) {
        scan.note("handlers");
        if lacks(&VALIDATES_SCRIPT) {
            scan.say("validation", Place::new(path, Some(line), "reads a request and validates nothing"));
        }
    }
    if let Some(line) = first(lines, &["multer(", "formidable(", "busboy(", "instanceof File"]) {
        scan.note("upload-handlers");
        if lacks(&["limits", "fileFilter", "maxFileSize", ".size", "fileSize"]) {
            scan.say("uploads", Place::new(path, Some(line), "takes a file of any size and kind"));
        }
    }
    if let Some(line) = first(lines, &["jwt.sign(", "new SignJWT(", "jsonwebtoken.sign("]) {
        scan.note("signatures");
        if lacks(&["expiresIn", "setExpirationTime", "exp:"]) {
            scan.say("tokens", Place::new(path, Some(line), "signs a JWT without an expiry"));
        }
    }
}

fn php(scan: &mut Scan, path: &str, text: &str, lines: &[&str]) {
    let lacks = |signs: &[&str]| !signs.iter().any(|s| text.contains(s));
    let lower = text.to_ascii_lowercase();
    if let Some(line) =
        first(lines, &["$_POST[", "file_get_contents('php://input')", "file_get_contents(\"php://input\")"])
    {
        scan.note("handlers");
        if lacks(&VALIDATES_PHP) {
            scan.say("validation", Place::new(path, Some(line), "reads a form and validates nothing"));
        }
    }
    if let Some(line) = first(lines, &["move_uploaded_file"]) {
        scan.note("upload-handlers");
        if lacks(&["finfo", "mime_content_type", "getimagesize", "exif_imagetype"]) {
            scan.say("uploads", Place::new(path, Some(line), "keeps an upload without a look at its kind"));
        }
    }
    if let Some(line) = first(lines, &["JWT::encode("]) {
        scan.note("signatures");
        if lacks(&["'exp'", "\"exp\""]) {
            scan.say("tokens", Place::new(path, Some(line), "signs a JWT without an expiry"));
        }
    }
    let posts = lines.iter().position(|l| {
        let l = l.to_ascii_lowercase().replace(['"', '\''], "");
        l.contains("<form") && l.contains("method=post")
    });
    if posts.is_some() {
        scan.note("forms");
    }
    if let Some(at) = posts
        && !["csrf", "token", "nonce"].iter().any(|w| lower.contains(w))
    {
        scan.say("csrf", Place::new(path, Some(at as u32 + 1), "a form that posts without a token"));
    }
}

/// The line, from 1, on which one of them stands first, comments left out.
fn first(lines: &[&str], signs: &[&str]) -> Option<u32> {
    let at = lines.iter().position(|l| !is_comment(l) && signs.iter().any(|s| l.contains(s)))?;
    Some(at as u32 + 1)
}

fn is_comment(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("//")
        || line.starts_with('*')
        || line.starts_with("/*")
        || (line.starts_with('#') && !line.starts_with("#["))
}

/// Whether what is put into HTML is cleaned in the same statement: on the line, or on the two after it.
fn cleaned(lines: &[&str], line: u32, hit: &str, cleans: &[&str]) -> bool {
    let near = lines.iter().skip(line as usize - 1).take(3);
    cleans.iter().any(|c| hit.contains(c)) || near.clone().any(|l| cleans.iter().any(|c| l.contains(c)))
}

/// Whether a comment on the line or on the one before allows it.
fn allows(lines: &[&str], line: u32) -> bool {
    let on = |n: u32| n.checked_sub(1).and_then(|at| lines.get(at as usize)).is_some_and(|l| allowed(l));
    on(line) || on(line.saturating_sub(1))
}

/// `caretaker-allow` and at least some words of why.
fn allowed(line: &str) -> bool {
    line.split_once("caretaker-allow")
        .is_some_and(|(_, why)| why.trim_matches([':', ' ', '*', '/', '-', '>']).len() >= 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(name: &str, text: &str) -> Vec<&'static str> {
        let mut scan = Scan::default();
        apply(&mut scan, name, Language::of(Path::new(name)), text);
        let rules = ["sql", "html", "validation", "uploads", "tokens", "csrf", "secrets", "database"];
        rules.into_iter().filter(|rule| !scan.places(rule).is_empty()).collect()
    }

    #[test]
    fn what_is_unsafe_and_what_only_looks_so() {
        assert!(RULES.is_some());
        for (name, text, rules) in [
            ("a.ts", "await prisma.$queryRawUnsafe(`SELECT * FROM users WHERE id = ${id}`)", vec!["sql"]),
            ("a.ts", "await prisma.$queryRaw`SELECT * FROM users WHERE id = ${id}`", vec![]),
            ("a.ts", "db.query(`\n  SELECT *\n  FROM users\n  WHERE id = ${id}`)", vec!["sql"]),
            ("a.ts", "db.query('SELECT * FROM users WHERE id = $1', [id])", vec![]),
            ("a.ts", "db.query(\"SELECT * FROM users WHERE id = \" + id)", vec!["sql"]),
            ("a.ts", "// db.query(\"SELECT * FROM users WHERE id = \" + id)", vec![]),
            (
                "a.ts",
                "// caretaker-allow: the id is a number of ours\ndb.query(\"SELECT * FROM t WHERE id = \" + id)",
                vec![],
            ),
            ("a.ts", "db.query(\"SELECT * FROM t WHERE id = \" + id) // caretaker-allow", vec!["sql"]),
            ("a.php", "$db->query(\"SELECT * FROM users WHERE id = $id\");", vec!["sql"]),
            ("a.php", "$db->query('SELECT * FROM users WHERE id = ' . $_GET['id']);", vec!["sql"]),
            ("a.php", "mysqli_query($db, \"DELETE FROM cart WHERE id = {$_POST['id']}\");", vec!["sql", "validation"]),
            ("a.php", "$s = $db->prepare('SELECT * FROM users WHERE id = ?'); $s->execute([$id]);", vec![]),
            ("a.php", "<p>Please select from $5 to $9</p>", vec![]),
            ("a.tsx", "<div dangerouslySetInnerHTML={{ __html: text }} />", vec!["html"]),
            ("a.tsx", "<div dangerouslySetInnerHTML={{ __html: DOMPurify.sanitize(text) }} />", vec![]),
            (
                "a.tsx",
                "<script type=\"application/ld+json\"\n dangerouslySetInnerHTML={{\n __html: JSON.stringify(ld) }} />",
                vec![],
            ),
            ("a.js", "el.innerHTML = name;", vec!["html"]),
            ("a.js", "el.innerHTML = '';", vec![]),
            ("a.php", "<h1><?= $_GET['q'] ?></h1>", vec!["html"]),
            ("a.php", "<h1><?= htmlspecialchars($_GET['q']) ?></h1>", vec![]),
            ("app/api/cart/route.ts", "const { id } = await request.json(); await add(id);", vec!["validation"]),
            ("app/api/cart/route.ts", "const { id } = Cart.parse(await request.json()); await add(id);", vec![]),
            ("a.php", "move_uploaded_file($_FILES['f']['tmp_name'], 'u/' . $_FILES['f']['name']);", vec!["uploads"]),
            ("a.ts", "const up = multer({ dest: 'u/', limits: { fileSize: 5e6 } })", vec![]),
            ("a.ts", "const token = jwt.sign({ id }, key)", vec!["tokens"]),
            ("a.ts", "const token = jwt.sign({ id }, key, { expiresIn: '1h' })", vec![]),
            ("a.php", "<form method=\"post\" action=\"/x\"></form>", vec!["csrf"]),
            ("a.php", "<form method=\"post\"><input type=hidden name=csrf value=\"<?= $t ?>\"></form>", vec![]),
            (".env", "DATABASE_URL=postgres://shop:hT5rfq9@db/shop", vec!["database"]),
        ] {
            assert_eq!(hits(name, text), rules, "{name}: {text}");
        }
    }
}
