"""The shell script that becomes PID 1 of a whole host: it mounts what a kernel and an initramfs would, and runs init.

It runs in new mount, process, UTS, IPC and cgroup namespaces, and in the host's network namespace. Everything of the
machine that systemd could change is read-only there: all sysctls but those of the network, and all of sysfs but the
network devices, which udev must be able to write for networkd to take a link as initialized.

The static busybox of the base root runs it: its mount(8) takes a third of the time of the machine's, 60 times at each
boot. It does not make a bind mount read-only at once, as the machine's does.
"""

from __future__ import annotations

LAYERS = "/run"
"""Where the layers are in the mount namespace that the script starts in: base, upper, work, root, boot_id."""
ENGINE_FOLDERS = ("docker", "containerd")
"""The folders below /var/lib that the engine and containerd mount overlays on: no overlay can lie on another."""
READY = b"ready\n"
"""The line that is printed when init is about to run."""

FIRST_PROCESS = r"""
set -e
root=$1/root
read_only() {
    mount --bind "$1" "$1"
    mount -o remount,bind,ro "$1"
}
mount -t overlay overlay -o "lowerdir=$1/base,upperdir=$1/upper,workdir=$1/work" "$root"

for name in docker containerd; do
    mkdir -p "$root/var/lib/$name"
    mount --bind "$1/$name" "$root/var/lib/$name"
done

mount -t proc proc "$root/proc"
for entry in sys sysrq-trigger irq bus; do
    if [ -e "$root/proc/$entry" ]; then read_only "$root/proc/$entry"; fi
done
mount -t proc proc "$root/mnt"
mount --bind "$root/mnt/sys/net" "$root/proc/sys/net"
umount -l "$root/mnt"
# The journal and networkd distinguish the boots by it.
cat /proc/sys/kernel/random/uuid >"$1/boot_id"
mount --bind "$1/boot_id" "$root/proc/sys/kernel/random/boot_id"

mount -t sysfs sysfs "$root/sys"
# The mount itself stays writable: udev does not run, and networkd behaves as in a container, where it is read-only.
for entry in "$root"/sys/*; do
    if [ "$entry" != "$root/sys/class" ]; then read_only "$entry"; fi
done
mount -t sysfs sysfs "$root/mnt"
mount --bind "$root/mnt/devices/virtual/net" "$root/sys/devices/virtual/net"
umount -l "$root/mnt"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"

mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for name in null zero full random urandom tty; do
    : >"$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for stream in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${stream%:*}" "$root/dev/${stream#*:}"; done
mount -t tmpfs -o mode=755 tmpfs "$root/run"
# Without udev's socket systemd takes it that no udev runs, and has no units of devices: udev replaces the file.
mkdir "$root/run/udev"
: >"$root/run/udev/control"
mount -t tmpfs tmpfs "$root/tmp"

mkdir "$root/run/machine"
cd "$root"
pivot_root . run/machine
umount -l /run/machine
rmdir /run/machine
# What units and `ip netns add` mount later must show in a copy of this mount namespace.
mount --make-rshared /
echo ready
exec /usr/bin/env --ignore-environment PATH=/usr/sbin:/usr/bin:/sbin:/bin container=viacheck \
    /usr/bin/setpriv --bounding-set=-sys_module,-sys_time,-sys_rawio,-syslog /sbin/init >/dev/null 2>&1
"""

START = r"""
echo $$ >"$1/cgroup.procs"
exec unshare --mount --pid --uts --ipc --cgroup --fork --kill-child "$3/base/bin/busybox" sh -c "$2" init "$3"
"""
"""Joins a cgroup of the host's own, which the new cgroup namespace then takes for the root of all cgroups."""
