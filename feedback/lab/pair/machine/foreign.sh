# The first process of a director's own kernel. The root is the guest's, shared and not ours to change: what is mounted
# here is seen here only.
export PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/run LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmpfs /run
. "$LAB_ENVIRONMENT"
export PYTHONPATH
mkdir -p /run/modules/lib
ln -s "$MODULES_DIRECTORY" /run/modules/lib/modules
modprobe -d /run/modules -a $MODULES
number=0
for name in $INTERFACES; do
    ip link set "vec$number" name "$name"
    number=$((number + 1))
done
cd "$ROOT"
"$PYTHON" -m feedback.lab.pair.machine.inside "$RUN" "$DIRECTOR" "$OUTPUT"
poweroff -f
