//! A PostgreSQL shop over a local socket.

use std::path::PathBuf;
use std::process::Command;

use caretaker_benches::{Measured, Result, backup_tool, is_installed, measure, median, mib, say, size_of};
use storefront::Size;
use storefront::postgres::Server;

/// One measured step.
struct Step {
    name: &'static str,
    needs: &'static [&'static str],
    /// Run before it, not measured.
    before: &'static str,
    run: &'static str,
    /// Whether what it stores is to be told.
    stores: bool,
}

const DROP: &str = "psql -q -d postgres -c 'DROP DATABASE IF EXISTS restored'";
const STEPS: [Step; 10] = [
    Step {
        name: "floor: COPY on two connections",
        needs: &[],
        before: "",
        run: "copy() { for t in $1; do echo \"COPY $t TO STDOUT;\"; done | psql -qX > /dev/null; }; copy \"$HALF_A\" & copy \"$HALF_B\" & wait",
        stores: false,
    },
    Step {
        name: "caretaker create (encrypted, deduplicated)",
        needs: &[],
        before: "rm -rf place keys && \"$TOOL\" keygen --out keys > /dev/null && cp keys/recipient.txt recipient && \"$TOOL\" init --store file://$PWD/place --keys keys > /dev/null",
        run: "exec \"$TOOL\" create --store file://$PWD/place --keys keys --source \"$DATABASE_URL\" > /dev/null",
        stores: true,
    },
    Step {
        name: "caretaker create, second, unchanged",
        needs: &[],
        before: "",
        run: "exec \"$TOOL\" create --store file://$PWD/place --keys keys --source \"$DATABASE_URL\" > /dev/null",
        stores: false,
    },
    Step {
        name: "caretaker restore (checked, compared again)",
        needs: &[],
        before: DROP,
        run: "exec \"$TOOL\" restore --store file://$PWD/place --keys keys --snapshot latest --target \"$RESTORED_URL\" > /dev/null",
        stores: false,
    },
    Step {
        name: "pg_dump, zstd -3, age",
        needs: &["zstd", "age"],
        before: "",
        run: "pg_dump | zstd -3 -q | age -r $(cat recipient) > dump.age; sync dump.age",
        stores: false,
    },
    Step { name: "pg_dump -Fc", needs: &[], before: "", run: "pg_dump -Fc -f dump.fc; sync dump.fc", stores: false },
    Step {
        name: "pg_dump -Fd -j2",
        needs: &[],
        before: "rm -rf dump.fd",
        run: "pg_dump -Fd -j2 -f dump.fd; sync dump.fd",
        stores: false,
    },
    Step {
        name: "pg_dump -Fd -j2, zstd -3, age (tar)",
        needs: &["zstd", "age"],
        before: "rm -rf dump.f0",
        run: "pg_dump -Fd -Z0 -j2 -f dump.f0; tar c dump.f0 | zstd -3 -q | age -r $(cat recipient) > dump.f0.age; rm -r dump.f0",
        stores: false,
    },
    Step {
        name: "pg_restore -j2",
        needs: &[],
        before: "psql -q -d postgres -c 'DROP DATABASE IF EXISTS restored' -c 'CREATE DATABASE restored TEMPLATE template0'",
        run: "pg_restore -j2 -d restored dump.fd",
        stores: false,
    },
    Step {
        name: "pg_restore -j2, then ANALYZE",
        needs: &[],
        before: "psql -q -d postgres -c 'DROP DATABASE IF EXISTS restored' -c 'CREATE DATABASE restored TEMPLATE template0'",
        run: "pg_restore -j2 -d restored dump.fd && vacuumdb -q -Z -d restored",
        stores: false,
    },
];

pub(crate) fn run(orders: u64, only: &[String], rounds: usize, json: bool) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let server = runtime.block_on(Server::start())?;
    let url = runtime.block_on(server.database("shop"))?;
    runtime.block_on(storefront::postgres::create(&url, &Size::orders(orders), 1))?;
    server.psql("shop", "VACUUM ANALYZE; CHECKPOINT")?;
    let data: u64 = server.psql("shop", "SELECT sum(pg_table_size(oid))::int8 FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")?.trim().parse()?;
    // Two halves of about the same size, as a careful person would split them.
    let names = server.psql("shop", "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY pg_table_size(oid) DESC")?;
    let sizes = server.psql("shop", "SELECT pg_table_size(oid) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY pg_table_size(oid) DESC")?;
    let mut halves = [(0_u64, String::new()), (0, String::new())];
    for (name, size) in names.lines().zip(sizes.lines()) {
        halves.sort_by_key(|(size, _)| *size);
        halves[0].0 += size.parse::<u64>()?;
        halves[0].1 += &format!(" {name}");
    }
    let dir = tempfile::tempdir()?;
    let tool = backup_tool()?;
    let bench = Bench {
        dir: dir.path().to_owned(),
        tool,
        server: &server,
        halves: [halves[0].1.clone(), halves[1].1.clone()],
        url,
    };

    let mut times: Vec<Vec<f64>> = STEPS.iter().map(|_| Vec::new()).collect();
    let mut memory = [0; STEPS.len()];
    let mut stored = 0;
    for _ in 0..rounds {
        for (n, step) in STEPS.iter().enumerate() {
            let left_out = n > 0 && !only.is_empty() && !only.iter().any(|o| step.name.contains(o.as_str()));
            if left_out || !step.needs.iter().all(|p| is_installed(p)) {
                continue;
            }
            if !step.before.is_empty() {
                bench.shell(step.before)?;
            }
            let measured = bench.shell(step.run)?;
            times[n].push(measured.time.as_secs_f64());
            memory[n] = memory[n].max(measured.memory);
            if step.stores {
                stored = size_of(&bench.dir.join("place"))?.0;
            }
        }
    }
    // Against the floor of the same round: a slow minute of the machine slows both.
    let of_floor = |t: &[f64]| median(t.iter().zip(&times[0]).map(|(t, floor)| t / floor).collect());
    let version = server.psql("shop", "SHOW server_version")?;
    if json {
        let steps: Vec<_> = STEPS
            .iter()
            .zip(&times)
            .map(|(s, t)| serde_json::json!({ "step": s.name, "seconds": median(t.clone()), "of_floor": of_floor(t) }))
            .collect();
        say(&serde_json::to_string_pretty(
            &serde_json::json!({ "server": version.trim(), "table_bytes": data, "rounds": rounds, "stored_bytes": stored, "steps": steps }),
        )?);
        return Ok(());
    }
    say(&format!(
        "PostgreSQL {}, {} MiB of tables, {rounds} rounds, medians; caretaker stores {} MiB:",
        version.trim(),
        mib(data),
        mib(stored)
    ));
    say("");
    say("| | seconds | of bare COPY | peak MiB |");
    say("|---|---|---|---|");
    for (n, (step, t)) in STEPS.iter().zip(&times).enumerate() {
        // Of a pipe only the shell is watched, which says nothing.
        let memory = if step.run.starts_with("exec ") { mib(memory[n]) } else { "—".into() };
        match (median(t.clone()), of_floor(t)) {
            (Some(m), Some(ratio)) => say(&format!("| {} | {m:.2} | {ratio:.2} | {memory} |", step.name)),
            _ => say(&format!("| {} | left out or not installed | | |", step.name)),
        }
    }
    Ok(())
}

struct Bench<'a> {
    dir: PathBuf,
    tool: PathBuf,
    server: &'a Server,
    halves: [String; 2],
    url: String,
}

impl Bench<'_> {
    fn shell(&self, text: &str) -> Result<Measured> {
        let path = format!("{}:{}", self.server.programs().display(), std::env::var("PATH")?);
        measure(
            Command::new("bash")
                .args(["-e", "-o", "pipefail", "-c", text])
                .current_dir(&self.dir)
                .env("PATH", path)
                .env("PGHOST", self.server.socket())
                .env("PGPORT", self.server.port().to_string())
                .env("PGUSER", "postgres")
                .env("PGDATABASE", "shop")
                .env("TOOL", &self.tool)
                .env("DATABASE_URL", &self.url)
                .env("RESTORED_URL", self.server.url("restored"))
                .env("HALF_A", &self.halves[0])
                .env("HALF_B", &self.halves[1]),
        )
    }
}
