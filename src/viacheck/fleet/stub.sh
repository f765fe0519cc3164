#!/bin/sh
# viacheck @VERSION@ in one file, for Linux with Python 3.11 or newer: sh viacheck.pyz ARGUMENT ...
# A zip archive follows this script. The first start unpacks it to a private cache; later starts run it from there.
set -eu
digest=@DIGEST@

fail() {
    printf 'viacheck: %s\n' "$*" >&2
    exit 4
}

cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/viacheck
unpacked=$cache/$digest
# A folder of another user, or a link, is not run.
if [ ! -x "$unpacked/bin/python" ] || [ -L "$unpacked" ] || [ ! -O "$unpacked" ]; then
    for python in python3 python3.14 python3.13 python3.12 python3.11 ''; do
        [ -n "$python" ] ||
            fail "needs Python 3.11 or newer on PATH; python3 is: $(python3 -V 2>/dev/null || echo missing)"
        ! "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || break
    done
    "$python" -I "$0" "$cache" "$digest" || exit $?
fi
exec "$unpacked/bin/python" -I -m viacheck.cli.main "$@"
