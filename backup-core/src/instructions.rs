//! `RESTORE.md`: how to check a repository and get everything back with public tools alone.
//!
//! The text is part of the format: it lies in the repository, and a test follows it to the letter.

use crate::keys::Trust;

/// The text for a repository like this.
pub(crate) fn text(trust: &Trust) -> String {
    let template = if trust.encrypted { ENCRYPTED } else { PLAIN };
    let tools = if trust.encrypted {
        "`bash`, `coreutils`, `openssl` (3.0 or newer), `age`, `zstd`, `jq`, `tar`, and `sqlite3`, `psql` or `mariadb`"
    } else {
        "`bash`, `coreutils`, `zstd`, `jq`, `tar`, and `sqlite3`, `psql` or `mariadb`"
    };
    let packages = if trust.encrypted { "openssl age zstd jq tar sqlite3" } else { "zstd jq tar sqlite3" };
    format!(
        "# How to restore from this repository without Caretaker\n\n\
         Repository `{id}`, format {format}. You need {tools}\n\
         (on Debian: `apt-get install {packages}`).\n\n{template}{COMMON}",
        id = trust.repository,
        format = trust.format,
    )
}

const ENCRYPTED: &str = r#"Copy the repository to a directory first, and bring the keys from where you keep them: `owner-identity.txt`, and the
`trust.json` that was written when the repository was made. Do not take `trust.json` from the store: whoever can write
to the store could have put a forged one there. Then, in one `bash` session:

```sh
set -euo pipefail
STORE=${STORE:-$PWD}           # the copy of the repository
KEYS=${KEYS:-$HOME/keys}       # owner-identity.txt and trust.json
WORK=$(mktemp -d)              # records are decrypted here; remove it afterwards
cd "$STORE"
```

## 1. Check that this is your repository, and that nobody changed it

Signatures are Ed25519: the last 64 bytes of each file in `log/`, over all bytes before them.

```sh
signed_by() { # signed_by ROLE FILE SIGNATURE: is FILE signed by one of the ROLE in trust.json?
  local n i
  n=$(jq ".$1 | length" "$KEYS/trust.json")
  for ((i = 0; i < n; i++)); do
    jq -r ".$1[$i].pem" "$KEYS/trust.json" > "$WORK/key.pem"
    if openssl pkeyutl -verify -pubin -inkey "$WORK/key.pem" -rawin -in "$2" -sigfile "$3" > /dev/null 2>&1; then
      return 0
    fi
  done
  echo "NOT SIGNED by any of the $1 in trust.json: $2" >&2
  return 1
}
signed_by admins repository.json repository.sig
test "$(jq -r .id repository.json)" = "$(jq -r .repository "$KEYS/trust.json")"
echo "$(jq -r .instructions repository.json)  RESTORE.md" | sha256sum --check --quiet
whole() { # whole RECORD: its name is its number and the SHA-256 of its bytes
  if [ "$(basename "$1" | cut -d - -f 2)" != "$(sha256sum "$1" | cut -d ' ' -f 1)" ]; then
    echo "NOT WHOLE: $1 does not have the SHA-256 that is in its name" >&2
    return 1
  fi
}
revoked() { # revoked RECORD: whether it is signed with a key that was taken out of use, and does not count
  jq -e --arg signer "$(jq -r .signer "$WORK/line")" --arg name "$(basename "$1")" \
    '.writers[] | select(.verify_key == $signer) | .revoked | . != null and (.accepted | index($name) | not)' \
    "$KEYS/trust.json" > /dev/null
}
for record in log/*; do
  whole "$record"
  head -c -64 "$record" > "$WORK/body"
  tail -c 64 "$record" > "$WORK/signature"
  head -n 1 "$WORK/body" > "$WORK/line"
  case $(jq -r .caretaker "$WORK/line") in
    snapshot)  signed_by writers "$WORK/body" "$WORK/signature" ;;
    evidence)  signed_by writers "$WORK/body" "$WORK/signature" 2> /dev/null || signed_by admins "$WORK/body" "$WORK/signature" ;;
    tombstone) signed_by admins "$WORK/body" "$WORK/signature" ;;
    *) echo "unknown kind of record: $record" >&2; false ;;
  esac
  if revoked "$record"; then
    echo "REVOKED, does not count: $record" >&2
    basename "$record" >> "$WORK/revoked"
  fi
  test "$(jq -r .repository "$WORK/line")" = "$(jq -r .repository "$KEYS/trust.json")"
  test "$(jq -r .sequence "$WORK/line")" -eq "$((10#$(basename "$record" | cut -d - -f 1)))"
  # Each names those before it; one that is not there was removed.
  for previous in $(jq -r '.previous[]' "$WORK/line"); do
    if [ ! -e "log/$previous" ]; then
      echo "$previous, which $record builds on, is gone: look for a tombstone that explains it" >&2
    fi
  done
done
for object in objects/*/*; do
  echo "$(basename "$object")  $object"
done | sha256sum --check --quiet
```

## 2. Choose a snapshot and read its record

```sh
unseal() { age --decrypt --identity "$KEYS/owner-identity.txt" "$@" | zstd --decompress --stdout --quiet; }
read_record() { # read_record LOG-FILE: the record as JSON
  head -c -64 "$1" | tail -n +2 | unseal
}
"#;

const PLAIN: &str = r#"This repository is not encrypted and not signed: the hashes show decay, not forgery. Copy it to a directory first. Then,
in one `bash` session:

```sh
set -euo pipefail
STORE=${STORE:-$PWD}           # the copy of the repository
WORK=$(mktemp -d)              # remove it afterwards
cd "$STORE"
```

## 1. Check that nothing decayed

```sh
for record in log/*; do
  echo "$(basename "$record" | cut -d - -f 2)  $record"
done | sha256sum --check --quiet
echo "$(jq -r .instructions repository.json)  RESTORE.md" | sha256sum --check --quiet
for object in objects/*/*; do
  echo "$(basename "$object")  $object"
done | sha256sum --check --quiet
```

## 2. Choose a snapshot and read its record

```sh
unseal() { zstd --decompress --stdout --quiet "$@"; }
read_record() { # read_record LOG-FILE: the record as JSON
  tail -n +2 "$1" | unseal
}
"#;

const COMMON: &str = r#"for record in log/*; do
  name=$(basename "$record")
  if [ "$(head -n 1 "$record" | jq -r .caretaker)" != snapshot ] || grep -qsx "$name" "$WORK/revoked"; then
    continue
  fi
  if read_record "$record" > "$WORK/one" 2> /dev/null; then
    jq -r --arg n "$name" '[$n, .taken_at, .source.name, .source.kind, .problem_count] | @tsv' "$WORK/one"
  else
    echo "cannot be read with this key: $record" >&2
  fi
done > "$WORK/snapshots"
cat "$WORK/snapshots"          # name, time, source, kind, how many things could not be read
SNAPSHOT=${SNAPSHOT:-$(tail -n 1 "$WORK/snapshots" | cut -f 1)}
read_record "$(ls log/"$SNAPSHOT"* | head -n 1)" > "$WORK/record.json"
```

## 3. Put its entries together

An entry's index lists its chunks, in order; each chunk is an object under the SHA-256 of its bytes.

```sh
fetch() { # fetch SHA256: the content of one object, checked
  local path="objects/${1:0:2}/$1"
  echo "$1  $path" | sha256sum --check --quiet
  unseal < "$path"
}
index() { # index N: the index lines of entry N
  jq -c ".entries[$1].inline[]?" "$WORK/record.json"
  for part in $(jq -r ".entries[$1].parts[]?.object" "$WORK/record.json"); do fetch "$part"; done
}
content() { # content N: the bytes of entry N
  index "$1" | jq -r 'select(.object) | .object' | while read -r object; do fetch "$object"; done
}
entries() { jq -r '.entries | to_entries[] | [.key, .value.kind, .value.name] | @tsv' "$WORK/record.json"; }
```

## 4. Restore

A SQLite database; the entries are SQL, in the right order. (The planner's statistics of `sqlite_stat4` are left out:
not every `sqlite3` has that table.)

```sh
OUT=${OUT:-$PWD/restored}
mkdir -p "$OUT"
if [ "$(jq -r .source.kind "$WORK/record.json")" = sqlite ]; then
  entries | while IFS=$'\t' read -r n kind name; do
    if [ "$name" != data/sqlite_stat4 ]; then content "$n"; fi
  done | sqlite3 -bail "$OUT/restored.db"
  sqlite3 "$OUT/restored.db" 'PRAGMA integrity_check'
fi
```

A PostgreSQL database: into one that is new and empty, with the `psql` of its version or a newer one, which finds it by
the usual `PG…` variables. Owners and grants come last and may fail where a role is missing: `globals/roles` in the list
of entries holds the roles of the old server, for you to read and pick from.

```sh
if [ "$(jq -r .source.kind "$WORK/record.json")" = postgres ]; then
  PSQL="psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --output /dev/null --dbname ${DATABASE:?the name of the empty database}"
  entries | while IFS=$'\t' read -r n kind name; do
    case $name in globals/*|schema/ownership|schema/event-triggers) continue ;; esac
    jq -rj ".entries[$n].before // empty" "$WORK/record.json"
    content "$n"
    jq -rj ".entries[$n].after // empty" "$WORK/record.json"
  done | $PSQL
  entries | while IFS=$'\t' read -r n kind name; do
    case $name in schema/ownership|schema/event-triggers) content "$n" ;; esac
  done | $PSQL --set ON_ERROR_STOP=0
fi
```

A MySQL or MariaDB database: into one that is new and empty, with the server's own client; `CLIENT` says how it is called
and reaches the server. Rows become one statement each, which is slow and fits into any `max_allowed_packet`. A definer
that does not exist there is accepted or refused as the server sees fit; `globals/users` in the list of entries holds the
users of the old one.

```sh
if [ "$(jq -r .source.kind "$WORK/record.json")" = mysql ]; then
  { echo 'SET autocommit=0;'
    entries | while IFS=$'\t' read -r n kind name; do
      case $name in globals/*) continue ;; esac
      INSERT=$(jq -r ".entries[$n].insert // empty" "$WORK/record.json")
      if [ -n "$INSERT" ]; then
        content "$n" | INSERT=$INSERT awk '{ print ENVIRON["INSERT"] $0 ";" }'
      else
        content "$n"
      fi
    done
    echo 'COMMIT;'
  } | ${CLIENT:-mariadb} --binary-mode "${DATABASE:?the name of the empty database}"
fi
```

A directory tree; the entries are tar archives without their last block. Files first, then directories and links.

```sh
if [ "$(jq -r .source.kind "$WORK/record.json")" = files ]; then
  entries | while IFS=$'\t' read -r n kind name; do
    if [ "$(jq ".entries[$n].bytes" "$WORK/record.json")" -gt 0 ]; then
      content "$n" | tar --extract --preserve-permissions --numeric-owner --directory "$OUT"
    fi
  done
fi
rm -r "$WORK"
```
"#;
