#!/bin/sh
# Runs inside a Debian that systemd has booted, as root, and uses the package as an operator does. Called once for each
# boot. Prints each step and its result; ends at the first that fails. See systemd.rs beside it.

set -u
cd /test

# As in a login shell of root.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root

srv=/srv/kms-sig
policy=/etc/kms-sig/policy.toml
dropins=/etc/systemd/system/kms-sig.service.d

say() { printf '%s\n' "$*"; }

fail() {
    say "FAILED: $*"
    say "--- status"
    systemctl status --no-pager --full kms-sig 'kms-sig@*' 2>&1
    say "--- journal"
    journalctl --no-pager --output short-monotonic -u kms-sig -u 'kms-sig@*' | tail -n 60
    say "--- folders"
    ls -lAR $srv /var/lib/kms-sig* 2>&1
    exit 1
}

# A step: what should hold, and the commands that show it. Tried again until they succeed, for a minute.
holds() {
    what=$1
    shift
    tries=0
    until "$@" >/tmp/said 2>&1; do
        tries=$((tries + 1))
        if [ $tries -ge 240 ]; then
            cat /tmp/said
            fail "$what ($*)"
        fi
        sleep 0.25
    done
    say "ok: $what"
}

# As `holds`, but at once.
is() {
    what=$1
    shift
    "$@" >/tmp/said 2>&1 || { cat /tmp/said; fail "$what ($*)"; }
    say "ok: $what"
}

not() { ! "$@"; }
equal() { [ "$1" = "$2" ] || { echo "$1 is not $2"; return 1; }; }
runs() { ls -l /proc/[0-9]*/exe 2>/dev/null | grep -q "/$1"; }
property() { systemctl show --property "$1" --value "${2:-kms-sig}"; }
active() { systemctl is-active --quiet "${1:-kms-sig}"; }
failed() { equal "$(property ActiveState)" failed; }
# Whether the journal has this, since the cursor of `mark`.
mark() { journalctl --sync; cursor=$(journalctl -n 0 --show-cursor | sed -n 's/^-- cursor: //p'); }
logged() { journalctl --sync; journalctl --after-cursor="$cursor" -o verbose --all | grep -qF -- "$1"; }
# Whether a process other than $1 is the daemon, and it is ready.
another() { now=$(property MainPID); [ "$now" != 0 ] && [ "$now" != "$1" ] && active; }
# A sender who is neither root nor the daemon.
as_alice() { runuser -u alice -- sh -c "$1"; }
# What the signer's folder has made of NAME arrives as a pair, payload last.
send() { as_alice "cp $srv/releases/$1.sig $srv/incoming/ && cp $srv/releases/$1 $srv/incoming/"; }
make() { as_alice "echo 'content of $1' > $srv/releases/$1"; }
signed() { holds "$1 is signed" test -s "$srv/releases/$1.sig"; }
delivered() { holds "$1 is delivered" test -e "$srv/verified/$1"; holds "$1 has left the folder" not test -e "$srv/incoming/$1"; }
drop_in() { mkdir -p $dropins; printf '%s\n' "[Service]" "$@" > $dropins/test.conf; systemctl daemon-reload; }
restart() { systemctl restart kms-sig || fail "restart"; }

# What docs/install.md leaves to the operator.
editor() { echo '[default]' > "$1"; }

# A command of docs/install.md and what it prints there, which may take a moment. Nothing shown: it has to succeed, once.
shows() {
    if [ -z "$2" ]; then
        is "$1" eval "$1"
    else
        holds "$1" prints "$1" "$2"
    fi
}
prints() { equal "$(eval "$1" 2>/dev/null)" "$2"; }

first_boot() {
    say "== docs/install.md, word by word"
    is "nothing of it is there before" not id kms-sig
    . ./chapter.sh
    is "the credentials are there" grep -q default /etc/kms-sig/aws-credentials

    say "== what was installed"
    is "units are sound" systemd-analyze verify --man=no /usr/lib/systemd/system/kms-sig.service /usr/lib/systemd/system/kms-sig@.service
    for unit in kms-sig.service kms-sig@.service; do
        is "$unit has an exposure of 1.7 at most" systemd-analyze security --offline=true --threshold=17 \
            /usr/lib/systemd/system/$unit
    done
    is "it is of type notify" equal "$(property Type)" notify
    is "who is in its group may ask it" setpriv --reuid=65534 --regid=65534 --groups="$(id -g kms-sig)" kms-sig status
    is "and others may not" not setpriv --reuid=65534 --regid=65534 --clear-groups kms-sig status
    is "it reloads on request" equal "$(kms-sig reload | cut -d' ' -f1-2)" "policy reloaded"
    is "it runs as its own user" equal "$(stat -c %U /proc/"$(property MainPID)")" kms-sig
    is "state is the daemon's alone" equal "$(stat -c '%U %a' /var/lib/kms-sig)" "kms-sig 700"
    is "quarantine is the daemon's alone" equal "$(stat -c '%U %a' $srv/quarantine)" "kms-sig 700"
    is "the command line and its completions are there" test -s /usr/share/bash-completion/completions/kms-sig
    for page in man1/kms-sig.1 man8/kms-sig-watch.8 man5/kms-sig-policy.5; do
        is "$page is there" gzip --test /usr/share/man/$page.gz
    done

    say "== a sender of another user"
    useradd --create-home --groups kms-sig-drop alice
    make one.tar.gz
    signed one.tar.gz
    send one.tar.gz
    delivered one.tar.gz
    is "what is delivered is what was sent" cmp $srv/releases/one.tar.gz $srv/verified/one.tar.gz
    is "and belongs to the daemon" equal "$(stat -c '%U %a' $srv/verified/one.tar.gz)" "kms-sig 644"

    say "== systemctl reload with a good policy"
    pid=$(property MainPID)
    mark
    sed -i 's/^#grace = .*/grace = "1s"/' $policy
    is "it succeeds" systemctl reload kms-sig
    holds "the daemon has taken it over" logged "policy reloaded"
    is "it is the same process" equal "$(property MainPID)" "$pid"

    say "== a pair that was tampered with"
    make two.tar.gz
    signed two.tar.gz
    as_alice "cp $srv/releases/two.tar.gz.sig $srv/incoming/ && echo evil > $srv/incoming/two.tar.gz"
    holds "it has left the folder" not test -e $srv/incoming/two.tar.gz
    is "it is in quarantine, with the reason" grep -q '"reason": "mismatch"' $srv/quarantine/*/record.json
    is "the capability for leases works on files of others" grep -q '"lease": "granted"' $srv/quarantine/*/record.json
    is "it was not delivered" not test -e $srv/verified/two.tar.gz
    journalctl --sync
    is "the journal finds it by its verdict" test -n "$(journalctl -q -o cat -t kms-sig KMSSIG_VERDICT=invalid KMSSIG_FILE=two.tar.gz)"

    say "== systemctl reload with a bad policy"
    cp $policy /test/good.toml
    echo 'colour = "blue"' >> $policy
    line=$(wc -l < $policy)
    mark
    is "it fails" not systemctl reload kms-sig
    holds "the journal has the fault" logged "colour"
    is "with its line, at priority err" test -n "$(journalctl -q -o cat -p err -t kms-sig KMSSIG_LINE="$line")"
    is "the daemon was not even asked" not logged "reload refused"
    is "it is the same process" equal "$(property MainPID)" "$pid"
    make three.tar.gz
    signed three.tar.gz
    systemctl restart kms-sig 2>/dev/null
    holds "a start with it fails, and is not tried again" failed
    is "with exit code 2" equal "$(property ExecMainStatus)" 2
    journalctl --sync
    is "and the unit's journal says at priority err why" test -n "$(journalctl -q -o cat -p err -u kms-sig KMSSIG_LINE="$line")"
    cp /test/good.toml $policy
    systemctl reset-failed kms-sig
    is "corrected, it starts" systemctl start kms-sig

    say "== kill -9"
    pid=$(property MainPID)
    make four.tar.gz
    kill -9 "$pid"
    holds "it comes back" another "$pid"
    signed four.tar.gz

    say "== a process that hangs"
    drop_in WatchdogSec=5
    restart
    pid=$(property MainPID)
    mark
    kill -STOP "$pid"
    make five.tar.gz
    holds "the watchdog notices" logged "Watchdog timeout"
    holds "it comes back" another "$pid"
    signed five.tar.gz
    rm $dropins/test.conf

    say "== several ReadWritePaths="
    drop_in ReadWritePaths= ReadWritePaths=$srv/incoming "ReadWritePaths=$srv/quarantine $srv/releases $srv/verified"
    mark
    restart
    holds "it is told, with the hint" logged "alone in ReadWritePaths="
    make six.tar.gz
    signed six.tar.gz
    as_alice "cp $srv/releases/six.tar.gz.sig $srv/incoming/ && echo evil > $srv/incoming/six.tar.gz"
    holds "and quarantine copies" not test -e $srv/incoming/six.tar.gz
    is "so that the copy is the daemon's" test -n "$(find $srv/quarantine -name payload -user kms-sig)"
    rm $dropins/test.conf
    systemctl daemon-reload
    mark
    restart
    is "with one path there is nothing to tell" not logged "alone in ReadWritePaths="

    say "== ReadWritePaths= that leaves out a folder, and one that is missing"
    drop_in ReadWritePaths= "ReadWritePaths=$srv/incoming $srv/quarantine $srv/verified" ReadWritePaths=-$srv/nowhere
    mark
    restart
    is "it starts" active
    holds "the rule is held, with the path to name" logged "name \"$srv/releases\", or better one path above all"
    rm $dropins/test.conf
    systemctl daemon-reload
    restart
    make again.tar.gz
    signed again.tar.gz

    say "== credentials in a file"
    file=$(tr '\0' '\n' < /proc/"$(property MainPID)"/environ | sed -n 's/^AWS_SHARED_CREDENTIALS_FILE=//p')
    is "the daemon can read them" runuser -u kms-sig -- grep -q default "$file"
    is "and not where they came from" not runuser -u kms-sig -- cat /etc/kms-sig/aws-credentials

    say "== an instance with a user of its own"
    is "it runs" active kms-sig@acme
    is "what it signs is its user's" equal \
        "$(stat -c %U $srv/acme/releases/hello.tar.gz.sig /var/lib/kms-sig-acme/keyring | sort -u)" kms-sig-acme
    is "its reload works" systemctl reload kms-sig@acme
    is "the other tenant's keyring is not its to read" not runuser -u kms-sig-acme -- cat /var/lib/kms-sig/keyring

    say "== reboot with files waiting"
    make seven.tar.gz
    signed seven.tar.gz
    as_alice "cp $srv/releases/seven.tar.gz $srv/incoming/" # its signature is still to come
    systemctl stop kms-sig
    make eight.tar.gz # nobody looks
    is "one waits to be signed" not test -e $srv/releases/eight.tar.gz.sig
    is "one waits to be judged" test -e $srv/incoming/seven.tar.gz
    systemctl start kms-sig
    touch /test/rebooted
    trap - EXIT
    systemctl reboot
}

second_boot() {
    say "== after the reboot"
    holds "it runs" active
    holds "so does the instance" active kms-sig@acme
    signed eight.tar.gz
    is "what waits for its signature still waits" test -e $srv/incoming/seven.tar.gz
    as_alice "cp $srv/releases/seven.tar.gz.sig $srv/incoming/"
    delivered seven.tar.gz

    say "== upgrade"
    pid=$(property MainPID)
    other=$(property MainPID kms-sig@acme)
    dpkg -i kms-sig_*.deb >/tmp/said 2>&1 || { cat /tmp/said; fail "dpkg -i"; }
    holds "the new program runs" another "$pid"
    is "so does the instance's" not equal "$(property MainPID kms-sig@acme)" "$other"
    is "the edited policy stays" cmp /test/good.toml $policy

    say "== removal"
    is "it succeeds" dpkg --remove kms-sig
    is "the daemons have ended" not runs kms-sig
    is "the program is gone" not test -e /usr/bin/kms-sig
    is "the policy stays" test -s $policy
    is "purging succeeds" sh -c 'dpkg --purge kms-sig > /tmp/purged 2>&1'
    is "the policy is gone" not test -e $policy
    is "keyring and state stay" test -s /var/lib/kms-sig/keyring -a -s /var/lib/kms-sig/state.db
    is "and so do files" test -s $srv/verified/seven.tar.gz -a -s $srv/releases/eight.tar.gz.sig
    is "and whom they belong to" id kms-sig
    is "no unit is left" not systemctl cat kms-sig.service
    is "and no link to one" test -z "$(find /etc/systemd/system -xtype l -name 'kms-sig*')"
    is "what stays is named" grep -q '/var/lib/kms-sig-acme is not empty and stays' /tmp/purged
    say "ALL STEPS DONE"
}

exec >> /test/log 2>&1
trap 'systemctl --no-block poweroff' EXIT
if [ -e /test/rebooted ]; then
    second_boot
else
    first_boot
fi
