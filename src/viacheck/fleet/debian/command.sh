#!/bin/sh
# The libraries of root's viacheck are unpacked where the removal of the package finds them.
[ "$(id -u)" -ne 0 ] || export XDG_CACHE_HOME=/var/cache
exec sh /usr/lib/viacheck/viacheck.pyz "$@"
