//! What the measurements share: running a command and watching it, medians, a table.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Any error: a measurement that fails has no figure.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A command's time and its largest resident memory in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// From start to end.
    pub time: Duration,
    /// The high-water mark of its resident set (`VmHWM`), children excluded.
    pub memory: u64,
}

/// The end of a measurement's `main`: what went wrong is said.
pub fn ended(done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            say(&format!("error: {e}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs `command` to its end, watching its memory; an error where it fails.
pub fn measure(command: &mut Command) -> Result<Measured> {
    measure_ending(command, &[0])
}

/// The same where it may end with any of these codes.
pub fn measure_ending(command: &mut Command, codes: &[i32]) -> Result<Measured> {
    let began = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let status_file = format!("/proc/{}/status", child.id());
    let mut memory = 0;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        // The mark only rises; the last look before the end has it all but for the last moments.
        memory = memory.max(high_water(&status_file).unwrap_or(0));
        std::thread::sleep(Duration::from_millis(5));
    };
    let time = began.elapsed();
    if !status.code().is_some_and(|code| codes.contains(&code)) {
        return Err(format!("{command:?} ended with {status}").into());
    }
    Ok(Measured { time, memory })
}

/// The release build of the `backup` tool, beside this program.
pub fn backup_tool() -> Result<PathBuf> {
    tool("backup")
}

/// The release build of a tool, beside this program.
pub fn tool(name: &str) -> Result<PathBuf> {
    let mut path = std::env::current_exe()?;
    path.set_file_name("examples");
    path.push(name);
    if !path.exists() {
        return Err(format!("{} is not built: cargo build --release --examples", path.display()).into());
    }
    Ok(path)
}

/// Whether a program is installed.
pub fn is_installed(program: &str) -> bool {
    let found = |path: std::ffi::OsString| std::env::split_paths(&path).any(|p| p.join(program).is_file());
    std::env::var_os("PATH").is_some_and(found)
}

/// Empties the page cache, so that the next read comes from the disk; an error without the right to do so.
pub fn drop_caches() -> Result<()> {
    if !Command::new("sync").status()?.success() {
        return Err("sync failed".into());
    }
    Ok(std::fs::write("/proc/sys/vm/drop_caches", "3")?)
}

/// The middle one; of an even number the mean of the two in the middle. `None` of none.
pub fn median(mut times: Vec<f64>) -> Option<f64> {
    times.sort_by(f64::total_cmp);
    let middle = times.len() / 2;
    match times.len() {
        0 => None,
        n if n % 2 == 1 => Some(times[middle]),
        _ => Some((times[middle - 1] + times[middle]) / 2.0),
    }
}

/// The length of all files below `root`, or of that one, in bytes, and how many there are.
pub fn size_of(root: &Path) -> Result<(u64, u64)> {
    if root.is_file() {
        return Ok((root.metadata()?.len(), 1));
    }
    let (mut bytes, mut files) = (0, 0);
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let metadata = entry.path().symlink_metadata()?;
            if metadata.is_dir() {
                open.push(entry.path());
            } else {
                bytes += metadata.len();
                files += 1;
            }
        }
    }
    Ok((bytes, files))
}

/// Writes an access log of at least `size` bytes as nginx does, and says how many lines it has: some thousands of addresses,
/// some hundreds of paths, few agents.
pub fn access_log(path: &Path, size: u64) -> Result<u64> {
    let mut random = fastrand::Rng::with_seed(42);
    let mut out = BufWriter::new(std::fs::File::create(path)?);
    let agents = [
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1",
        "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0",
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    ];
    let (mut written, mut lines) = (0, 0u64);
    while written < size {
        let (address, agent) = (random.u32(0..20_000), agents[random.usize(0..agents.len())]);
        let (a, b) = (address >> 8, address & 255);
        let status = match random.u16(0..1000) {
            0..3 => 502,
            3..30 => 404,
            30..90 => 304,
            90..130 => 302,
            _ => 200,
        };
        let second = lines / 40;
        let line = format!(
            "10.{}.{a}.{b} - - [25/Nov/2026:{:02}:{:02}:{:02} +0000] \"GET /products/{}?variant={} HTTP/1.1\" {status} {} \"https://shop.example/category/{}\" \"{agent}\"\n",
            address % 7,
            second / 3600 % 24,
            second / 60 % 60,
            second % 60,
            random.u16(0..800),
            random.u16(0..3000),
            random.u32(200..60_000),
            random.u16(0..40)
        );
        out.write_all(line.as_bytes())?;
        written += line.len() as u64;
        lines += 1;
    }
    out.flush()?;
    Ok(lines)
}

/// At least so many bytes of rows as `COPY` gives them: orders of a shop, one a line.
pub fn table_rows(size: usize) -> bytes::Bytes {
    const STATES: [&str; 4] = ["paid", "shipped", "delivered", "refunded"];
    const STREETS: [&str; 5] = ["Marina Road", "Allen Avenue", "Broad Street", "Awolowo Way", "Station Road"];
    let mut random = fastrand::Rng::with_seed(42);
    let mut out = String::with_capacity(size + 256);
    let mut id = 0u64;
    while out.len() < size {
        id += 1;
        let _ = writeln!(
            out,
            "{id}\t{}\t{}\t{}.{:02}\t2026-{:02}-{:02} {:02}:{:02}:{:02}.{:06}+00\tcustomer{}@example.com\t{} {}, Lagos\t{:032x}\t\\N",
            random.u32(1..200_000),
            STATES[random.usize(0..STATES.len())],
            random.u32(5..900),
            random.u8(0..100),
            random.u8(1..13),
            random.u8(1..29),
            random.u8(0..24),
            random.u8(0..60),
            random.u8(0..60),
            random.u32(0..1_000_000),
            random.u32(1..200_000),
            random.u16(1..300),
            STREETS[random.usize(0..STREETS.len())],
            random.u128(..),
        );
    }
    out.into()
}

/// Prints one line.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// MiB, as text.
pub fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

fn high_water(status_file: &str) -> Option<u64> {
    let text = std::fs::read_to_string(status_file).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn a_failing_command_has_no_figure() {
        assert!(measure(&mut Command::new("false")).is_err());
        assert!(measure(Command::new("sleep").arg("0.05")).is_ok_and(|m| m.memory > 0));
    }
}
