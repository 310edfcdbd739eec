//! The machine: CPU, memory, swap, disks; of a container, what it may use.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rustix::fs::StatVfsMountFlags;

use crate::error::{Error, ErrorKind, Result, file};
use crate::judge::{Limits, Policy, Verdict};
use crate::observation::{Observation, Unit};
use crate::probe::{Context, Probe, ProbeSpec};
use crate::statistics::theil_sen;

/// The machine that this runs on, or of a container: what its control groups (version 2) let it use.
///
/// Readings: `cpu used` (percent of the cores, or of the quota, since the look before, at the first one over half a second; what
/// runs with `nice` steps aside and does not count), `cpu pressure`, `memory pressure` (percent of
/// the last minute in which something waited, from PSI), `memory used` (percent; what the kernel can take back at once is not
/// used: `MemAvailable`, or the group's usage without inactive file pages), `swap used`; for each disk `disk PATH used` and
/// `inodes PATH used` (percent, of what ordinary users may have, as `df` says), `disk PATH writable`, and `disk PATH full in` (days,
/// by Theil and Sen over this process's own looks, from ten of them over an hour on).
///
/// Warnings from 90 % CPU, 40 % CPU pressure, 85 % memory, 50 % swap, 80 % of a disk or its inodes and 7 days on; critical from 80 %
/// CPU pressure, 95, 90, 90 and 1: a CPU that is used is no harm until something waits for it.
pub struct HostProbe {
    spec: ProbeSpec,
    proc: PathBuf,
    cgroup: PathBuf,
    disks: Vec<PathBuf>,
    sample: Duration,
    history: Mutex<BTreeMap<PathBuf, Vec<(f64, f64)>>>,
    last: Mutex<Option<(tokio::time::Instant, Cpu)>>,
}

impl fmt::Debug for HostProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostProbe").field("id", &self.spec.id).field("disks", &self.disks).finish_non_exhaustive()
    }
}

impl HostProbe {
    /// This machine, with the disks that these paths lie on; `/` where there is none.
    pub fn new(id: impl Into<String>, disks: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        let mut disks: Vec<PathBuf> = disks.into_iter().map(Into::into).collect();
        if disks.is_empty() {
            disks.push("/".into());
        }
        let mut policy = Policy::new()
            .below("cpu used", Unit::Percent, Limits::warning(90.0))
            .below("cpu pressure", Unit::Percent, Limits::new(40.0, 80.0))
            .below("memory used", Unit::Percent, Limits::new(85.0, 95.0))
            .below("memory pressure", Unit::Percent, Limits::new(10.0, 40.0))
            .below("swap used", Unit::Percent, Limits::new(50.0, 90.0));
        for disk in &disks {
            let of = |what: &str, end: &str| format!("{what} {} {end}", disk.display());
            policy = policy
                .below(&of("disk", "used"), Unit::Percent, Limits::new(80.0, 90.0))
                .below(&of("inodes", "used"), Unit::Percent, Limits::new(80.0, 90.0))
                .is(&of("disk", "writable"), true, Verdict::Critical)
                .meaning("it was remounted read-only, as after errors")
                .above(&of("disk", "full in"), Unit::Days, Limits::new(7.0, 1.0));
        }
        let spec = ProbeSpec::new(id, policy).with_title("this machine");
        let (proc, cgroup) = ("/proc".into(), "/sys/fs/cgroup".into());
        Self {
            spec,
            proc,
            cgroup,
            disks,
            sample: Duration::from_millis(500),
            history: Mutex::default(),
            last: Mutex::default(),
        }
    }

    /// The same of a machine whose `/proc` and `/sys/fs/cgroup` lie elsewhere: of the host, seen from a container.
    #[must_use]
    pub fn reading(mut self, proc: impl Into<PathBuf>, cgroup: impl Into<PathBuf>) -> Self {
        (self.proc, self.cgroup) = (proc.into(), cgroup.into());
        self
    }

    /// The same with another spec: title, policy.
    #[must_use]
    pub fn with_spec(mut self, change: impl FnOnce(&mut ProbeSpec)) -> Self {
        change(&mut self.spec);
        self
    }
}

#[async_trait]
impl Probe for HostProbe {
    fn spec(&self) -> &ProbeSpec {
        &self.spec
    }

    async fn observe(&self, cx: &Context) -> Result<Observation> {
        let mut seen = Observation::new(cx.now);
        let groups = Groups::of(&self.proc, &self.cgroup);
        let began = tokio::time::Instant::now();
        let kept = self.last.lock().unwrap_or_else(|e| e.into_inner()).take();
        let (from, before) = match kept.filter(|(at, _)| at.elapsed() >= self.sample) {
            Some(before) => before,
            None => {
                let before = Cpu::read(&self.proc, &groups)?;
                tokio::time::sleep(self.sample).await;
                (began, before)
            }
        };
        let after = Cpu::read(&self.proc, &groups)?;
        let used = after.used_since(&before, from.elapsed());
        *self.last.lock().unwrap_or_else(|e| e.into_inner()) = Some((tokio::time::Instant::now(), after.clone()));
        if let Some(used) = used {
            seen.number("cpu used", used, Unit::Percent);
        }
        seen.evidence(format!("{:.1} cores may be used", after.cores));
        for (name, what) in [("cpu pressure", "cpu"), ("memory pressure", "memory")] {
            match pressure(&self.proc.join("pressure").join(what))? {
                Some(percent) => seen.number(name, percent, Unit::Percent),
                None => seen.not_applicable(name, "this kernel does not count it"),
            };
        }
        self.memory(&mut seen, &groups)?;
        for disk in &self.disks {
            // A disk on a network that is gone hangs, and must not take this thread with it.
            let path = disk.clone();
            let about = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&path)).await;
            let about =
                about.map_err(|e| Error::new(ErrorKind::Panicked, "asking a disk ended early").with_source(e))?;
            let about = about.map_err(|e| file(disk, "its disk cannot be asked", e.into()))?;
            self.disk(&mut seen, disk, &about, cx.now);
        }
        seen.took = began.elapsed();
        Ok(seen)
    }
}

impl HostProbe {
    fn memory(&self, seen: &mut Observation, groups: &Groups) -> Result<()> {
        let path = self.proc.join("meminfo");
        let text = read(&path)?;
        let field = |name: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<f64>().ok()).map(|kb| kb * 1024.0)
        };
        let total = field("MemTotal").filter(|t| *t > 0.0);
        match (groups.memory()?, total, field("MemAvailable")) {
            // A limit above what there is, is none.
            (Some((used, limit)), Some(total), _) if limit < total => {
                seen.number("memory used", used / limit * 100.0, Unit::Percent);
                seen.evidence(format!(
                    "{} of {} that this container may use",
                    Unit::Bytes.show(used),
                    Unit::Bytes.show(limit)
                ));
            }
            (_, Some(total), Some(available)) => {
                seen.number("memory used", (total - available) / total * 100.0, Unit::Percent);
                seen.evidence(format!("{} of {} available", Unit::Bytes.show(available), Unit::Bytes.show(total)));
            }
            _ => {}
        }
        match (field("SwapTotal"), field("SwapFree")) {
            (Some(0.0), _) => {
                seen.not_applicable("swap used", "there is no swap");
            }
            (Some(total), Some(free)) => {
                seen.number("swap used", (total - free) / total * 100.0, Unit::Percent);
            }
            _ => {}
        }
        Ok(())
    }

    fn disk(&self, seen: &mut Observation, disk: &Path, about: &rustix::fs::StatVfs, now: DateTime<Utc>) {
        let of = |what: &str, end: &str| format!("{what} {} {end}", disk.display());
        seen.flag(of("disk", "writable"), !about.f_flag.contains(StatVfsMountFlags::RDONLY));
        let used = (about.f_blocks - about.f_bfree) as f64;
        // What is reserved for root is not there for others.
        let usable = used + about.f_bavail as f64;
        if usable > 0.0 {
            let percent = used / usable * 100.0;
            seen.number(of("disk", "used"), percent, Unit::Percent);
            let free = about.f_bavail as f64 * about.f_frsize as f64;
            seen.evidence(format!("{} free at {}", Unit::Bytes.show(free), disk.display()));
            let name = of("disk", "full in");
            match self.full_in(disk, now, used, usable) {
                Some(days) => seen.number(name, days, Unit::Days),
                None => seen.not_applicable(name, "it does not fill, or was not looked at for long enough"),
            };
        }
        match about.f_files {
            // Some file systems make inodes as they need them.
            0 => {
                seen.not_applicable(of("inodes", "used"), "this file system does not count them");
            }
            files => {
                let (used, free) = ((files - about.f_ffree) as f64, about.f_favail as f64);
                seen.number(of("inodes", "used"), used / (used + free) * 100.0, Unit::Percent);
            }
        }
    }

    fn full_in(&self, disk: &Path, now: DateTime<Utc>, used: f64, usable: f64) -> Option<f64> {
        let mut history = self.history.lock().unwrap_or_else(|e| e.into_inner());
        let points = history.entry(disk.to_owned()).or_default();
        let days = now.timestamp() as f64 / 86_400.0;
        // At most one a minute, at most 400: beyond that, every other one goes, and they reach further back.
        if points.last().is_none_or(|(last, _)| days - last >= 1.0 / 1440.0) {
            points.push((days, used));
        }
        if points.len() > 400 {
            let mut keep = false;
            points.retain(|_| {
                keep = !keep;
                keep
            });
        }
        let (first, last) = (points.first()?.0, points.last()?.0);
        if points.len() < 10 || last - first < 1.0 / 24.0 {
            return None;
        }
        let slope = theil_sen(points).filter(|s| *s > 0.0)?;
        Some((usable - used) / slope)
    }
}

/// The control groups that this process is in, its own first.
struct Groups(Vec<PathBuf>);

impl Groups {
    fn of(proc: &Path, mount: &Path) -> Self {
        let own = std::fs::read_to_string(proc.join("self/cgroup")).unwrap_or_default();
        let path = own.lines().find_map(|l| l.strip_prefix("0::")).unwrap_or("/").trim_start_matches('/').to_owned();
        let mut at = mount.join(path);
        if !at.is_dir() {
            // In a container, the path is one of the host's, and its own group is what is mounted.
            at = mount.to_owned();
        }
        let mut all = Vec::new();
        while at.starts_with(mount) {
            all.push(at.clone());
            if !at.pop() {
                break;
            }
        }
        Self(all)
    }

    /// Usage and limit of the group with the least room; `None` where there is no limit.
    fn memory(&self) -> Result<Option<(f64, f64)>> {
        let mut tightest: Option<(f64, f64)> = None;
        for group in &self.0 {
            let Some(limit) = number(&group.join("memory.max"))? else { continue };
            let Some(current) = number(&group.join("memory.current"))? else { continue };
            let stat = read(&group.join("memory.stat"))?;
            let inactive = stat.lines().find_map(|l| l.strip_prefix("inactive_file ")?.trim().parse::<f64>().ok());
            let used = (current - inactive.unwrap_or(0.0)).max(0.0);
            if limit > 0.0 && tightest.is_none_or(|(u, l)| used / limit > u / l) {
                tightest = Some((used, limit));
            }
        }
        Ok(tightest)
    }

    /// Cores by the tightest quota, and the microseconds that its group used.
    fn quota(&self) -> Result<Option<(f64, f64)>> {
        let mut tightest: Option<(f64, f64)> = None;
        for group in &self.0 {
            let path = group.join("cpu.max");
            if !path.exists() {
                continue;
            }
            let text = read(&path)?;
            let mut words = text.split_whitespace().map(str::parse::<f64>);
            let (Some(Ok(quota)), Some(Ok(period))) = (words.next(), words.next()) else { continue };
            let stat = read(&group.join("cpu.stat"))?;
            let usage = stat.lines().find_map(|l| l.strip_prefix("usage_usec ")?.trim().parse::<f64>().ok());
            if let Some(usage) = usage
                && period > 0.0
                && tightest.is_none_or(|(cores, _)| quota / period < cores)
            {
                tightest = Some((quota / period, usage));
            }
        }
        Ok(tightest)
    }
}

#[derive(Clone)]
struct Cpu {
    /// Cores that may be used.
    cores: f64,
    /// Microseconds that a group with a quota used.
    usage: Option<f64>,
    /// Ticks: busy and all.
    ticks: (f64, f64),
}

impl Cpu {
    fn read(proc: &Path, groups: &Groups) -> Result<Self> {
        let path = proc.join("stat");
        let text = read(&path)?;
        let cores = text.lines().filter(|l| l.starts_with("cpu") && !l.starts_with("cpu ")).count().max(1) as f64;
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix("cpu "))
            .ok_or_else(|| Error::new(ErrorKind::Malformed, format!("{}: has no line of the CPU", path.display())))?;
        let ticks: Vec<f64> = line.split_whitespace().take(8).map_while(|w| w.parse().ok()).collect();
        let all: f64 = ticks.iter().sum();
        // Idle, idle while a disk is waited for, and what steps aside for everything else.
        let idle = ticks.get(3).unwrap_or(&0.0) + ticks.get(4).unwrap_or(&0.0) + ticks.get(1).unwrap_or(&0.0);
        let quota = groups.quota()?.filter(|(quota, _)| *quota < cores);
        let (cores, usage) = match quota {
            Some((quota, usage)) => (quota, Some(usage)),
            None => (cores, None),
        };
        Ok(Self { cores, usage, ticks: (all - idle, all) })
    }

    /// Percent of what may be used; `None` where nothing was counted meanwhile.
    fn used_since(&self, before: &Self, elapsed: Duration) -> Option<f64> {
        let percent = match (self.usage, before.usage) {
            (Some(now), Some(then)) => (now - then) / (elapsed.as_secs_f64() * 1e6 * self.cores) * 100.0,
            _ => {
                let all = self.ticks.1 - before.ticks.1;
                if all <= 0.0 {
                    return None;
                }
                (self.ticks.0 - before.ticks.0) / all * 100.0
            }
        };
        Some(percent.clamp(0.0, 100.0))
    }
}

/// `some avg10=0.00 avg60=0.12 …`; `None` where there is no such file.
fn pressure(path: &Path) -> Result<Option<f64>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        // Not built in (no file), or switched off (EOPNOTSUPP).
        Err(e) if e.kind() == std::io::ErrorKind::NotFound || e.raw_os_error() == Some(95) => return Ok(None),
        Err(e) => return Err(file(path, "cannot be read", e)),
    };
    let some = text.lines().find_map(|l| l.strip_prefix("some "));
    Ok(some.and_then(|l| l.split_whitespace().find_map(|w| w.strip_prefix("avg60=")?.parse().ok())))
}

/// A number; `None` where there is no such file, or it says `max`.
fn number(path: &Path) -> Result<Option<f64>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(file(path, "cannot be read", e)),
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| file(path, "cannot be read", e))
}
