#!/usr/bin/env bash
# EncFS 1.9.5 of Debian 12 (seen 2026-11-30): statfs(2) tells of longer names than can be made.
#
# Expected, as statfs(2) has it: f_namelen is the "maximum length of filenames". In a folder that was
# made with --standard on ext4, it is not. Seen:
#
#   says: 189
#   takes: 175
#
# Matters for: src/fs/dir.rs, which finds out how long a name may be by looking for one, and does not
# believe f_namelen: a payload whose signature has no room for its suffix is refused, not held.
set -euo pipefail
folder=$(mktemp -d)
trap 'fusermount -u "$folder/mount" 2>/dev/null || fusermount3 -u "$folder/mount" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"

[ "$(stat -f -c %T .)" = ext2/ext3 ] || { echo "no ext4 in $folder; set TMPDIR"; exit 2; }
version=$(apt-cache madison encfs 2>/dev/null | awk '$3 ~ /^1\.9\.5/ { print $3; exit }')
{ [ -n "$version" ] && apt-get download "encfs=$version" && dpkg -x encfs_*.deb package; } >/dev/null 2>&1 \
    || { echo "no encfs 1.9.5 to be had"; exit 2; }
mkdir back mount
export LD_LIBRARY_PATH=$folder/package/usr/lib/encfs:$(echo "$folder"/package/usr/lib/*-linux-gnu)
package/usr/bin/encfs --standard --extpass="echo password" "$folder/back" "$folder/mount" >log 2>&1 \
    || { cat log; exit 2; }

takes=0
for length in $(seq 1 255); do
    name=$(printf "%${length}s" | tr ' ' n)
    (: >"mount/$name") 2>/dev/null || break
    takes=$length
done
seen="says: $(stat -f -c %l mount)
takes: $takes"
expected='says: 189
takes: 175'
if [ "$seen" != "$expected" ]; then
    printf 'it has changed:\n%s\n' "$seen"
    exit 1
fi
printf '%s\nas described\n' "$seen"
