//! What the throw-away servers share: whom they run as, how they end, and their certificates.

use std::ffi::OsString;
use std::net::TcpStream;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Error;

/// User and group to run the server as; `None` where this user will do.
pub(crate) fn owner(user: &str, package: &str) -> Result<Option<(u32, u32)>, Error> {
    let me = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self")?);
    if me != 0 {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    let mut fields = users.lines().map(|l| l.split(':').collect::<Vec<_>>());
    let found = fields.find(|f| f[0] == user).ok_or_else(|| {
        Error::Server(format!("there is no user {user} to run a server as: apt-get install {package}"))
    })?;
    let number = |at: usize| found.get(at).and_then(|n| n.parse().ok());
    Ok(number(2).zip(number(3)))
}

/// A program as that user; it ends when this process does.
pub(crate) fn as_user(owner: Option<(u32, u32)>, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig=KILL");
    if let Some((uid, gid)) = owner {
        command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()]);
    }
    command.arg(program).env("LC_ALL", "C").current_dir("/");
    command
}

/// The command line of a program that runs.
pub(crate) fn command_of(child: &Child) -> Result<Vec<OsString>, Error> {
    let line = std::fs::read(format!("/proc/{}/cmdline", child.id()))?;
    let words = line.split(|b| *b == 0).filter(|word| !word.is_empty());
    Ok(words.map(|word| OsString::from_vec(word.to_vec())).collect())
}

/// The same command line again.
pub(crate) fn run_again(owner: Option<(u32, u32)>, line: &[OsString]) -> Command {
    let (program, arguments) = line.split_first().map_or((Path::new("false"), &[][..]), |(p, a)| (Path::new(p), a));
    let mut command = as_user(owner, program);
    command.args(arguments);
    command
}

/// Whether the server answers on that loopback port; it is ended where it does not.
pub(crate) async fn answers(child: &mut Child, port: u16) -> Result<bool, Error> {
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until && child.try_wait()?.is_none() {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    child.kill()?;
    child.wait()?;
    Ok(false)
}

/// A certificate authority of its own, and a certificate for localhost.
pub(crate) fn certificates(data: &Path, owner: Option<(u32, u32)>) -> Result<(), Error> {
    let openssl = |arguments: &[&str]| -> Result<(), Error> {
        let output = Command::new("openssl").args(arguments).current_dir(data).stdin(Stdio::null()).output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::Server(format!("openssl: {}", String::from_utf8_lossy(&output.stderr))))
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let authority =
        ["req", "-x509", "-days", "30", "-subj", "/CN=storefront tests", "-keyout", "ca.key", "-out", "ca.crt"];
    openssl(&[&authority[..], &key].concat())?;
    let own = ["req", "-x509", "-days", "30", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
    let own = [
        &own[..],
        &[
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-keyout",
            "server.key",
            "-out",
            "server.crt",
        ],
        &key,
    ]
    .concat();
    openssl(&own)?;
    for name in ["server.key", "server.crt", "ca.key", "ca.crt"] {
        let path = data.join(name);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(if name == "ca.crt" { 0o644 } else { 0o600 }))?;
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::chown(&path, Some(uid), Some(gid))?;
        }
    }
    std::fs::copy(data.join("ca.crt"), data.join("../ca.crt"))?;
    Ok(())
}
