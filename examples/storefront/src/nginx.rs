//! A throw-away nginx on loopback ports.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use tempfile::TempDir;

use crate::Error;
use crate::process::{answers, as_user};

/// A web server; it ends with this value.
#[derive(Debug)]
pub struct Server {
    directory: TempDir,
    port: u16,
    second: u16,
    child: Child,
}

impl Server {
    /// Starts one. `http` stands within the block `http` of its configuration: `{port}` in it is the port that it is reached at,
    /// `{second}` another free one, `{here}` its folder.
    pub async fn start(http: &str) -> Result<Self, Error> {
        let program = Path::new("/usr/sbin/nginx");
        if !program.exists() {
            return Err(Error::Server("there is no nginx here: apt-get install nginx-light".into()));
        }
        let directory = tempfile::Builder::new().prefix("nginx").tempdir_in("/tmp")?;
        // Its workers are another user.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777))?;
        let here = directory.path().display().to_string();
        for _ in 0..5 {
            // A port may be taken between here and the server's start: then others are tried.
            let (first, second) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
            let (port, other) = (first.local_addr()?.port(), second.local_addr()?.port());
            drop((first, second));
            let http = http
                .replace("{port}", &port.to_string())
                .replace("{second}", &other.to_string())
                .replace("{here}", &here);
            std::fs::write(
                directory.path().join("nginx.conf"),
                format!(
                    "daemon off;\npid {here}/pid;\nerror_log {here}/error.log;\nworker_processes 1;\nevents {{}}\n\
                     http {{\n  access_log {here}/access.log;\n  client_body_temp_path {here}/body;\n  proxy_temp_path {here}/proxy;\n\
                       fastcgi_temp_path {here}/fastcgi;\n  uwsgi_temp_path {here}/uwsgi;\n  scgi_temp_path {here}/scgi;\n{http}\n}}\n"
                ),
            )?;
            let mut child = as_user(None, program)
                .arg("-c")
                .arg(directory.path().join("nginx.conf"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            if answers(&mut child, port).await? {
                return Ok(Self { directory, port, second: other, child });
            }
        }
        let log = std::fs::read_to_string(directory.path().join("error.log"))?;
        Err(Error::Server(format!("nginx did not start: {log}")))
    }

    /// Its URL, with a slash at the end.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// The port that it is reached at.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The second one.
    pub fn second_port(&self) -> u16 {
        self.second
    }

    /// Its folder, with `access.log` and `error.log`.
    pub fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A signal that lets it end its workers; where that cannot be sent they end as they find their master gone.
        let pid = self.child.id().to_string();
        let _ = std::process::Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.child.wait();
    }
}
