#!/usr/bin/env bash
# bindfs 1.14.7 of Debian 12 (seen 2026-11-30): a link that was removed is still counted for a second.
#
# Expected: after link(2) to a second name and unlink(2) of the first, st_nlink is 1 again. But the
# kernel keeps for a while what it was told of the name that stayed. Seen:
#
#   after link and unlink: 2
#   asked with AT_STATX_FORCE_SYNC: 1
#
# Matters for: src/fs/stat.rs, which asks so where a file has several links, and
# src/daemon/worker/attempts.rs, which refuses a file for its links only when they have stayed.
set -euo pipefail
folder=$(mktemp -d)
trap 'fusermount3 -u "$folder/mount" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"

version=1.14.7-1
{ apt-get download "bindfs=$version" && dpkg -x bindfs_*.deb package; } >/dev/null 2>&1 \
    || { echo "no bindfs $version to be had"; exit 2; }
mkdir back mount
package/usr/bin/bindfs back mount 2>error || { cat error; exit 2; }

echo content >mount/file
ln mount/file mount/other
rm mount/file
# --cached=never is AT_STATX_FORCE_SYNC, --cached=always AT_STATX_DONT_SYNC (stat(1) of coreutils).
seen="after link and unlink: $(stat -c %h mount/other)
asked with AT_STATX_FORCE_SYNC: $(stat --cached=never -c %h mount/other)"
expected='after link and unlink: 2
asked with AT_STATX_FORCE_SYNC: 1'
if [ "$seen" != "$expected" ]; then
    printf 'it has changed:\n%s\n' "$seen"
    exit 1
fi
printf '%s\nas described\n' "$seen"
