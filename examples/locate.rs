//! Sources and targets from the words of the command line.

use std::path::Path;

use backup_core::{
    Discard, Error, ErrorKind, FilesSource, FilesTarget, Keys, MysqlSource, MysqlTarget, PostgresSource,
    PostgresTarget, Repository, Result, Source, SqliteSource, SqliteTarget, Store, Target, Tier,
};

use crate::cli::complain;

/// The source that `[NAME=]URL` names. `exclude` goes for directories, `tier` for databases.
pub fn source(text: &str, exclude: &[String], tier: Option<&Tier>) -> Result<Box<dyn Source>> {
    let (name, url) = match text.split_once('=') {
        // A name has no colon; a path may have an equals sign.
        Some((name, url)) if !name.contains(':') && !name.is_empty() => (Some(name), url),
        _ => (None, text),
    };
    if !exclude.is_empty() && !url.starts_with("dir:") {
        return Err(Error::new(ErrorKind::Config, "--exclude goes for dir: sources only")
            .with_next_step("leave it out, or give the directory a command of its own"));
    }
    if is_mysql(url) {
        let mut source = MysqlSource::new(url)?;
        if let Some(tier) = tier {
            source = source.only_tier(tier.clone());
        }
        return Ok(Box::new(match name {
            Some(name) => source.named(name),
            None => source,
        }));
    }
    if is_postgres(url) {
        let mut source = PostgresSource::new(url)?;
        if let Some(tier) = tier {
            source = source.only_tier(tier.clone());
        }
        return Ok(Box::new(match name {
            Some(name) => source.named(name),
            None => source,
        }));
    }
    if let Some(path) = url.strip_prefix("sqlite:") {
        let mut source = SqliteSource::new(path);
        if let Some(tier) = tier {
            source = source.only_tier(tier.clone());
        }
        return Ok(Box::new(match name {
            Some(name) => source.named(name),
            None => source,
        }));
    }
    if tier.is_some() && url.starts_with("dir:") {
        return Err(Error::new(ErrorKind::Config, "--tables goes for databases only")
            .with_next_step("give the directory a command of its own; --exclude leaves out parts of it"));
    }
    if let Some(path) = url.strip_prefix("dir:") {
        let source = FilesSource::new(path).excluding(exclude)?;
        return Ok(Box::new(match name {
            Some(name) => source.named(name),
            None => source,
        }));
    }
    Err(unknown("source", url, "postgres://…, mysql://…, sqlite:PATH or dir:PATH"))
}

/// The target that a URL names.
pub fn target(url: &str) -> Result<Box<dyn Target>> {
    if let Some(path) = url.strip_prefix("sqlite:") {
        return Ok(Box::new(SqliteTarget::new(path)));
    }
    if let Some(path) = url.strip_prefix("dir:") {
        return Ok(Box::new(FilesTarget::new(path)));
    }
    if is_postgres(url) {
        return Ok(Box::new(PostgresTarget::new(url)?));
    }
    if is_mysql(url) {
        return Ok(Box::new(MysqlTarget::new(url)?));
    }
    if url == "discard:" {
        return Ok(Box::new(Discard));
    }
    Err(unknown("target", url, "postgres://…, mysql://…, sqlite:PATH, dir:PATH or discard:"))
}

/// The repository that is in these stores; one that is not there is said, where another one is.
pub async fn open(urls: &[String], keys: Option<&Path>, limit_rate: Option<u64>) -> Result<Repository> {
    let keys = match keys {
        Some(directory) => Keys::load(directory)?,
        None => Keys::none(),
    };
    let mut stores = Vec::new();
    let mut without = Vec::new();
    for url in urls {
        match Store::from_url(url) {
            Ok(store) => stores.push(limited(store, limit_rate)),
            // A disk that is not there: the others may do.
            Err(e) if e.kind() == ErrorKind::StoreMissing && urls.len() > 1 => without.push((url.clone(), e)),
            Err(e) => return Err(e),
        }
    }
    if stores.is_empty() {
        return Err(match without.is_empty() {
            false => without.swap_remove(0).1,
            true => Error::new(ErrorKind::Config, "no store was named")
                .with_next_step("name one: file:///PATH, s3://BUCKET/PREFIX"),
        });
    }
    let repository = Repository::open_all(stores, keys).await?;
    let repository = without.into_iter().fold(repository, |repository, (url, e)| repository.going_without(url, e));
    for (store, e) in repository.unreachable() {
        complain(&format!("{store} cannot be used: {e}"));
    }
    Ok(repository)
}

/// With no more than so many bytes a second to and from it.
pub fn limited(store: Store, limit_rate: Option<u64>) -> Store {
    match limit_rate {
        Some(per_second) => store.with_bandwidth(per_second),
        None => store,
    }
}

/// The store for a new repository: a folder is made where there is none.
pub fn new_store(url: &str) -> Result<Store> {
    match url.strip_prefix("file://") {
        Some(path) if Path::new(path).is_absolute() => Store::folder(path),
        _ => Store::from_url(url),
    }
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

fn is_mysql(url: &str) -> bool {
    url.starts_with("mysql://") || url.starts_with("mariadb://")
}

fn unknown(what: &str, url: &str, known: &str) -> Error {
    let scheme = url.split(':').next().unwrap_or(url);
    Error::new(ErrorKind::Config, format!("{what} {scheme}:…: this kind of {what} is not known"))
        .with_next_step(format!("a {what} is {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_told_apart() {
        assert_eq!(source("shop=sqlite:/a/b=c.db", &[], None).unwrap().name(), "shop");
        assert_eq!(source("sqlite:/a/x=y.db", &[], None).unwrap().name(), "x=y");
        assert_eq!(source("dir:/var/uploads", &[], None).unwrap().name(), "uploads");
        assert_eq!(
            source("ftp://u:secret@h", &[], None).unwrap_err().to_string(),
            "source ftp:…: this kind of source is not known"
        );
        assert!(target("mongodb://x").is_err());
    }
}
