# The first process of the virtual machine, in its root: runs viacheck, notes its exit status, switches the machine off.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root XDG_CACHE_HOME=/mnt
cd "$HOME"
hostname viacheck-guest
# What udev makes on a host.
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
ip link set dev lo up
for port in /sys/class/virtio-ports/*; do
    output=/dev/${port##*/}
done
. /mnt/environment
mkdir -p "$REPORT"
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 report "$REPORT"
read -r booted _ </proc/uptime
echo "$booted" >/mnt/booted
sh /mnt/command >"$output" 2>&1
echo $? >/mnt/status
sync
echo o >/proc/sysrq-trigger
while :; do
    sleep 60
done
