#!/bin/sh
# The first process of a guest in QEMU, in its initramfs: reaches the host's files and goes on with init.sh there.
# LAB_ENVIRONMENT comes from the kernel's command line.
export PATH=/bin
# A trial of the machine alone: says that it got here; the kernel's panic at our end, then, ends the machine.
if [ "$LAB_PROBE" ]; then
    echo "$LAB_PROBE"
    exit
fi
mount -t proc proc /proc
for module in /modules/*.ko; do
    insmod "$module"
done
# The host keeps this share read-only. Nothing changes there while we run that we would have to see: cached at will.
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose host /root
mount -t devtmpfs dev /root/dev
exec switch_root /root /bin/sh "$LAB_INIT"
