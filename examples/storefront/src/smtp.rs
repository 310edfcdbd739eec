//! A throw-away mail server (Exim) on a loopback port, that delivers to a Maildir.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use tempfile::TempDir;

use crate::Error;
use crate::process::{answers, as_user, owner};

/// A mail server; it ends with this value.
#[derive(Debug)]
pub struct Server {
    directory: TempDir,
    port: u16,
    child: Child,
}

impl Server {
    /// Starts one, with a certificate and its key, that lets in `shop` with this password after STARTTLS, and takes mail for
    /// `inbox@shop.test`.
    pub async fn start(certificate: &Path, key: &Path, password: &str) -> Result<Self, Error> {
        let program = Path::new("/usr/sbin/exim4");
        if !program.exists() {
            return Err(Error::Server("there is no mail server here: apt-get install exim4-daemon-light".into()));
        }
        let user = owner("Debian-exim", "exim4-daemon-light")?;
        let directory = tempfile::Builder::new().prefix("smtp").tempdir_in("/tmp")?;
        let here = directory.path().display().to_string();
        for folder in ["", "spool", "log", "mail"] {
            let path = directory.path().join(folder);
            std::fs::create_dir_all(&path)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
            if let Some((uid, gid)) = user {
                std::os::unix::fs::chown(&path, Some(uid), Some(gid))?;
            }
        }
        for (from, to) in [(certificate, "server.crt"), (key, "server.key")] {
            let path = directory.path().join(to);
            std::fs::copy(from, &path)?;
            if let Some((uid, gid)) = user {
                std::os::unix::fs::chown(&path, Some(uid), Some(gid))?;
            }
        }
        std::fs::write(
            directory.path().join("exim.conf"),
            format!(
                "primary_hostname = shop.test\nspool_directory = {here}/spool\nlog_file_path = {here}/log/%slog\n\
                 pid_file_path = {here}/pid\ntls_advertise_hosts = *\ntls_certificate = {here}/server.crt\n\
                 tls_privatekey = {here}/server.key\nauth_advertise_hosts = ${{if eq{{$tls_in_cipher}}{{}}{{}}{{*}}}}\n\
                 acl_smtp_rcpt = check\nnever_users =\ntrusted_users = Debian-exim : root\nexim_user = Debian-exim\nexim_group = Debian-exim\n\
                 domainlist local = shop.test\nqueue_run_in_order\nhost_lookup =\nrfc1413_query_timeout = 0s\nsmtp_accept_max = 50\n\
                 begin acl\ncheck:\n  accept authenticated = *\n  accept domains = +local\n  deny\n\
                 begin routers\nlocal:\n  driver = accept\n  domains = +local\n  local_parts = inbox\n  transport = maildir\n\
                 begin transports\nmaildir:\n  driver = appendfile\n  directory = {here}/mail\n  maildir_format\n  user = Debian-exim\n  group = Debian-exim\n  create_directory\n\
                 begin authenticators\nplain:\n  driver = plaintext\n  public_name = PLAIN\n  server_condition = ${{if and{{{{eq{{$auth2}}{{shop}}}}{{eq{{$auth3}}{{{password}}}}}}}}}\n  server_set_id = $auth2\n  server_prompts = :\n"
            ),
        )?;
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let mut child = as_user(None, program)
                .arg("-C")
                .arg(directory.path().join("exim.conf"))
                .args(["-bdf", "-oX", &format!("127.0.0.1.{port}")])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            if answers(&mut child, port).await? {
                return Ok(Self { directory, port, child });
            }
        }
        let log = std::fs::read_to_string(directory.path().join("log/mainlog")).unwrap_or_default();
        let panic = std::fs::read_to_string(directory.path().join("log/paniclog")).unwrap_or_default();
        Err(Error::Server(format!("Exim did not start: {log}{panic}")))
    }

    /// Its port, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The mailbox.
    pub fn maildir(&self) -> PathBuf {
        self.directory.path().join("mail")
    }

    /// What it logged.
    pub fn log(&self) -> Result<String, Error> {
        Ok(std::fs::read_to_string(self.directory.path().join("log/mainlog"))?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::process::Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}
