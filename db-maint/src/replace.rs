//! Files that are replaced as a whole.

use crate::error::{Error, ErrorKind, Result};

/// Puts `text` in the place of the file, whole or not at all, with the rights of the old one; a new one gets `mode`.
pub(crate) fn replace(path: &std::path::Path, text: &str, mode: u32) -> Result<()> {
    use std::io::Write;
    let wrong = |e: std::io::Error| {
        Error::new(ErrorKind::Config, format!("{}: cannot be written: {e}", path.display()))
            .with_next_step("check the folder and the rights on it")
            .with_source(e)
    };
    // Where the name is a link, what it leads to.
    let path = match std::fs::canonicalize(path) {
        Ok(path) => path,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => path.to_owned(),
        Err(e) => return Err(wrong(e)),
    };
    let Some(name) = path.file_name() else { return Err(wrong(std::io::ErrorKind::IsADirectory.into())) };
    let name = name.to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.caretaker-{:08x}", fastrand::u32(..)));
    let written = (|| {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&beside)?;
        match std::fs::metadata(&path) {
            Ok(old) => {
                file.set_permissions(old.permissions())?;
                #[cfg(unix)]
                {
                    use std::os::unix::fs::MetadataExt;
                    let new = file.metadata()?;
                    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
                        std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))?;
                    }
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                #[cfg(unix)]
                file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
            }
            Err(e) => return Err(e),
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, &path)
    })();
    if written.is_err() {
        // What was begun; there may be nothing.
        let _ = std::fs::remove_file(&beside);
    }
    written.map_err(wrong)
}
