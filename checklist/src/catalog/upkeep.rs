//! Upkeep: what the guides' routines ask for beside the thirty items.

use super::Row;
use crate::item::Risk;

pub(super) const ITEMS: [Row; 3] = [
    Row {
        id: "upkeep.dependencies",
        title: "Dependencies without known vulnerabilities",
        risk: Risk::High,
        why: "Most attacks use holes that have been public for months.",
        references: &["OWASP ASVS 5.0: 15.2.1", "PCI DSS 4.0.1: 6.3.3"],
        next: "npm audit fix, or the version that the advisory names; an exception with a reason and an end where there is none.",
        php: "composer update vendor/package; the same for exceptions.",
        attest: None,
        how: "source: lock files of npm, pnpm, yarn, composer and cargo against the API of OSV, or an unpacked dump of it",
        fooled: "code that was copied in; advisories that are not in the data; crates that a lock file names for a weak feature of a dependency and that nothing builds",
    },
    Row {
        id: "upkeep.end-of-life",
        title: "Software that is still maintained",
        risk: Risk::High,
        why: "After its end of life a version gets no mends, whatever is found.",
        references: &["OWASP ASVS 5.0: 15.2.1", "PCI DSS 4.0.1: 12.3.4, 6.3.3"],
        next: "Node and PostgreSQL to a maintained version, half a year before the end of the old one.",
        php: "PHP and MySQL or MariaDB to a maintained version, half a year before the end of the old one.",
        attest: None,
        how: "host and database: versions of PHP, Node, PostgreSQL, MySQL and MariaDB against a table of dates",
        fooled: "distributions that maintain a version for longer; the table's own age, which it says",
    },
    Row {
        id: "upkeep.file-modes",
        title: "Files that only those may read who must",
        risk: Risk::High,
        why: "A key that any user of the machine may read is as good as public after the next hole.",
        references: &["OWASP ASVS 5.0: 13.3", "PCI DSS 4.0.1: 7.2"],
        next: "chmod 600 .env; the code owned by another user than the one that runs it.",
        php: "chmod 640 config.php, group www-data; nothing that the web server may write and run.",
        attest: None,
        how: "source tree on the host: modes of files with secrets, files that everybody may write",
        fooled: "access lists beyond the mode",
    },
];
