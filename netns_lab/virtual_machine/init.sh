#!/bin/busybox sh
# The first process of the virtual machine: finds its root, which it never writes to, and becomes the program that the
# shared folder holds. The programs here are busybox's. The kernel loads modules from the root of this process, so that
# it must change its root itself.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do
    insmod "/modules/$module"
done </modules/order
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro root /lower
mount -t tmpfs -o size=75% upper /upper
mkdir /upper/files /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work root /sysroot
mount -t tmpfs run /sysroot/run
mount -t tmpfs tmp /sysroot/tmp
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose share /sysroot/mnt
for folder in dev proc sys; do
    mount --move /$folder /sysroot/$folder
done
mkdir -p /sysroot/dev/pts /sysroot/dev/shm
mount -t devpts devpts /sysroot/dev/pts
mount -t tmpfs shm /sysroot/dev/shm
exec chroot /sysroot /bin/sh /mnt/start
