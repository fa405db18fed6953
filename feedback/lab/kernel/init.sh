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
for path in "$ROOT" "$PREFIX" "$BASE_PREFIX" "$SCRATCH"; do
    [ -e "$path" ] || { mkdir -p "$path" && mount --bind "/run/host$path" "$path" && mount -o remount,bind,ro "$path"; }
done
[ -d "$OUTPUT" ] || mkdir -p "$OUTPUT"
mount --bind "/run/host$OUTPUT" "$OUTPUT"
umount -l /run/host

# /lib/modules need not exist on the host; modprobe looks for DIRECTORY/lib/modules/RELEASE.
mkdir -p /run/modules/lib
ln -s /usr/lib/uml/modules /run/modules/lib/modules
modprobe -d /run/modules -a $MODULES
mkdir -p /run/cgroup
mount -t cgroup2 cgroup /sys/fs/cgroup
ip link set lo up

cd "$ROOT"
"$PYTHON" -m feedback.lab.guest "$JOB"
echo "$?" > "$OUTPUT/status"
poweroff -f
