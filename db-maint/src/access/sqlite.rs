//! SQLite has no roles: whoever may read the file may read all of it.

use super::{Grantee, ID, Seen, TableAccess};
use crate::finding::{Finding, Severity};
use crate::table::Table;

pub(super) fn read(location: &str, tables: &[Table]) -> Seen {
    let mut seen = Seen::default();
    let path = std::path::Path::new(location.trim_start_matches("sqlite:"));
    let Ok(all) = std::fs::metadata(path) else {
        seen.unknown.push("the rights on the file cannot be read".into());
        return seen;
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let mode = all.mode() & 0o777;
        let told = |what: &str, severity| {
            Finding::new(ID, "file", format!("everybody on the machine may {what} it"))
                .severity(severity)
                .evidence("mode", format!("{mode:04o}"))
                .remedy(format!("chmod o-rwx {}", path.display()))
        };
        let everybody = |bit: u32| match mode & bit {
            0 => Vec::new(),
            _ => vec![Grantee {
                role: "everybody on the machine".into(),
                by: vec![format!("the file's mode {mode:04o}")],
            }],
        };
        seen.tables = tables
            .iter()
            .map(|table| TableAccess {
                table: table.name.clone(),
                readers: everybody(0o004),
                writers: everybody(0o002),
            })
            .collect();
        if mode & 0o002 != 0 {
            seen.findings.push(told("change", Severity::Critical));
        } else if mode & 0o004 != 0 {
            seen.findings.push(told("read", Severity::Warning));
        }
    }
    #[cfg(not(unix))]
    {
        let _ = all;
        seen.unknown.push("the rights on the file are not looked at on this system".into());
    }
    seen
}
