//! Secrets in text: by known prefixes and shapes, with entropy; never their values.

use std::sync::LazyLock;

use regex::{Regex, RegexSet};

/// A secret that was found: where and of which kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The line, from 1.
    pub(crate) line: u32,
    pub(crate) kind: &'static str,
    /// Whether it opens a database.
    pub(crate) is_database: bool,
}

/// Kind, shape with the part that has to look random as its group `v`, and least entropy of that part in bits a character.
///
/// Public by design and no secrets: `pk_live_…` and `pk_test_…` of payment providers, DSNs of Sentry, Google's `AIza…` for maps.
const SHAPES: [(&str, &str, f64); 24] = [
    ("a live secret key of Stripe or Paystack", r"\bsk_live_(?<v>[0-9A-Za-z]{16,})", 2.5),
    ("a live restricted key of Stripe", r"\brk_live_(?<v>[0-9A-Za-z]{16,})", 2.5),
    ("a test secret key of Stripe or Paystack", r"\bsk_test_(?<v>[0-9A-Za-z]{16,})", 2.5),
    ("a webhook secret of Stripe", r"\bwhsec_(?<v>[0-9A-Za-z+/=]{24,})", 3.0),
    ("an access key of AWS", r"\b(?:AKIA|ASIA)(?<v>[0-9A-Z]{16})\b", 2.5),
    ("a token of GitHub", r"\bgh[pousr]_(?<v>[0-9A-Za-z]{36,})", 3.0),
    ("a token of GitHub", r"\bgithub_pat_(?<v>[0-9A-Za-z_]{40,})", 3.0),
    ("a token of GitLab", r"\bglpat-(?<v>[0-9A-Za-z_\-]{20,})", 3.0),
    ("a token of npm", r"\bnpm_(?<v>[0-9A-Za-z]{36})\b", 3.0),
    ("a token of Slack", r"\bxox[baprs]-(?<v>[0-9A-Za-z\-]{20,})", 2.5),
    (
        "an incoming webhook of Slack",
        r"hooks\.slack\.com/services/(?<v>T[0-9A-Z]{8,}/B[0-9A-Z]{8,}/[0-9A-Za-z]{20,})",
        3.0,
    ),
    ("a key of SendGrid", r"\bSG\.(?<v>[0-9A-Za-z_\-]{16,}\.[0-9A-Za-z_\-]{30,})", 3.0),
    ("a key of Mailgun", r"\bkey-(?<v>[0-9a-f]{32})\b", 2.5),
    ("a key of Twilio", r"\bSK(?<v>[0-9a-f]{32})\b", 2.5),
    ("a token of Sentry", r"\bsntry[su]_(?<v>[0-9A-Za-z+/=_\-]{30,})", 3.0),
    ("a client secret of Google", r"\bGOCSPX-(?<v>[0-9A-Za-z_\-]{24,})", 3.0),
    ("a key of a language model", r"\bsk-(?:ant-|proj-)?(?<v>[0-9A-Za-z_\-]{40,})", 3.5),
    ("a key of Resend", r"\bre_(?<v>[0-9A-Za-z]{8,}_[0-9A-Za-z]{20,})", 3.0),
    ("a private key", r"(?<v>-----BEGIN (?:RSA |EC |OPENSSH |DSA |ENCRYPTED )?PRIVATE KEY-----)", 0.0),
    (
        "an address of a database with its password",
        r"\b(?:postgres(?:ql)?|mysql|mariadb|mongodb(?:\+srv)?|rediss?)://[^\s:/@'\x22]*:(?<v>[^\s@/'\x22]{3,})@",
        1.0,
    ),
    (
        "a password of a database",
        r"(?i)\bnew\s+(?:PDO|mysqli)\s*\([^\n]*?,\s*['\x22][^'\x22]+['\x22]\s*,\s*['\x22](?<v>[^'\x22]{3,})['\x22]",
        1.0,
    ),
    (
        "a password of a database",
        r"(?i)\b(?:DB_PASS(?:WORD)?|DATABASE_PASSWORD|MYSQL_PASSWORD|PGPASSWORD)\b['\x22]?\s*(?:=>|[,:=])\s*['\x22](?<v>[^'\x22]{3,})['\x22]",
        1.0,
    ),
    (
        "a secret that is written out",
        r"(?i)\b[a-z0-9_]*(?:secret|private_?key|api_?key|auth_?token|access_?token)['\x22]?\s*(?:=>|[:=])\s*['\x22](?<v>[0-9A-Za-z+/=_\-\.]{20,})['\x22]",
        3.5,
    ),
    (
        "a password that is written out",
        r"(?i)\b[a-z0-9_]*(?:password|passwd)['\x22]?\s*(?:=>|[:=])\s*['\x22](?<v>[^\s'\x22]{10,})['\x22]",
        3.2,
    ),
];

struct Shapes {
    set: RegexSet,
    each: Vec<Regex>,
}

/// `None` only if a shape above were no expression, which a test rules out.
static COMPILED: LazyLock<Option<Shapes>> = LazyLock::new(|| {
    let set = RegexSet::new(SHAPES.iter().map(|(_, shape, _)| *shape)).ok()?;
    let each = SHAPES.iter().map(|(_, shape, _)| Regex::new(shape)).collect::<Result<_, _>>().ok()?;
    Some(Shapes { set, each })
});

/// What stands for a value that is put there later.
const PLACEHOLDERS: [&str; 20] = [
    "example",
    "changeme",
    "change-me",
    "your",
    "xxxx",
    "placeholder",
    "dummy",
    "insert",
    "replace",
    "todo",
    "<",
    "${",
    "{{",
    "process.env",
    "getenv",
    "import.meta",
    "redacted",
    "sample",
    "****",
    "....",
];

/// Characters of a line that are looked at as one; the next begin before their end, so that nothing is cut in two.
const WINDOW: usize = 100_000;
const OVERLAP: usize = 1_000;

/// The secrets in a text.
pub(crate) fn find(text: &str) -> Vec<Found> {
    let Some(shapes) = COMPILED.as_ref() else { return Vec::new() };
    let mut out = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for (which, line) in windows(line).flat_map(|part| shapes.set.matches(part).into_iter().map(move |w| (w, part)))
        {
            let (kind, _, least) = SHAPES[which];
            let mut hits = shapes.each[which].captures_iter(line).filter_map(|c| c.name("v"));
            if hits.any(|v| entropy(v.as_str()) >= least && !is_placeholder(v.as_str())) {
                out.push(Found { line: at as u32 + 1, kind, is_database: kind.contains("database") });
            }
        }
    }
    // The general shapes say again what a particular one has said.
    let particular: Vec<u32> = out.iter().filter(|f| !f.kind.ends_with("written out")).map(|f| f.line).collect();
    out.retain(|f| !f.kind.ends_with("written out") || !particular.contains(&f.line));
    out.dedup();
    out
}

/// A line in parts that overlap; bundles are one line of a megabyte.
fn windows(line: &str) -> impl Iterator<Item = &str> {
    let boundary = move |at: usize| (0..=at.min(line.len())).rev().find(|i| line.is_char_boundary(*i)).unwrap_or(0);
    let mut from = 0;
    let mut is_done = false;
    std::iter::from_fn(move || {
        if is_done {
            return None;
        }
        let to = boundary(from + WINDOW);
        let part = &line[from..to];
        is_done = to == line.len();
        from = boundary(to.saturating_sub(OVERLAP));
        Some(part)
    })
}

fn is_placeholder(value: &str) -> bool {
    let lower = value.to_lowercase();
    let first = lower.chars().next();
    PLACEHOLDERS.iter().any(|p| lower.contains(p))
        || (lower.len() > 3 && lower.chars().all(|c| Some(c) == first))
        || lower == "password"
}

/// Bits a character (Shannon).
fn entropy(text: &str) -> f64 {
    let mut counts = [0u32; 256];
    text.bytes().for_each(|b| counts[usize::from(b)] += 1);
    let n = text.len() as f64;
    counts.iter().filter(|c| **c > 0).map(|c| f64::from(*c) / n).map(|p| -p * p.log2()).sum()
}

/// Whether all shapes are expressions.
#[cfg(test)]
pub(crate) fn compiles() -> bool {
    COMPILED.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_and_what_is_public_by_design() {
        assert!(compiles());
        // Put together here, so that nobody takes this file for a leak.
        let live = format!("const k = '{}{}';", "sk_live_", "4eC39HqLyjWDarjtT1zdp7dc");
        let aws = format!("{}{}", "AKIA", "IOSFODNN7EXQMPLE");
        let pem = format!("{}PRIVATE KEY-----", "-----BEGIN ");
        for (text, kind) in [
            (live.as_str(), "a live secret key of Stripe or Paystack"),
            (aws.as_str(), "an access key of AWS"),
            (pem.as_str(), "a private key"),
            ("DATABASE_URL=postgres://shop:hT5rfq9@db.internal/shop", "an address of a database with its password"),
            ("$db = new PDO('mysql:host=localhost;dbname=shop', 'shop', 'hT5rfq9');", "a password of a database"),
            ("define('DB_PASSWORD', 'hT5rfq9x');", "a password of a database"),
            ("jwtSecret: 'f9Kq2LxZ8vB4nM7wP1sR6tY3'", "a secret that is written out"),
            ("$password = 'kX9!mQ2#vL7pZ';", "a password that is written out"),
        ] {
            let found = find(text);
            assert_eq!(found.iter().map(|f| f.kind).collect::<Vec<_>>(), [kind], "{text}");
        }
        for text in [
            "pk_live_4eC39HqLyjWDarjtT1zdp7dc and pk_test_4eC39HqLyjWDarjtT1zdp7dc",
            "dsn: 'https://0123456789abcdef0123456789abcdef@o12345.ingest.sentry.io/1'",
            "key: 'AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY'",
            "STRIPE_SECRET_KEY=sk_live_xxxxxxxxxxxxxxxxxxxxxxxx",
            "DATABASE_URL=postgres://user:${DB_PASSWORD}@localhost/shop",
            "postgres://shop:your-password@localhost/shop",
            "password: process.env.PASSWORD",
            "const secretName = 'STRIPE_SECRET'",
            "<input type=\"password\" name=\"password\" placeholder=\"Password\">",
            "// pass the token: 'see docs'",
        ] {
            assert_eq!(find(text), [], "{text}");
        }
        assert_eq!(find(&format!("\n\n{live}"))[0].line, 3);
        // A bundle is one long line, and a secret may lie across a window's end.
        for at in [250_000, WINDOW - 10, 2 * WINDOW - OVERLAP - 5] {
            assert_eq!(find(&format!("{} {live}", "ä".repeat(at / 2))).len(), 1, "{at}");
        }
    }
}
