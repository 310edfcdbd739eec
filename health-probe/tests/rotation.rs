//! A log that is rotated in every way while it is read: each line is counted exactly once.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use chrono::{DateTime, TimeDelta, Utc};
use flate2::Compression;
use flate2::write::GzEncoder;
use health_probe::logs::{Follower, Start, TrafficOptions};
use health_probe::{AccessLogProbe, Context, Probe};

struct Log {
    folder: tempfile::TempDir,
    writer: Option<File>,
    written: u64,
    random: fastrand::Rng,
    partial: bool,
}

impl Log {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Self { folder, writer: None, written: 0, random: fastrand::Rng::with_seed(seed), partial: false };
        log.reopen();
        log
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("access.log")
    }

    fn rotated(&self, n: usize, end: &str) -> PathBuf {
        self.folder.path().join(format!("access.log.{n}{end}"))
    }

    fn reopen(&mut self) {
        self.writer = Some(OpenOptions::new().create(true).append(true).open(self.path()).unwrap());
    }

    /// Some lines, sometimes the beginning of one.
    fn write(&mut self, lines: usize) {
        let mut text = String::new();
        for _ in 0..lines {
            if self.partial {
                text.push_str(" and its end\n");
                self.partial = false;
                continue;
            }
            text.push_str(&format!("line {} {}", self.written, "x".repeat(self.random.usize(0..300))));
            self.written += 1;
            if self.random.u8(0..10) == 0 {
                self.partial = true;
                break;
            }
            text.push('\n');
        }
        self.writer.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// What logrotate does: numbers go up, older ones are compressed; the log is renamed or copied and truncated.
    fn rotate(&mut self, copy: bool, delay: bool) {
        for n in (1..6).rev() {
            for end in ["", ".gz"] {
                if self.rotated(n, end).exists() {
                    fs::rename(self.rotated(n, end), self.rotated(n + 1, end)).unwrap();
                }
            }
        }
        if copy {
            // A copy breaks a line off where it stands.
            self.finish();
            fs::copy(self.path(), self.rotated(1, "")).unwrap();
            OpenOptions::new().write(true).truncate(true).open(self.path()).unwrap();
        } else {
            self.finish();
            fs::rename(self.path(), self.rotated(1, "")).unwrap();
            self.reopen();
        }
        let compress = if delay { 2 } else { 1 };
        if self.rotated(compress, "").exists() {
            gzip(&self.rotated(compress, ""));
        }
    }

    fn finish(&mut self) {
        if self.partial {
            self.writer.as_mut().unwrap().write_all(b" and its end\n").unwrap();
            self.partial = false;
        }
    }
}

fn gzip(path: &Path) {
    let mut bytes = Vec::new();
    File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let out = File::create(format!("{}.gz", path.display())).unwrap();
    let mut encoder = GzEncoder::new(out, Compression::fast());
    encoder.write_all(&bytes).unwrap();
    encoder.finish().unwrap().set_modified(modified).unwrap();
    fs::remove_file(path).unwrap();
}

fn number(line: &[u8]) -> u64 {
    let text = std::str::from_utf8(line).unwrap();
    text.split(' ').nth(1).unwrap_or_else(|| panic!("{text:?}")).parse().unwrap()
}

fn now() -> DateTime<Utc> {
    Utc::now()
}

#[test]
fn every_line_is_counted_exactly_once_through_any_rotation() {
    let seeds = std::env::var("CARETAKER_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(200u64);
    for seed in 0..seeds {
        let mut log = Log::new(seed);
        let mut seen: HashMap<u64, u32> = HashMap::new();
        let mut state = serde_json::to_string(&Follower::new(log.path(), Start::Oldest)).unwrap();
        let (mut history, mut rotations) = (Vec::new(), 0);
        for _ in 0..40 {
            let step = log.random.u8(0..10);
            history.push(step);
            rotations += u32::from((4..8).contains(&step));
            match step {
                0..=3 => {
                    let lines = log.random.usize(0..30);
                    log.write(lines);
                }
                4 => log.rotate(false, true),
                5 => log.rotate(false, false),
                // Truncated before anything was read since: what a copy loses is lost to everybody, so the copy is whole here.
                6 => log.rotate(true, true),
                7 => log.rotate(true, false),
                _ => {
                    // Each scan is another process, that knows only what the last one kept; some are killed before they keep it.
                    let mut follower: Follower = serde_json::from_str(&state).unwrap();
                    let mut read = Vec::new();
                    let scan = follower.scan(now(), |line| read.push(number(line))).unwrap();
                    assert!(!scan.lost, "seed {seed}: {history:?}");
                    if log.random.u8(0..4) > 0 {
                        read.into_iter().for_each(|n| *seen.entry(n).or_default() += 1);
                        state = serde_json::to_string(&follower).unwrap();
                        rotations = 0;
                    }
                }
            }
            // After six rotations since what was kept, files are gone.
            if rotations >= 4 {
                rotations = 0;
                let mut follower: Follower = serde_json::from_str(&state).unwrap();
                follower.scan(now(), |line| *seen.entry(number(line)).or_default() += 1).unwrap();
                state = serde_json::to_string(&follower).unwrap();
                history.push(8);
            }
        }
        log.finish();
        let mut follower: Follower = serde_json::from_str(&state).unwrap();
        follower.scan(now(), |line| *seen.entry(number(line)).or_default() += 1).unwrap();
        let twice: Vec<_> = seen.iter().filter(|(_, n)| **n != 1).collect();
        let missing: Vec<_> = (0..log.written).filter(|n| !seen.contains_key(n)).collect();
        assert!(
            twice.is_empty() && missing.is_empty(),
            "seed {seed}: {history:?}: twice {twice:?}, missing {missing:?}"
        );
    }
}

fn scan(follower: &mut Follower) -> Vec<String> {
    let mut lines = Vec::new();
    follower.scan(now(), |line| lines.push(String::from_utf8_lossy(line).into_owned())).unwrap();
    lines
}

#[test]
fn an_inode_that_is_used_again_and_regrowth_past_the_place_are_seen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    fs::write(&path, "a 1\na 2\n").unwrap();
    let mut follower = Follower::new(&path, Start::File);
    assert_eq!(scan(&mut follower), ["a 1", "a 2"]);
    // Truncated and grown past the place, same inode: another beginning.
    fs::write(&path, "b 1\nb 2\nb 3\nb 4\n").unwrap();
    assert_eq!(scan(&mut follower), ["b 1", "b 2", "b 3", "b 4"]);
    // The same beginning, and another end: the bytes before the place differ.
    fs::write(&path, "b 1\nb 2\nc 3\nc 4\nc 5\n").unwrap();
    assert_eq!(scan(&mut follower), ["b 1", "b 2", "c 3", "c 4", "c 5"]);
    // Deleted and made anew: often the same inode.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "d 1\n").unwrap();
    assert_eq!(scan(&mut follower), ["d 1"]);
    // An empty log says nothing, and its first line is one.
    fs::write(&path, "").unwrap();
    assert!(scan(&mut follower).is_empty());
    fs::write(&path, "e").unwrap();
    assert!(scan(&mut follower).is_empty(), "a line counts once its end is there");
    fs::write(&path, "e 1\n").unwrap();
    assert_eq!(scan(&mut follower), ["e 1"]);
}

#[test]
fn a_copy_that_is_not_yet_truncated_is_not_read_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    fs::write(&path, "a 1\na 2\n").unwrap();
    let mut follower = Follower::new(&path, Start::File);
    assert_eq!(scan(&mut follower), ["a 1", "a 2"]);
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"a 3\n").unwrap();
    fs::copy(&path, folder.path().join("access.log.1")).unwrap();
    assert_eq!(scan(&mut follower), ["a 3"]);
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"a 4\n").unwrap();
    assert_eq!(scan(&mut follower), ["a 4"]);
    // Nor by somebody who never read it before.
    assert_eq!(scan(&mut Follower::new(&path, Start::Oldest)), ["a 1", "a 2", "a 3", "a 4"]);
    // Now it is truncated: the copy has less than was read.
    fs::write(&path, "b 1\n").unwrap();
    assert_eq!(scan(&mut follower), ["b 1"]);
    assert!(scan(&mut follower).is_empty());
}

#[test]
fn what_is_gone_is_said_to_be_and_what_cannot_be_read_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    assert!(Follower::new(&path, Start::File).scan(now(), |_| {}).is_err(), "a log that is not there");
    fs::write(&path, "a 1\n").unwrap();
    fs::write(folder.path().join("access.log.1"), "old 1\n").unwrap();
    let mut follower = Follower::new(&path, Start::End);
    assert!(scan(&mut follower).is_empty());
    let mut oldest = Follower::new(&path, Start::Oldest);
    assert_eq!(scan(&mut oldest), ["old 1", "a 1"]);
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"a 2\n").unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "b 1\n").unwrap();
    assert!(follower.scan(now(), |_| {}).unwrap().lost, "lines were lost, and that is said");
}

#[test]
fn the_last_line_of_a_rotated_file_counts_though_its_end_never_came() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    fs::write(&path, "a 1\na 2").unwrap();
    let mut follower = Follower::new(&path, Start::File);
    assert_eq!(scan(&mut follower), ["a 1"]);
    fs::rename(&path, folder.path().join("access.log.1")).unwrap();
    fs::write(&path, "b 1\n").unwrap();
    assert_eq!(scan(&mut follower), ["b 1"], "somebody may still write its end");
    let mut lines = Vec::new();
    let later = now() + TimeDelta::minutes(5);
    follower.scan(later, |line| lines.push(String::from_utf8_lossy(line).into_owned())).unwrap();
    assert_eq!(lines, ["a 2"]);
    assert_eq!(follower.scan(later, |_| {}).unwrap().lines, 0);
}

#[test]
fn a_log_with_a_file_for_each_day_is_followed_from_one_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let day = |day: u32| folder.path().join(format!("laravel-2026-11-{day}.log"));
    let append = |day: &Path, text: &str| {
        OpenOptions::new().append(true).create(true).open(day).unwrap().write_all(text.as_bytes()).unwrap();
    };
    let mut follower = Follower::new(folder.path().join("laravel-*.log"), Start::File);
    assert!(follower.scan(now(), |_| {}).is_err(), "none is there");
    append(&day(23), "old 1\n");
    append(&day(24), "a 1\n");
    append(&folder.path().join("laravel-x.log"), "other 1\n");
    append(&folder.path().join("laravel.log"), "other 2\n");
    assert_eq!(scan(&mut follower), ["a 1"], "what was there before is left out");
    append(&day(24), "a 2\n");
    append(&day(25), "b 1\nb 2");
    assert_eq!(scan(&mut follower), ["a 2", "b 1"]);
    // A late line of yesterday's, a compressed one of before, one that is deleted.
    append(&day(24), "a 3\n");
    append(&day(25), "\n");
    gzip(&day(23));
    assert_eq!(scan(&mut follower), ["a 3", "b 2"]);
    append(&day(26), "c 1\n");
    fs::remove_file(folder.path().join("laravel-2026-11-23.log.gz")).unwrap();
    let mut kept: Follower = serde_json::from_str(&serde_json::to_string(&follower).unwrap()).unwrap();
    assert_eq!(scan(&mut kept), ["c 1"]);
    assert!(Follower::new(folder.path().join("*-*.log"), Start::File).scan(now(), |_| {}).is_err());
}

/// What a process does that looks at the log again and again: started by the test below, and killed by it.
#[test]
fn a_process_that_reads() {
    let Some(folder) = std::env::var_os("CARETAKER_ROTATION").map(PathBuf::from) else { return };
    let probe =
        AccessLogProbe::new("access", folder.join("access.log"), folder.join("state.json"), TrafficOptions::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    loop {
        // A file that moves while it is read is read again at the next look.
        let outcome = runtime.block_on(probe.observe(&Context::at(now())));
        if let Err(e) = &outcome {
            assert!(!e.to_string().contains("is not what was kept"), "{e}");
        }
        println!("looked {}", outcome.is_ok());
        if folder.join("last").exists() && outcome.is_ok() {
            return;
        }
    }
}

#[test]
fn a_process_that_is_killed_at_any_moment_counts_every_line_once() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_process_that_reads", "--nocapture"])
            .env("CARETAKER_ROTATION", folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let path = folder.path().join("access.log");
    let (mut written, mut killed) = (0u64, 0);
    let seed = std::env::var("CARETAKER_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let time = now().format("%d/%b/%Y:%H:%M:%S +0000").to_string();
    let append = |lines: u64, written: &mut u64| {
        let mut log = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        for _ in 0..lines {
            writeln!(log, "192.0.2.1 - - [{time}] \"GET /{written} HTTP/1.1\" 200 5 \"-\" \"Mozilla\"").unwrap();
            *written += 1;
        }
    };
    append(20_000, &mut written);
    for round in 0..25 {
        let mut child = start();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        // Until it has looked so often; then it is killed, wherever in the next look it is.
        // The first time at least once: what is rotated away before the first look is passed over.
        for _ in 0..random.u32(u32::from(round == 0)..3) {
            while !line.starts_with("looked") {
                line.clear();
                assert!(said.read_line(&mut line).unwrap() > 0, "it ended by itself");
            }
            line.clear();
        }
        append(random.u64(0..3_000), &mut written);
        // Both ways of logrotate; a name that is given up is not used again, so that no file is lost before it is read.
        let old = folder.path().join(format!("access.log.{}", 100 - round));
        match random.u8(0..4) {
            0 => fs::rename(&path, &old).unwrap(),
            // A copy while somebody reads is only whole before the truncation: as with logrotate, what comes between is lost to
            // all, and here nothing comes.
            1 => {
                fs::copy(&path, &old).unwrap();
                fs::write(&path, "").unwrap();
            }
            _ => {}
        }
        append(random.u64(0..3_000), &mut written);
        std::thread::yield_now();
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
    }
    fs::write(folder.path().join("last"), "").unwrap();
    assert!(start().wait_with_output().unwrap().status.success());
    let state: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("state.json")).unwrap()).unwrap();
    assert_eq!((state["counted"]["lines"].as_u64(), killed), (Some(written), 25));
    assert_eq!(state["counted"]["unreadable"].as_u64(), Some(0));
    assert_eq!(state["lost"], serde_json::Value::Null);
}

/// The state is kept by a rename: a process that is killed at any moment leaves the old one or the new one.
#[test]
fn a_real_logrotate_with_its_own_copies_is_read_once() {
    // logrotate itself is not needed: `cp`, `gzip` and `mv` are what it calls.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let sh = |script: &str| {
        assert!(Command::new("sh").arg("-c").arg(script).current_dir(folder.path()).status().unwrap().success())
    };
    sh("seq -f 'a %g' 1 1000 > access.log");
    let mut follower = Follower::new(&path, Start::File);
    assert_eq!(scan(&mut follower).len(), 1000);
    sh(
        "seq -f 'b %g' 1 500 >> access.log; cp access.log access.log.1; : > access.log; seq -f 'c %g' 1 9000 >> access.log; gzip access.log.1",
    );
    let lines = scan(&mut follower);
    assert_eq!(lines.len(), 9500);
    assert_eq!((lines[0].as_str(), lines[500].as_str()), ("b 1", "c 1"));
    sh(
        "mv access.log.1.gz access.log.2.gz; mv access.log access.log.1; seq -f 'd %g' 1 10 > access.log; gzip access.log.1",
    );
    assert_eq!(scan(&mut follower).len(), 10);
    assert!(scan(&mut follower).is_empty());
}
