# The guest's first process: mounts, modules, the job, power off. Run as `/bin/sh init.sh` with LAB_ENVIRONMENT naming a
# file that sets PYTHON, ROOT, OUTPUT, JOB and so on. The root is the host's file system, so everything here is about
# writing nothing there but in OUTPUT.
export PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/run LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmpfs /run
. "$LAB_ENVIRONMENT"
export PYTHONPATH

# A second view of the host's files, from which to bind what the mounts below would hide.
mkdir -p /run/host
mount --bind / /run/host
mount -o remount,bind,ro /
for hidden in /tmp /var/tmp /var/log /dev/shm; do
    [ -d "$hidden" ] && mount -t tmpfs tmpfs "$hidden"
done
for path in "$ROOT" "$PREFIX" "$BASE_PREFIX" "$SCRATCH" "$MODULES_DIRECTORY"; do
    [ -e "$path" ] || { mkdir -p "$path" && mount --bind "/run/host$path" "$path" && mount -o remount,bind,ro "$path"; }
done
[ -d "$OUTPUT" ] || mkdir -p "$OUTPUT"
if [ "$SHIPPED" ]; then
    mkdir /run/shipped
    mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 output /run/shipped
    mount -t tmpfs tmpfs "$OUTPUT"
    cp -r /run/shipped/. "$OUTPUT"
else
    mount --bind "/run/host$OUTPUT" "$OUTPUT"
fi
umount -l /run/host

# /lib/modules need not exist on the host; modprobe looks for DIRECTORY/lib/modules/RELEASE.
mkdir -p /run/modules/lib
ln -s "$MODULES_DIRECTORY" /run/modules/lib/modules
[ -z "$IPVS_OPTIONS" ] || modprobe -d /run/modules ip_vs $IPVS_OPTIONS
modprobe -d /run/modules -a $MODULES
mkdir -p /run/cgroup
mount -t cgroup2 cgroup /sys/fs/cgroup
ip link set lo up

cd "$ROOT"
if [ "$SHIPPED" ]; then
    nice "$PYTHON" -m feedback.lab.kernel.ship "$OUTPUT" /run/shipped &
    shipper=$!
fi
"$PYTHON" -m feedback.lab.guest "$JOB"
echo "$?" > "$OUTPUT/status"
if [ "$SHIPPED" ]; then
    kill -KILL "$shipper"
    wait "$shipper"
    cp -r "$OUTPUT/." /run/shipped
fi
poweroff -f
