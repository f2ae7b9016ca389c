# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_kms_sig_global_optspecs
    string join \n keyring= log-format= h/help V/version
end

function __fish_kms_sig_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_kms_sig_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_kms_sig_using_subcommand
    set -l cmd (__fish_kms_sig_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c kms-sig -n "__fish_kms_sig_needs_command" -l keyring -d 'The keyring of local: keys [env: KMS_SIG_KEYRING]' -r -F
complete -c kms-sig -n "__fish_kms_sig_needs_command" -l log-format -d 'How log lines look [default: journal where standard error goes there, otherwise human]' -r -f -a "human\t'Time, level and text, for people'
json\t'One JSON object per line, for machines'
journal\t'Entries of the systemd journal, with their fields'"
complete -c kms-sig -n "__fish_kms_sig_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kms-sig -n "__fish_kms_sig_needs_command" -s V -l version -d 'Print version'
complete -c kms-sig -n "__fish_kms_sig_needs_command" -f -a "sign" -d 'Signs a file'
complete -c kms-sig -n "__fish_kms_sig_needs_command" -f -a "verify" -d 'Verifies a file\'s signature'
complete -c kms-sig -n "__fish_kms_sig_needs_command" -f -a "watch" -d 'Watches directories, and signs or verifies what lands in them, by a policy'
complete -c kms-sig -n "__fish_kms_sig_needs_command" -f -a "check" -d 'Checks a policy: every fault at once, and what there is to do'
complete -c kms-sig -n "__fish_kms_sig_needs_command" -f -a "explain" -d 'Explains which rule a file falls to, and what would happen to it now'
complete -c kms-sig -n "__fish_kms_sig_needs_command" -f -a "status" -d 'Shows how a running daemon stands, and what to do about it'
complete -c kms-sig -n "__fish_kms_sig_needs_command" -f -a "backlog" -d 'Lists what waits, why, since when, and what to do'
complete -c kms-sig -n "__fish_kms_sig_needs_command" -f -a "events" -d 'Prints decisions as they are made, a line of JSON each'
complete -c kms-sig -n "__fish_kms_sig_needs_command" -f -a "rescan" -d 'Has a running daemon look at its directories now'
complete -c kms-sig -n "__fish_kms_sig_needs_command" -f -a "reload" -d 'Has a running daemon take over its changed policy'
complete -c kms-sig -n "__fish_kms_sig_needs_command" -f -a "history" -d 'Shows what was decided, and proves that the record of it is unbroken'
complete -c kms-sig -n "__fish_kms_sig_needs_command" -f -a "show" -d 'Shows what a signature says about itself, without asking anyone'
complete -c kms-sig -n "__fish_kms_sig_needs_command" -f -a "quarantine" -d 'Lists what is in quarantine, verifies it again, releases and purges it'
complete -c kms-sig -n "__fish_kms_sig_needs_command" -f -a "key" -d 'Makes and lists the keys of this host\'s keyring, and shows public keys'
complete -c kms-sig -n "__fish_kms_sig_needs_command" -f -a "version" -d 'Prints version, commit and target'
complete -c kms-sig -n "__fish_kms_sig_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand sign" -l format -d 'Which signature to make, and with which key; may be repeated [default: kms]' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand sign" -l namespace -d 'What an SSH signature is for [default: file]' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand sign" -l trusted-comment -d 'What a minisign signature says that is signed with it [default: timestamp, file, hashed]' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand sign" -l certificate -d 'The OpenPGP certificate of the key, as kms-sig key public --format openpgp prints it' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand sign" -l context -d 'Encryption context, k=v,k=v; may be repeated. A comma inside a value is written \\,' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand sign" -l keyring -d 'The keyring of local: keys [env: KMS_SIG_KEYRING]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand sign" -l log-format -d 'How log lines look [default: journal where standard error goes there, otherwise human]' -r -f -a "human\t'Time, level and text, for people'
json\t'One JSON object per line, for machines'
journal\t'Entries of the systemd journal, with their fields'"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand sign" -l binary -d 'Make the OpenPGP signature binary, as FILE.sig, instead of text, as FILE.asc'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand sign" -l force -d 'Replace whatever file is there, although it is no older signature'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand sign" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand verify" -l key -d 'A key that is trusted; may be repeated [default: any AWS key that you may use]' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand verify" -l trust -d 'A file of public keys that are trusted, instead of keys of KMS; may be repeated' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand verify" -l namespace -d 'With --trust: what an SSH signature must be for [default: file]' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand verify" -l principal -d 'With --trust: whose an SSH signature must be, by the allowed signers [default: anybody there]' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand verify" -l context -d 'Encryption context, k=v,k=v; may be repeated. A comma inside a value is written \\,' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand verify" -l keyring -d 'The keyring of local: keys [env: KMS_SIG_KEYRING]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand verify" -l log-format -d 'How log lines look [default: journal where standard error goes there, otherwise human]' -r -f -a "human\t'Time, level and text, for people'
json\t'One JSON object per line, for machines'
journal\t'Entries of the systemd journal, with their fields'"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand verify" -l any-name -d 'With --trust: accept a signature that names another file'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand verify" -s v -l verbose -d 'Say why a signature is invalid'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand watch" -l policy -d 'The policy file (TOML)' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand watch" -l keyring -d 'The keyring of local: keys [env: KMS_SIG_KEYRING]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand watch" -l log-format -d 'How log lines look [default: journal where standard error goes there, otherwise human]' -r -f -a "human\t'Time, level and text, for people'
json\t'One JSON object per line, for machines'
journal\t'Entries of the systemd journal, with their fields'"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand watch" -l once -d 'Deal with the files that are there, print a summary, and end'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand watch" -l dry-run -d 'Say what would be done, and change nothing'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand watch" -l allow-root -d 'Run as root although the policy does not allow it'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand watch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand check" -l policy -d 'The policy file (TOML)' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand check" -l keyring -d 'The keyring of local: keys [env: KMS_SIG_KEYRING]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand check" -l log-format -d 'How log lines look [default: journal where standard error goes there, otherwise human]' -r -f -a "human\t'Time, level and text, for people'
json\t'One JSON object per line, for machines'
journal\t'Entries of the systemd journal, with their fields'"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand check" -l online -d 'Also ask KMS whether it would allow each call, and look at this host'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand check" -l reload -d 'Fail only for what a daemon would refuse as a whole, as is asked before a reload'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand check" -l json -d 'One JSON object with everything, for programs'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand explain" -l policy -d 'The policy file (TOML)' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand explain" -l keyring -d 'The keyring of local: keys [env: KMS_SIG_KEYRING]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand explain" -l log-format -d 'How log lines look [default: journal where standard error goes there, otherwise human]' -r -f -a "human\t'Time, level and text, for people'
json\t'One JSON object per line, for machines'
journal\t'Entries of the systemd journal, with their fields'"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand explain" -l json -d 'One JSON object, for programs'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand status" -l policy -d 'Ask the daemon of this policy [default: the one at /run/kms-sig/control.sock]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand status" -l socket -d 'Ask the daemon at this socket' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand status" -l keyring -d 'The keyring of local: keys [env: KMS_SIG_KEYRING]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand status" -l log-format -d 'How log lines look [default: journal where standard error goes there, otherwise human]' -r -f -a "human\t'Time, level and text, for people'
json\t'One JSON object per line, for machines'
journal\t'Entries of the systemd journal, with their fields'"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand status" -l json -d 'One JSON object, for programs'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand backlog" -l policy -d 'Ask the daemon of this policy [default: the one at /run/kms-sig/control.sock]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand backlog" -l socket -d 'Ask the daemon at this socket' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand backlog" -l rule -d 'Only this rule\'s' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand backlog" -l cause -d 'Only what waits for this cause, or is refused for it, such as access-denied or hard-links' -r -f -a "throttled\t''
kms-internal\t''
network\t''
timeout\t''
malformed-reply\t''
unknown-error\t''
access-denied\t''
key-state\t''
key-not-found\t''
key-usage\t''
credentials\t''
credential-source\t''
bad-request\t''
whose-signature\t''
file-system\t''
sticky\t''
planted\t''
no-modes\t''
boundary\t''
no-space\t''
quarantine-full\t''
conflict\t''
replaced\t''
state\t''
internal-error\t''
rollback\t''
brake\t''
mixed-owners\t''
in-hand\t''
no-payload\t''
no-signature\t''
grace\t''
control-file\t''
being-written\t''
settling\t''
name-taken\t''
orphan-of-ours\t''
context-too-long\t''
foreign-signature\t''
hard-links\t''
name-too-long\t''
not-regular\t''
orphan-signature\t''
owner\t''
set-id\t''
signature-hard-links\t''
signature-not-regular\t''
signature-of-signature\t''
signature-owner\t''
signature-set-id\t''
signature-too-large\t''
stale-signature\t''
stray-signature\t''
suffix-in-other-case\t''
too-large\t''"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand backlog" -l most -d 'At most so many of each rule, those that have waited longest [default: 20, with --json all]' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand backlog" -l keyring -d 'The keyring of local: keys [env: KMS_SIG_KEYRING]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand backlog" -l log-format -d 'How log lines look [default: journal where standard error goes there, otherwise human]' -r -f -a "human\t'Time, level and text, for people'
json\t'One JSON object per line, for machines'
journal\t'Entries of the systemd journal, with their fields'"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand backlog" -l held -d 'Only what is held; not what only needs time'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand backlog" -l json -d 'One JSON object per line, for programs'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand backlog" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand events" -l policy -d 'Ask the daemon of this policy [default: the one at /run/kms-sig/control.sock]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand events" -l socket -d 'Ask the daemon at this socket' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand events" -l after -d 'The last line that is known: its cursor HASH:ROW, or the number of its row' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand events" -l keyring -d 'The keyring of local: keys [env: KMS_SIG_KEYRING]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand events" -l log-format -d 'How log lines look [default: journal where standard error goes there, otherwise human]' -r -f -a "human\t'Time, level and text, for people'
json\t'One JSON object per line, for machines'
journal\t'Entries of the systemd journal, with their fields'"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand events" -s f -l follow -d 'Wait for more, also while the daemon is restarted'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand events" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand rescan" -l policy -d 'Ask the daemon of this policy [default: the one at /run/kms-sig/control.sock]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand rescan" -l socket -d 'Ask the daemon at this socket' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand rescan" -l rule -d 'Only this rule' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand rescan" -l keyring -d 'The keyring of local: keys [env: KMS_SIG_KEYRING]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand rescan" -l log-format -d 'How log lines look [default: journal where standard error goes there, otherwise human]' -r -f -a "human\t'Time, level and text, for people'
json\t'One JSON object per line, for machines'
journal\t'Entries of the systemd journal, with their fields'"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand rescan" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand reload" -l policy -d 'Ask the daemon of this policy [default: the one at /run/kms-sig/control.sock]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand reload" -l socket -d 'Ask the daemon at this socket' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand reload" -l keyring -d 'The keyring of local: keys [env: KMS_SIG_KEYRING]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand reload" -l log-format -d 'How log lines look [default: journal where standard error goes there, otherwise human]' -r -f -a "human\t'Time, level and text, for people'
json\t'One JSON object per line, for machines'
journal\t'Entries of the systemd journal, with their fields'"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand reload" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand history" -l policy -d 'The policy file (TOML)' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand history" -l rule -d 'Only this rule\'s' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand history" -l name -d 'Only files of this name: a pattern (*, ?, [a-z], {a,b}), or a name as it is or as it is shown' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand history" -l verdict -d 'Only with this verdict' -r -f -a "valid\t''
invalid\t''
mismatch\t''
rejected\t''
wrong-key\t''
malformed\t''
missing\t''"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand history" -l outcome -d 'Only with this outcome' -r -f -a "signing\t''
signed\t''
adopted\t''
valid\t''
delivered\t''
invalid\t''
quarantined\t''
refused\t''
released\t''
purged\t''"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand history" -l since -d 'Only from then on: 2026-11-24, 2026-11-24T01:00:00Z (UTC), or how long ago: 90m, 7d' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand history" -l until -d 'Only before then' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand history" -l last -d 'Only the newest so many' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand history" -l head -d 'A head that was kept elsewhere and must be on the chain: HASH:ROW, or a file whose last line it is' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand history" -l against -d 'An export that must be unbroken, and whose head must be on the chain' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand history" -l keyring -d 'The keyring of local: keys [env: KMS_SIG_KEYRING]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand history" -l log-format -d 'How log lines look [default: journal where standard error goes there, otherwise human]' -r -f -a "human\t'Time, level and text, for people'
json\t'One JSON object per line, for machines'
journal\t'Entries of the systemd journal, with their fields'"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand history" -l json -d 'One JSON object per line, for programs'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand history" -l verify -d 'Prove that the record is unbroken'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand history" -l online -d 'Have KMS open the newest seals as well'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand history" -l export -d 'Write the whole record as JSON lines, the head last, to be kept off this host'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand history" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand show" -l keyring -d 'The keyring of local: keys [env: KMS_SIG_KEYRING]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand show" -l log-format -d 'How log lines look [default: journal where standard error goes there, otherwise human]' -r -f -a "human\t'Time, level and text, for people'
json\t'One JSON object per line, for machines'
journal\t'Entries of the systemd journal, with their fields'"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and not __fish_seen_subcommand_from list show recheck release purge help" -l keyring -d 'The keyring of local: keys [env: KMS_SIG_KEYRING]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and not __fish_seen_subcommand_from list show recheck release purge help" -l log-format -d 'How log lines look [default: journal where standard error goes there, otherwise human]' -r -f -a "human\t'Time, level and text, for people'
json\t'One JSON object per line, for machines'
journal\t'Entries of the systemd journal, with their fields'"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and not __fish_seen_subcommand_from list show recheck release purge help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and not __fish_seen_subcommand_from list show recheck release purge help" -f -a "list" -d 'Lists the items, oldest first'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and not __fish_seen_subcommand_from list show recheck release purge help" -f -a "show" -d 'Shows all that is known of an item, and whether its content changed since it was judged'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and not __fish_seen_subcommand_from list show recheck release purge help" -f -a "recheck" -d 'Verifies items again, under the policy as it is now; moves nothing'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and not __fish_seen_subcommand_from list show recheck release purge help" -f -a "release" -d 'Gives items back, if they are valid under the policy as it is now'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and not __fish_seen_subcommand_from list show recheck release purge help" -f -a "purge" -d 'Removes items for good'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and not __fish_seen_subcommand_from list show recheck release purge help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from list" -l policy -d 'The policy file (TOML)' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from list" -l rule -d 'Only items of this rule' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from list" -l reason -d 'Only items that were judged so: mismatch, rejected, wrong-key, malformed, missing' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from list" -l keyring -d 'The keyring of local: keys [env: KMS_SIG_KEYRING]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from list" -l log-format -d 'How log lines look [default: journal where standard error goes there, otherwise human]' -r -f -a "human\t'Time, level and text, for people'
json\t'One JSON object per line, for machines'
journal\t'Entries of the systemd journal, with their fields'"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from list" -l json -d 'Answer in JSON, one object per line'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from show" -l policy -d 'The policy file (TOML)' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from show" -l keyring -d 'The keyring of local: keys [env: KMS_SIG_KEYRING]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from show" -l log-format -d 'How log lines look [default: journal where standard error goes there, otherwise human]' -r -f -a "human\t'Time, level and text, for people'
json\t'One JSON object per line, for machines'
journal\t'Entries of the systemd journal, with their fields'"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from show" -l json -d 'Answer in JSON, one object per line'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from recheck" -l policy -d 'The policy file (TOML)' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from recheck" -l keyring -d 'The keyring of local: keys [env: KMS_SIG_KEYRING]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from recheck" -l log-format -d 'How log lines look [default: journal where standard error goes there, otherwise human]' -r -f -a "human\t'Time, level and text, for people'
json\t'One JSON object per line, for machines'
journal\t'Entries of the systemd journal, with their fields'"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from recheck" -l all -d 'Every item'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from recheck" -l json -d 'Answer in JSON, one object per line'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from recheck" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from release" -l to -d 'Put the files into this directory instead, which must be there' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from release" -l policy -d 'The policy file (TOML)' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from release" -l keyring -d 'The keyring of local: keys [env: KMS_SIG_KEYRING]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from release" -l log-format -d 'How log lines look [default: journal where standard error goes there, otherwise human]' -r -f -a "human\t'Time, level and text, for people'
json\t'One JSON object per line, for machines'
journal\t'Entries of the systemd journal, with their fields'"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from release" -l force -d 'Do not verify: release the content that was judged invalid, and no other'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from release" -l json -d 'Answer in JSON, one object per line'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from release" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from purge" -l older-than -d 'Every item that was put away longer ago than this, such as 90days' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from purge" -l rule -d 'Every item of this rule' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from purge" -l policy -d 'The policy file (TOML)' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from purge" -l keyring -d 'The keyring of local: keys [env: KMS_SIG_KEYRING]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from purge" -l log-format -d 'How log lines look [default: journal where standard error goes there, otherwise human]' -r -f -a "human\t'Time, level and text, for people'
json\t'One JSON object per line, for machines'
journal\t'Entries of the systemd journal, with their fields'"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from purge" -l yes -d 'Do it; without this, items that are not named by id are only counted'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from purge" -l json -d 'Answer in JSON, one object per line'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from purge" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from help" -f -a "list" -d 'Lists the items, oldest first'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from help" -f -a "show" -d 'Shows all that is known of an item, and whether its content changed since it was judged'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from help" -f -a "recheck" -d 'Verifies items again, under the policy as it is now; moves nothing'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from help" -f -a "release" -d 'Gives items back, if they are valid under the policy as it is now'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from help" -f -a "purge" -d 'Removes items for good'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand quarantine; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and not __fish_seen_subcommand_from create list public help" -l keyring -d 'The keyring of local: keys [env: KMS_SIG_KEYRING]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and not __fish_seen_subcommand_from create list public help" -l log-format -d 'How log lines look [default: journal where standard error goes there, otherwise human]' -r -f -a "human\t'Time, level and text, for people'
json\t'One JSON object per line, for machines'
journal\t'Entries of the systemd journal, with their fields'"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and not __fish_seen_subcommand_from create list public help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and not __fish_seen_subcommand_from create list public help" -f -a "create" -d 'Makes a new key, and the keyring if there is none'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and not __fish_seen_subcommand_from create list public help" -f -a "list" -d 'Lists the keys, when they were made, and their types'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and not __fish_seen_subcommand_from create list public help" -f -a "public" -d 'Prints the public half of a key, local or of AWS'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and not __fish_seen_subcommand_from create list public help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and __fish_seen_subcommand_from create" -l type -d 'What it is for' -r -f -a "aes\t''
ed25519\t''
p256\t''
p384\t''
p521\t''
rsa3072\t''
rsa4096\t''"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and __fish_seen_subcommand_from create" -l keyring -d 'The keyring of local: keys [env: KMS_SIG_KEYRING]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and __fish_seen_subcommand_from create" -l log-format -d 'How log lines look [default: journal where standard error goes there, otherwise human]' -r -f -a "human\t'Time, level and text, for people'
json\t'One JSON object per line, for machines'
journal\t'Entries of the systemd journal, with their fields'"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and __fish_seen_subcommand_from create" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and __fish_seen_subcommand_from list" -l keyring -d 'The keyring of local: keys [env: KMS_SIG_KEYRING]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and __fish_seen_subcommand_from list" -l log-format -d 'How log lines look [default: journal where standard error goes there, otherwise human]' -r -f -a "human\t'Time, level and text, for people'
json\t'One JSON object per line, for machines'
journal\t'Entries of the systemd journal, with their fields'"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and __fish_seen_subcommand_from public" -l format -d 'How it is written' -r -f -a "pem\t'The SubjectPublicKeyInfo as PEM, as OpenSSL and cosign read it'
ssh\t'One line, as OpenSSH reads it'
minisign\t'The file that minisign -p reads'
openpgp\t'A certificate for gpg, gpgv, sq and sqv'
allowed-signers\t'The file that ssh-keygen -Y verify -f reads'"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and __fish_seen_subcommand_from public" -l principal -d 'allowed-signers: whose key it is, as ssh-keygen -I names it' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and __fish_seen_subcommand_from public" -l user-id -d 'openpgp: whose key it is' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and __fish_seen_subcommand_from public" -l created -d 'openpgp: when the key was made [default: of a local key, when it was]' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and __fish_seen_subcommand_from public" -l expires -d 'openpgp: when the certificate ends [default: never]' -r
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and __fish_seen_subcommand_from public" -l renew -d 'openpgp: the certificate to extend; its earlier signatures stay' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and __fish_seen_subcommand_from public" -l keyring -d 'The keyring of local: keys [env: KMS_SIG_KEYRING]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and __fish_seen_subcommand_from public" -l log-format -d 'How log lines look [default: journal where standard error goes there, otherwise human]' -r -f -a "human\t'Time, level and text, for people'
json\t'One JSON object per line, for machines'
journal\t'Entries of the systemd journal, with their fields'"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and __fish_seen_subcommand_from public" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and __fish_seen_subcommand_from help" -f -a "create" -d 'Makes a new key, and the keyring if there is none'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and __fish_seen_subcommand_from help" -f -a "list" -d 'Lists the keys, when they were made, and their types'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and __fish_seen_subcommand_from help" -f -a "public" -d 'Prints the public half of a key, local or of AWS'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand key; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand version" -l keyring -d 'The keyring of local: keys [env: KMS_SIG_KEYRING]' -r -F
complete -c kms-sig -n "__fish_kms_sig_using_subcommand version" -l log-format -d 'How log lines look [default: journal where standard error goes there, otherwise human]' -r -f -a "human\t'Time, level and text, for people'
json\t'One JSON object per line, for machines'
journal\t'Entries of the systemd journal, with their fields'"
complete -c kms-sig -n "__fish_kms_sig_using_subcommand version" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand help; and not __fish_seen_subcommand_from sign verify watch check explain status backlog events rescan reload history show quarantine key version help" -f -a "sign" -d 'Signs a file'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand help; and not __fish_seen_subcommand_from sign verify watch check explain status backlog events rescan reload history show quarantine key version help" -f -a "verify" -d 'Verifies a file\'s signature'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand help; and not __fish_seen_subcommand_from sign verify watch check explain status backlog events rescan reload history show quarantine key version help" -f -a "watch" -d 'Watches directories, and signs or verifies what lands in them, by a policy'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand help; and not __fish_seen_subcommand_from sign verify watch check explain status backlog events rescan reload history show quarantine key version help" -f -a "check" -d 'Checks a policy: every fault at once, and what there is to do'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand help; and not __fish_seen_subcommand_from sign verify watch check explain status backlog events rescan reload history show quarantine key version help" -f -a "explain" -d 'Explains which rule a file falls to, and what would happen to it now'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand help; and not __fish_seen_subcommand_from sign verify watch check explain status backlog events rescan reload history show quarantine key version help" -f -a "status" -d 'Shows how a running daemon stands, and what to do about it'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand help; and not __fish_seen_subcommand_from sign verify watch check explain status backlog events rescan reload history show quarantine key version help" -f -a "backlog" -d 'Lists what waits, why, since when, and what to do'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand help; and not __fish_seen_subcommand_from sign verify watch check explain status backlog events rescan reload history show quarantine key version help" -f -a "events" -d 'Prints decisions as they are made, a line of JSON each'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand help; and not __fish_seen_subcommand_from sign verify watch check explain status backlog events rescan reload history show quarantine key version help" -f -a "rescan" -d 'Has a running daemon look at its directories now'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand help; and not __fish_seen_subcommand_from sign verify watch check explain status backlog events rescan reload history show quarantine key version help" -f -a "reload" -d 'Has a running daemon take over its changed policy'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand help; and not __fish_seen_subcommand_from sign verify watch check explain status backlog events rescan reload history show quarantine key version help" -f -a "history" -d 'Shows what was decided, and proves that the record of it is unbroken'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand help; and not __fish_seen_subcommand_from sign verify watch check explain status backlog events rescan reload history show quarantine key version help" -f -a "show" -d 'Shows what a signature says about itself, without asking anyone'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand help; and not __fish_seen_subcommand_from sign verify watch check explain status backlog events rescan reload history show quarantine key version help" -f -a "quarantine" -d 'Lists what is in quarantine, verifies it again, releases and purges it'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand help; and not __fish_seen_subcommand_from sign verify watch check explain status backlog events rescan reload history show quarantine key version help" -f -a "key" -d 'Makes and lists the keys of this host\'s keyring, and shows public keys'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand help; and not __fish_seen_subcommand_from sign verify watch check explain status backlog events rescan reload history show quarantine key version help" -f -a "version" -d 'Prints version, commit and target'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand help; and not __fish_seen_subcommand_from sign verify watch check explain status backlog events rescan reload history show quarantine key version help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand help; and __fish_seen_subcommand_from quarantine" -f -a "list" -d 'Lists the items, oldest first'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand help; and __fish_seen_subcommand_from quarantine" -f -a "show" -d 'Shows all that is known of an item, and whether its content changed since it was judged'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand help; and __fish_seen_subcommand_from quarantine" -f -a "recheck" -d 'Verifies items again, under the policy as it is now; moves nothing'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand help; and __fish_seen_subcommand_from quarantine" -f -a "release" -d 'Gives items back, if they are valid under the policy as it is now'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand help; and __fish_seen_subcommand_from quarantine" -f -a "purge" -d 'Removes items for good'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand help; and __fish_seen_subcommand_from key" -f -a "create" -d 'Makes a new key, and the keyring if there is none'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand help; and __fish_seen_subcommand_from key" -f -a "list" -d 'Lists the keys, when they were made, and their types'
complete -c kms-sig -n "__fish_kms_sig_using_subcommand help; and __fish_seen_subcommand_from key" -f -a "public" -d 'Prints the public half of a key, local or of AWS'
