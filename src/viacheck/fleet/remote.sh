# Judges the host that it runs on. OpenSSH hands it over as an argument of sh; nothing of it stays on the host beside the
# private cache. Standard input: the packed file, unless the host has it already, and then the site file.
# Arguments: digest and size in bytes of the packed file, seconds that the judging may take, options of the run.
# Standard output: "viacheck-fleet have" or "viacheck-fleet need", "viacheck-fleet status N", result.json.
set -eu
digest=$1 size=$2 seconds=$3
shift 3
umask 077
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/viacheck
unpacked=$cache/$digest
mkdir -p "$cache"
work=$(mktemp -d "$cache/run.XXXXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM PIPE

if [ -x "$unpacked/bin/python" ] && [ ! -L "$unpacked" ] && [ -O "$unpacked" ]; then
    echo viacheck-fleet have
    cat >"$work/site.toml"
    set -- "$unpacked/bin/python" -I -m viacheck.cli.main "$@"
else
    echo viacheck-fleet need
    cat >"$work/input"
    head -c "$size" "$work/input" >"$work/viacheck.pyz"
    tail -c "+$((size + 1))" "$work/input" >"$work/site.toml"
    rm "$work/input"
    set -- sh "$work/viacheck.pyz" "$@"
fi

limit=
! command -v timeout >/dev/null || limit="timeout -k 10 $seconds"
status=0
# SC2086: the limit is two words.
$limit "$@" --local --site "$work/site.toml" --result-only --report-dir "$work/report" >"$work/output" 2>&1 </dev/null || status=$?
echo "viacheck-fleet status $status"
if [ -f "$work/report/result.json" ]; then
    cat "$work/report/result.json"
else
    cat "$work/output" >&2
fi
