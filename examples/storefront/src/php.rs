//! A throw-away PHP, as a web server calls it.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Error;
use crate::process::as_user;

/// A pool of PHP processes behind a socket; they end with this value.
#[derive(Debug)]
pub struct Server {
    directory: TempDir,
    child: Child,
}

impl Server {
    /// Starts one. Errors go to [`Server::error_log`], and to nobody else.
    pub async fn start() -> Result<Self, Error> {
        Self::start_with(false).await
    }

    /// The same that shows its errors to everybody, as it must not be.
    pub async fn start_showing_errors() -> Result<Self, Error> {
        Self::start_with(true).await
    }

    async fn start_with(shows: bool) -> Result<Self, Error> {
        let shows = if shows { "on" } else { "off" };
        let programs = std::fs::read_dir("/usr/sbin")?.filter_map(Result::ok).map(|e| e.path());
        let program = programs
            .into_iter()
            .find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("php-fpm")))
            .ok_or_else(|| Error::Server("there is no PHP here: apt-get install php-fpm".into()))?;
        let directory = tempfile::Builder::new().prefix("php").tempdir_in("/tmp")?;
        // The web server's workers are another user.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
        let here = directory.path().display().to_string();
        std::fs::create_dir(directory.path().join("public"))?;
        std::fs::write(
            directory.path().join("fpm.conf"),
            format!(
                "[global]\nerror_log = {here}/fpm.log\ndaemonize = no\n[shop]\nuser = root\ngroup = root\nlisten = {here}/php.sock\nlisten.mode = 0666\n\
                 pm = static\npm.max_children = 2\nphp_admin_value[error_log] = {here}/php_error.log\n\
                 php_admin_flag[log_errors] = on\nphp_admin_flag[display_errors] = {shows}\nphp_admin_flag[html_errors] = on\n"
            ),
        )?;
        let mut command = as_user(None, &program);
        command.args(["--nodaemonize", "--allow-to-run-as-root", "--fpm-config"]);
        command.arg(directory.path().join("fpm.conf")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let until = Instant::now() + Duration::from_secs(20);
        let socket = directory.path().join("php.sock");
        while Instant::now() < until && child.try_wait()?.is_none() {
            if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
                return Ok(Self { directory, child });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let log = std::fs::read_to_string(directory.path().join("fpm.log")).unwrap_or_default();
        child.kill()?;
        child.wait()?;
        Err(Error::Server(format!("PHP did not start: {log}")))
    }

    /// Puts a page there.
    pub fn page(&self, name: &str, text: &str) -> Result<(), Error> {
        Ok(std::fs::write(self.directory.path().join("public").join(name), text)?)
    }

    /// The folder of its pages.
    pub fn public(&self) -> PathBuf {
        self.directory.path().join("public")
    }

    /// The line of an nginx server that sends `.php` there.
    pub fn nginx(&self) -> String {
        let here = self.directory.path().display();
        format!(
            "root {here}/public; location ~ \\.php$ {{ fastcgi_pass unix:{here}/php.sock; \
             fastcgi_param SCRIPT_FILENAME {here}/public$fastcgi_script_name; fastcgi_param REQUEST_METHOD $request_method; \
             fastcgi_param QUERY_STRING $query_string; fastcgi_param CONTENT_LENGTH $content_length; \
             fastcgi_param REMOTE_ADDR $remote_addr; fastcgi_param REQUEST_URI $request_uri; \
             fastcgi_param CONTENT_TYPE $content_type; }}"
        )
    }

    /// What PHP has to say.
    pub fn error_log(&self) -> PathBuf {
        self.directory.path().join("php_error.log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A signal that lets it end its children; where that cannot be sent they end as they find their master gone.
        let _ = std::process::Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}
