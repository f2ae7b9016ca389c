#!/usr/bin/env bash
# Linux 6.18.44, ext4 (seen 2026-11-29 with Python 3.11): a read lease is refused to the process itself.
#
# Expected, as fcntl(2) has it: F_RDLCK needs a descriptor that is open read-only, and EAGAIN is for
# locks "held by other processes" and files "memory-mapped by another process". Seen:
#
#   while this process has it open for writing: EAGAIN
#   when that is closed: granted
#
# Matters for: src/fs/lease.rs, which asks whether anybody writes. Who asks must have closed their
# own writable descriptors of the file, or takes themselves for the writer.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

# "ext2/ext3" is what stat(1) calls ext4, too.
[ "$(stat -f -c %T .)" = ext2/ext3 ] || { echo "no ext4 in $folder; set TMPDIR"; exit 2; }
seen=$(python3 - <<'PYTHON'
import errno, fcntl, os

def lease(path):
    reader = os.open(path, os.O_RDONLY)
    try:
        fcntl.fcntl(reader, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(reader, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return "granted"
    except OSError as error:
        return errno.errorcode[error.errno]
    finally:
        os.close(reader)

writer = os.open("file", os.O_RDWR | os.O_CREAT, 0o600)
os.write(writer, b"content")
print("while this process has it open for writing:", lease("file"))
os.close(writer)
print("when that is closed:", lease("file"))
PYTHON
) || exit 2
expected='while this process has it open for writing: EAGAIN
when that is closed: granted'
if [ "$seen" != "$expected" ]; then
    printf 'it has changed:\n%s\n' "$seen"
    exit 1
fi
printf '%s\nas described\n' "$seen"
