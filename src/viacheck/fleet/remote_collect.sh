# Writes a bundle of the host that it runs on, and sends it. OpenSSH hands it over as an argument of sh; nothing of it stays
# on the host. Standard input: the script of 'viacheck collect-script', and then the site file.
# Arguments: size in bytes of that script, seconds that it may take.
# Standard output: "viacheck-fleet need", "viacheck-fleet status N", the bundle.
set -eu
size=$1 seconds=$2
umask 077
work=$(mktemp -d "${TMPDIR:-/tmp}/viacheck-fleet.XXXXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM PIPE

echo viacheck-fleet need
# Byte by byte: what is read too much would be missing in the site file, and not every head(1) has -c.
dd bs=1 count="$size" of="$work/collect.sh" 2>/dev/null
cat >"$work/site.toml"
limit=
! command -v timeout >/dev/null || limit="timeout -k 10 $seconds"
status=0
# SC2086: the limit is several words.
TMPDIR=$work $limit sh "$work/collect.sh" --site "$work/site.toml" -o "$work/case.tar.gz" \
    >"$work/output" 2>&1 </dev/null || status=$?
echo viacheck-fleet status $status
if [ $status = 0 ] && [ -s "$work/case.tar.gz" ]; then
    cat "$work/case.tar.gz"
else
    cat "$work/output" >&2
fi
