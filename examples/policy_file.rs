//! A shop's policy as a TOML file.

use std::path::Path;

use db_maint::{Error, ErrorKind, Policy, Result};

/// Reads it; a key that nobody knows is refused with its line.
///
/// # Errors
/// [`ErrorKind::Config`] where it cannot be read or makes no sense.
pub fn read(path: &Path) -> Result<Policy> {
    let wrong = |why: String| Error::new(ErrorKind::Config, format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path)
        .map_err(|e| wrong(format!("cannot be read: {e}")).with_next_step("check the path").with_source(e))?;
    toml::from_str(&text)
        .map_err(|e| wrong(e.to_string().trim_end().to_owned()).with_next_step("see `maintain policy` for an example"))
}

/// A policy of the sample shop, with every kind of rule explained.
pub const EXAMPLE: &str = include_str!("policy.toml");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_example_is_a_policy_and_a_slip_has_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.toml");
        std::fs::write(&path, EXAMPLE).unwrap();
        let policy = read(&path).unwrap();
        assert!(!policy.retention.is_empty() && !policy.reference.is_empty() && !policy.hold.is_empty());
        std::fs::write(&path, EXAMPLE.replace("keep = \"30d\"", "kep = \"30d\"")).unwrap();
        let e = read(&path).unwrap_err().to_string();
        assert!(e.contains("line") && e.contains("kep"), "{e}");
        std::fs::write(&path, EXAMPLE.replace("keep = \"30d\"", "keep = \"30 days\"")).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("90m, 24h, 30d"));
    }
}
