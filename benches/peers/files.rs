//! An uploads tree: first backup, cold and warm, and an unchanged second one.

use std::path::{Path, PathBuf};
use std::process::Command;

use caretaker_benches::{Measured, Result, backup_tool, drop_caches, is_installed, measure, median, mib, say, size_of};

/// One way to back a tree up.
struct Peer {
    name: &'static str,
    needs: &'static [&'static str],
    /// Makes a new, empty place for backups.
    prepare: fn(&Bench) -> Result<()>,
    /// Backs `uploads` up into it.
    create: fn(&Bench) -> Result<Measured>,
    /// Whether a second run knows of the first.
    incremental: bool,
}

struct Bench {
    dir: PathBuf,
    tool: PathBuf,
}

impl Bench {
    fn at(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn shell(&self, text: &str) -> Result<Measured> {
        measure(Command::new("bash").args(["-o", "pipefail", "-c", text]).current_dir(&self.dir))
    }

    fn tool(&self, arguments: &[&str]) -> Result<Measured> {
        measure(Command::new(&self.tool).args(arguments).current_dir(&self.dir))
    }

    fn restic(&self, arguments: &[&str]) -> Result<Measured> {
        measure(
            Command::new("restic")
                .args(["--quiet", "--no-cache", "--repo", "place"])
                .args(arguments)
                .env("RESTIC_PASSWORD", "only-for-a-benchmark")
                .current_dir(&self.dir),
        )
    }
}

const PEERS: [Peer; 4] = [
    Peer {
        name: "caretaker (encrypted, deduplicated)",
        needs: &[],
        prepare: |b| {
            remove(&b.dir.join("keys"))?;
            b.tool(&["keygen", "--out", "keys"])?;
            b.tool(&["init", "--store", &format!("file://{}", b.at("place")), "--keys", "keys"])?;
            Ok(())
        },
        create: |b| {
            b.tool(&[
                "create",
                "--store",
                &format!("file://{}", b.at("place")),
                "--keys",
                "keys",
                "--source",
                "dir:uploads",
            ])
        },
        incremental: true,
    },
    Peer {
        name: "restic (encrypted, deduplicated)",
        needs: &["restic"],
        prepare: |b| b.restic(&["init"]).map(drop),
        create: |b| b.restic(&["backup", "uploads"]),
        incremental: true,
    },
    Peer {
        name: "tar, zstd -3, age",
        needs: &["tar", "zstd", "age"],
        prepare: |b| {
            std::fs::create_dir(b.dir.join("place"))?;
            b.shell("rm -f key; age-keygen -o key 2> /dev/null")?;
            Ok(())
        },
        create: |b| {
            b.shell("tar c uploads | zstd -3 -T0 -q | age -r $(age-keygen -y key) > place/uploads.tar.zst.age; sync place/uploads.tar.zst.age")
        },
        incremental: false,
    },
    Peer {
        name: "floor: tar, cat",
        needs: &["tar"],
        prepare: |b| Ok(std::fs::create_dir(b.dir.join("place"))?),
        create: |b| b.shell("tar c uploads | cat > /dev/null"),
        incremental: false,
    },
];

pub(crate) fn run(files: u64, mean: usize, rounds: usize, json: bool) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let bench = Bench { dir: dir.path().to_owned(), tool: backup_tool()? };
    storefront::uploads::create(&bench.dir.join("uploads"), 1, files, mean)?;
    let (bytes, count) = size_of(&bench.dir.join("uploads"))?;
    // Cold, warm, second: times of each peer.
    let mut times: Vec<[Vec<f64>; 3]> = PEERS.iter().map(|_| Default::default()).collect();
    let mut stored = [0; PEERS.len()];
    let mut memory = [0; PEERS.len()];
    for _ in 0..rounds {
        for (n, peer) in PEERS.iter().enumerate() {
            if !peer.needs.iter().all(|p| is_installed(p)) {
                continue;
            }
            for (cold, slot) in [(true, 0), (false, 1)] {
                remove(&bench.dir.join("place"))?;
                (peer.prepare)(&bench)?;
                if cold {
                    drop_caches()?;
                } else {
                    // Once through, so that everything is in memory.
                    bench.shell("tar c uploads | cat > /dev/null")?;
                }
                let first = (peer.create)(&bench)?;
                times[n][slot].push(first.time.as_secs_f64());
                memory[n] = memory[n].max(first.memory);
                stored[n] = size_of(&bench.dir.join("place"))?.0;
                if slot == 1 && peer.incremental {
                    times[n][2].push((peer.create)(&bench)?.time.as_secs_f64());
                }
            }
        }
    }
    let seconds = |t: &Vec<f64>| median(t.clone());
    if json {
        let rows: Vec<_> = PEERS
            .iter()
            .zip(&times)
            .enumerate()
            .map(|(n, (p, t))| {
                serde_json::json!({
                    "peer": p.name, "cold_seconds": seconds(&t[0]), "warm_seconds": seconds(&t[1]),
                    "second_seconds": seconds(&t[2]), "stored_bytes": stored[n], "memory_bytes": memory[n],
                })
            })
            .collect();
        say(&serde_json::to_string_pretty(
            &serde_json::json!({ "files": count, "bytes": bytes, "rounds": rounds, "peers": rows }),
        )?);
        return Ok(());
    }
    say(&format!("{count} files, {} MiB, {rounds} rounds, medians in seconds:", mib(bytes)));
    say("");
    say("| | first, cold | first, warm | second, unchanged | stored MiB | peak MiB |");
    say("|---|---|---|---|---|---|");
    for (n, (peer, t)) in PEERS.iter().zip(&times).enumerate() {
        if t[0].is_empty() {
            say(&format!("| {} | not installed | | | | |", peer.name));
            continue;
        }
        let cell = |t: &Vec<f64>| seconds(t).map_or_else(|| "—".into(), |s| format!("{s:.2}"));
        // Of a pipe only the shell is watched, which says nothing.
        let memory = if peer.incremental { mib(memory[n]) } else { "—".into() };
        let stored = if stored[n] > 0 { mib(stored[n]) } else { "—".into() };
        say(&format!("| {} | {} | {} | {} | {stored} | {memory} |", peer.name, cell(&t[0]), cell(&t[1]), cell(&t[2])));
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    if path.exists() {
        std::fs::remove_dir_all(path)?;
    }
    Ok(())
}
