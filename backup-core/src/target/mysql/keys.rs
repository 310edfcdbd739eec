//! Definitions of tables taken apart: what is needed before the rows, and the keys that are faster made after them.

use crate::mysql::identifier;

/// A table's definition in three parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// `CREATE TABLE` without what follows.
    pub(super) table: String,
    /// Adds the secondary keys, in their order.
    pub(super) keys: Option<String>,
    /// Adds the foreign keys, in their order.
    pub(super) references: Option<String>,
}

/// Takes what `SHOW CREATE TABLE` said apart. It writes one column, key or constraint a line, indented by two spaces;
/// names and texts with line breaks in them make it something that is left whole.
pub(super) fn take_apart(name: &str, sql: &str) -> Parts {
    let whole = || Parts { table: sql.to_owned(), keys: None, references: None };
    let Some((head, rest)) = sql.split_once(" (\n") else { return whole() };
    let Some((body, tail)) = rest.rsplit_once("\n)") else { return whole() };
    let lines: Vec<&str> = body.split('\n').map(|l| l.strip_suffix(',').unwrap_or(l)).collect();
    // A history may not be rebuilt, and partitions in a comment may hold anything.
    let odd =
        !lines.iter().all(|l| l.starts_with("  ")) || tail.contains("SYSTEM VERSIONING") || body.contains("PERIOD FOR");
    if odd {
        return whole();
    }
    let (mut kept, mut keys, mut references) = (Vec::new(), Vec::new(), Vec::new());
    for line in &lines {
        let line = line.trim_start();
        if ["KEY ", "UNIQUE KEY ", "FULLTEXT KEY ", "SPATIAL KEY ", "VECTOR KEY "].iter().any(|k| line.starts_with(k)) {
            keys.push(line);
        } else if line.starts_with("CONSTRAINT ") && line.contains(" FOREIGN KEY (") {
            references.push(line);
        } else {
            kept.push(line);
        }
    }
    // A column that counts needs a key from the beginning; and a key of its own would come first in the list.
    let counts = kept.iter().find(|l| l.contains(" AUTO_INCREMENT") && l.starts_with('`'));
    let counting = counts.and_then(|l| l[1..].split('`').next());
    let primary = kept.iter().find(|l| l.starts_with("PRIMARY KEY (`"));
    let is_first =
        |column: &str| primary.is_some_and(|p| p["PRIMARY KEY (`".len()..].split('`').next() == Some(column));
    if counting.is_some_and(|column| !is_first(column)) {
        kept.append(&mut keys);
    }
    // Full-text and spatial keys are made one at a time.
    let one_by_one = keys.iter().any(|k| !k.starts_with("KEY ") && !k.starts_with("UNIQUE KEY "));
    if one_by_one {
        kept.append(&mut keys);
    }
    let alter = |added: &[&str]| {
        let added: Vec<String> = added.iter().map(|a| format!("ADD {a}")).collect();
        (!added.is_empty()).then(|| format!("ALTER TABLE {} {}", identifier(name), added.join(", ")))
    };
    Parts {
        table: format!("{head} (\n  {}\n){tail}", kept.join(",\n  ")),
        keys: alter(&keys),
        references: alter(&references),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_after_the_rows_in_their_order() {
        let sql = "CREATE TABLE `t` (\n  `id` int(11) NOT NULL AUTO_INCREMENT,\n  `a` varchar(9) DEFAULT ',\n  KEY',\n  PRIMARY KEY (`id`)\n) ENGINE=InnoDB";
        // A text that looks like another line makes the definition one that is left whole, or changes nothing.
        assert_eq!(take_apart("t", sql).references, None);
        let sql = "CREATE TABLE `t` (\n  `id` int(11) NOT NULL AUTO_INCREMENT,\n  `b` int(11) DEFAULT NULL,\n  PRIMARY KEY (`id`),\n  UNIQUE KEY `u` (`b`),\n  KEY `k` (`b`,`id`),\n  CONSTRAINT `f` FOREIGN KEY (`b`) REFERENCES `o` (`id`),\n  CONSTRAINT `c` CHECK (`b` > 0)\n) ENGINE=InnoDB AUTO_INCREMENT=7";
        let parts = take_apart("t", sql);
        assert_eq!(
            parts.table,
            "CREATE TABLE `t` (\n  `id` int(11) NOT NULL AUTO_INCREMENT,\n  `b` int(11) DEFAULT NULL,\n  PRIMARY KEY (`id`),\n  CONSTRAINT `c` CHECK (`b` > 0)\n) ENGINE=InnoDB AUTO_INCREMENT=7"
        );
        assert_eq!(parts.keys.as_deref(), Some("ALTER TABLE `t` ADD UNIQUE KEY `u` (`b`), ADD KEY `k` (`b`,`id`)"));
        assert_eq!(
            parts.references.as_deref(),
            Some("ALTER TABLE `t` ADD CONSTRAINT `f` FOREIGN KEY (`b`) REFERENCES `o` (`id`)")
        );
    }

    #[test]
    fn a_column_that_counts_keeps_its_key() {
        let sql = "CREATE TABLE `t` (\n  `a` int(11) NOT NULL,\n  `n` int(11) NOT NULL AUTO_INCREMENT,\n  PRIMARY KEY (`a`),\n  KEY `n` (`n`)\n) ENGINE=InnoDB";
        let parts = take_apart("t", sql);
        assert_eq!((parts.table.as_str(), parts.keys), (sql, None));
    }
}
