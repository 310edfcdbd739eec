//! An uploads tree.

use caretaker_benches::{Result, size_of};
use clap::Args;

use crate::aim::{Aim, Bound};
use crate::steps::{Comparison, NEW, Options, SECOND, Side, Step, Subject, VERIFY, Work, compare, create, restore};

/// How large the tree is.
#[derive(Debug, Args)]
pub(crate) struct Size {
    /// How many files.
    #[arg(long, default_value_t = 7_500)]
    files: u64,
    /// How many bytes each, about.
    #[arg(long, default_value_t = 175_000)]
    mean: usize,
}

impl Default for Size {
    fn default() -> Self {
        Self { files: 7_500, mean: 175_000 }
    }
}

/// The next read comes from the disk.
const COLD: &str = "sync; echo 3 > /proc/sys/vm/drop_caches";
/// The next read comes from memory.
const WARM: &str = "tar c -C \"$SHOP\" uploads | cat > /dev/null";
const NEW_RESTIC: &str = "rm -rf restic && $RESTIC init";
const RESTIC_BACKUP: &str = "exec $RESTIC backup $SHOP/uploads";
const TAR: &str =
    "tar c -C \"$SHOP\" uploads | zstd -3 -T0 -q | age -r $(cat recipient) > uploads.age; sync uploads.age";

const STEPS: [Step; 17] = [
    Step {
        id: "floor-tar",
        work: Work::Create,
        side: Side::Floor,
        who: "floor: tar | cat",
        needs: &["tar"],
        before: &[COLD],
        run: WARM,
        stores: "",
    },
    Step {
        id: "floor-cp",
        work: Work::Create,
        side: Side::Floor,
        who: "floor: cp -a, sync",
        needs: &[],
        before: &["rm -rf copied", COLD],
        run: "cp -a $SHOP/uploads copied; sync -f copied",
        stores: "",
    },
    create("create-cold", Work::Create, &["rm -rf copied", NEW, COLD]),
    Step {
        id: "restic-cold",
        work: Work::Create,
        side: Side::Peer,
        who: "restic (encrypted, deduplicated)",
        needs: &["restic"],
        before: &[NEW_RESTIC, COLD],
        run: RESTIC_BACKUP,
        stores: "restic",
    },
    Step {
        id: "tar-cold",
        work: Work::Create,
        side: Side::Peer,
        who: "tar | zstd -3 | age",
        needs: &["tar", "zstd", "age"],
        before: &[COLD],
        run: TAR,
        stores: "uploads.age",
    },
    Step {
        id: "floor-tar-warm",
        work: Work::CreateWarm,
        side: Side::Floor,
        who: "floor: tar | cat",
        needs: &["tar"],
        before: &[WARM],
        run: WARM,
        stores: "",
    },
    create("create-warm", Work::CreateWarm, &[NEW, WARM]),
    Step {
        id: "restic-warm",
        work: Work::CreateWarm,
        side: Side::Peer,
        who: "restic (encrypted, deduplicated)",
        needs: &["restic"],
        before: &[NEW_RESTIC, WARM],
        run: RESTIC_BACKUP,
        stores: "restic",
    },
    Step {
        id: "tar-warm",
        work: Work::CreateWarm,
        side: Side::Peer,
        who: "tar | zstd -3 | age",
        needs: &["tar", "zstd", "age"],
        before: &[WARM],
        run: TAR,
        stores: "uploads.age",
    },
    SECOND,
    Step {
        id: "restic-second",
        work: Work::Second,
        side: Side::Peer,
        who: "restic",
        needs: &["restic"],
        before: &[],
        run: RESTIC_BACKUP,
        stores: "",
    },
    VERIFY,
    Step {
        id: "restic-check",
        work: Work::Verify,
        side: Side::Peer,
        who: "restic check --read-data",
        needs: &["restic"],
        before: &[],
        run: "exec $RESTIC check --read-data",
        stores: "",
    },
    Step {
        id: "floor-restore-cp",
        work: Work::Restore,
        side: Side::Floor,
        who: "floor: cp -a",
        needs: &[],
        before: &["rm -rf restored", WARM],
        run: "cp -a $SHOP/uploads restored",
        stores: "",
    },
    restore(&["rm -rf restored"]),
    Step {
        id: "restic-restore",
        work: Work::Restore,
        side: Side::Peer,
        who: "restic",
        needs: &["restic"],
        before: &["rm -rf restored"],
        run: "exec $RESTIC restore latest --target restored",
        stores: "",
    },
    Step {
        id: "tar-restore",
        work: Work::Restore,
        side: Side::Peer,
        who: "age | zstd | tar x",
        needs: &["tar", "zstd", "age"],
        before: &["rm -rf restored && mkdir restored"],
        run: "age -d -i keys/owner-identity.txt uploads.age | zstd -dc | tar x -C restored",
        stores: "",
    },
];

const AIMS: [Aim; 5] = [
    Aim { step: "create-cold", against: "restic-cold", bound: Bound::Faster(1.4) },
    Aim { step: "create-cold", against: "floor-tar", bound: Bound::Takes(1.2) },
    Aim { step: "create-second", against: "restic-second", bound: Bound::Faster(1.0) },
    Aim { step: "restore", against: "restic-restore", bound: Bound::Faster(1.2) },
    Aim { step: "verify", against: "restic-check", bound: Bound::Faster(1.5) },
];

pub(crate) fn run(size: &Size, options: &Options) -> Result<Comparison> {
    let shop = tempfile::tempdir()?;
    storefront::uploads::create(&shop.path().join("uploads"), 1, size.files, size.mean)?;
    let (bytes, files) = size_of(&shop.path().join("uploads"))?;
    let environment = vec![
        ("SHOP", shop.path().display().to_string()),
        ("SOURCE", format!("dir:{}/uploads", shop.path().display())),
        ("TARGET", "dir:restored".to_owned()),
        ("RESTIC", "restic --quiet --no-cache --repo restic".to_owned()),
        ("RESTIC_PASSWORD", "only-for-a-benchmark".to_owned()),
    ];
    let subject =
        Subject { name: "files", title: "An uploads tree".to_owned(), bytes, files: Some(files), environment };
    compare(&STEPS, &AIMS, subject, options)
}
