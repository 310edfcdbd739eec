//! A throw-away IMAP server (Dovecot) on loopback ports, over the mailbox of a [`smtp::Server`](crate::smtp::Server).

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};

use tempfile::TempDir;

use crate::Error;
use crate::process::{answers, as_user, owner};

/// An IMAP server; it ends with this value.
#[derive(Debug)]
pub struct Server {
    directory: TempDir,
    tls: u16,
    starttls: u16,
    child: Child,
}

impl Server {
    /// Starts one, with a certificate and its key, that lets in `inbox` with this password, over that Maildir.
    pub async fn start(certificate: &Path, key: &Path, maildir: &Path, password: &str) -> Result<Self, Error> {
        let program = Path::new("/usr/sbin/dovecot");
        if !program.exists() {
            return Err(Error::Server("there is no IMAP server here: apt-get install dovecot-imapd".into()));
        }
        let Some((uid, gid)) = owner("Debian-exim", "exim4-daemon-light")? else {
            return Err(Error::Server("Dovecot is started by root only".into()));
        };
        let directory = tempfile::Builder::new().prefix("imap").tempdir_in("/tmp")?;
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
        let here = directory.path().display().to_string();
        for (from, to) in [(certificate, "server.crt"), (key, "server.key")] {
            std::fs::copy(from, directory.path().join(to))?;
        }
        for _ in 0..5 {
            // Ports may be taken between here and the server's start: then others are tried.
            let (first, second) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
            let (tls, starttls) = (first.local_addr()?.port(), second.local_addr()?.port());
            drop((first, second));
            std::fs::write(
                directory.path().join("dovecot.conf"),
                format!(
                    "base_dir = {here}/run\nstate_dir = {here}/state\nlog_path = {here}/log\nprotocols = imap\nlisten = 127.0.0.1\n\
                     ssl = required\nssl_cert = <{here}/server.crt\nssl_key = <{here}/server.key\nauth_mechanisms = plain login\nauth_failure_delay = 0\n\
                     service anvil {{\n  unix_listener anvil-auth-penalty {{\n    mode = 0\n  }}\n}}\n\
                     mail_location = maildir:{maildir}\nfirst_valid_uid = 1\nmail_uid = {uid}\nmail_gid = {gid}\n\
                     passdb {{\n  driver = static\n  args = user=inbox password={password}\n}}\n\
                     userdb {{\n  driver = static\n  args = uid={uid} gid={gid} home={home}\n}}\n\
                     service imap-login {{\n  inet_listener imap {{\n    port = {starttls}\n  }}\n  inet_listener imaps {{\n    port = {tls}\n    ssl = yes\n  }}\n}}\n",
                    maildir = maildir.display(),
                    home = maildir.parent().unwrap_or(maildir).display(),
                ),
            )?;
            let mut child = as_user(None, program)
                .args(["-F", "-c"])
                .arg(directory.path().join("dovecot.conf"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            if answers(&mut child, tls).await? {
                return Ok(Self { directory, tls, starttls, child });
            }
        }
        let log = std::fs::read_to_string(directory.path().join("log")).unwrap_or_default();
        Err(Error::Server(format!("Dovecot did not start: {log}")))
    }

    /// Its port with TLS from the first byte, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.tls
    }

    /// Its port with STARTTLS.
    pub fn starttls_port(&self) -> u16 {
        self.starttls
    }

    /// What it logged.
    pub fn log(&self) -> Result<String, Error> {
        Ok(std::fs::read_to_string(self.directory.path().join("log"))?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::process::Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}
