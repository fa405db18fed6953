#!/bin/sh
# The first process of a guest in QEMU, in its initramfs: reaches the host's files and goes on with init.sh there.
# LAB_ENVIRONMENT comes from the kernel's command line.
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
# As a message of the kernel, which is on the console before anything else happens; a terminal's output is sent later,
# and lost if another processor ends the machine meanwhile.
echo "<0>the-guest-is-up" > /dev/kmsg
# A trial of the machine alone: the kernel's panic at our end ends the machine.
if [ "$LAB_PROBE" ]; then
    exit
fi
# The messages of the boot are wanted where it fails. Later ones would cost the guest's time.
echo 4 > /proc/sys/kernel/printk
for module in /modules/*.ko; do
    insmod "$module"
done
# The host keeps this share read-only. Nothing changes there while we run that we would have to see: cached at will.
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose host /root
mount -t devtmpfs dev /root/dev
exec switch_root /root /bin/sh "$LAB_INIT"
