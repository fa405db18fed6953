# Boots Debian's systemd as the first process of a container, on the kernel that runs here:
#   sh booted.sh WORK OUT REPOSITORY PYTHON_PREFIX SITE_PACKAGES [NAME] [PARTS]
# as root in mount, pid, ipc, uts, net and cgroup namespaces of its own. The root is this machine's under an overlay: nothing
# is written to it.
# Without NAME our units are there, and it does what these PARTS of try.sh say, which ends in OUT/said, one line each; then
# it is over.
# With NAME it is a machine of that name on which nothing of ours is installed (the product waits at /opt/feedback/launcher,
# instead of a `pip install` from the network). It stays; OUT/pid is the number of its first process out here.
set -eu
work=$1 out=$2 repository=$3 prefix=$4 site=$5 name=${6:-} parts=${7:-}

[ ! -d /run/modules/lib ] || modprobe -d /run/modules overlay 2>/dev/null || true
mount -t tmpfs tmpfs "$work"
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" "$work/root"
root=$work/root

mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
else
    mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
    mkdir "$root/sys/fs/cgroup/systemd" "$root/sys/fs/cgroup/unified"
    mount -t cgroup -o none,name=systemd systemd "$root/sys/fs/cgroup/systemd"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup/unified"
fi
mount -t tmpfs tmpfs "$root/dev"
for node in null zero full random urandom tty; do cp -a "/dev/$node" "$root/dev/"; done
mkdir "$root/dev/shm" "$root/dev/pts"
ln -s /proc/self/fd "$root/dev/fd"
ln -s pts/ptmx "$root/dev/ptmx"
touch "$root/dev/console" "$out/console"
mount --bind "$out/console" "$root/dev/console"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"

# As on a fresh Debian; and of the machine's own units only what a boot needs.
rm -rf "$root/etc/systemd/system" "$root/etc/sysusers.d" "$root/etc/fstab" "$root/etc/feedback" "$root/var/lib/feedback"
mkdir "$root/etc/systemd/system"
for wants in sysinit sockets timers paths local-fs; do
    directory=$root/usr/lib/systemd/system/$wants.target.wants
    [ ! -d "$directory" ] || find "$directory" -mindepth 1 ! -name '*journald*' -delete
done

# The product: not where ProtectHome= would hide it.
mkdir -p "$root/opt/feedback/python" "$root/opt/feedback/site" "$root/opt/feedback/source" "$root/opt/feedback/out"
mount --bind "$repository" "$root/opt/feedback/source"
mount --bind "$site" "$root/opt/feedback/site"
mount --bind "$out" "$root/opt/feedback/out"
python=/usr/bin/python3
if [ "$prefix" != /usr ]; then
    mount --bind "$prefix" "$root/opt/feedback/python"
    python="env PYTHONHOME=/opt/feedback/python LD_LIBRARY_PATH=/opt/feedback/python/lib /opt/feedback/python/bin/python3"
fi
rm -f "$root/usr/bin/feedback"
cat >"$root/opt/feedback/launcher" <<END
#!/bin/sh
export PYTHONPATH=/opt/feedback/source:/opt/feedback/site PYTHONDONTWRITEBYTECODE=1
exec $python -c 'from feedback.cli.entry import main; main()' "\$@"
END
chmod 755 "$root/opt/feedback/launcher"

if [ -z "$name" ]; then
    cp "$root/opt/feedback/launcher" "$root/usr/bin/feedback"
    cp "$repository"/systemd/*.service "$root/etc/systemd/system/"
    cp "$repository/systemd/sysusers.d/feedback.conf" "$root/usr/lib/sysusers.d/"
    cp "$repository/systemd/tmpfiles.d/feedback.conf" "$root/usr/lib/tmpfiles.d/"
    chroot "$root" systemd-sysusers
    chroot "$root" systemd-tmpfiles --create feedback.conf
    # The try is the only thing that is wanted; the machine ends with it.
    cat >"$root/etc/systemd/system/try.service" <<END
[Unit]
After=basic.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'sh /opt/feedback/source/tests/systemd/try.sh $parts >/opt/feedback/out/said 2>&1; systemctl exit 0'
END
    printf '[Unit]\nRequires=basic.target\nAfter=basic.target\nWants=try.service\n' >"$root/etc/systemd/system/try.target"
    wanted=try.target
    ip link set lo up
    ip link add eth0 type dummy
    ip link set eth0 up
    ip address add 10.0.0.1/24 dev eth0
else
    wanted=basic.target
    hostname "$name"
    echo "$name" >"$root/etc/hostname"
    # modprobe finds the guest's modules where a machine has them.
    [ ! -d /run/modules/lib/modules ] || { rm -rf "$root/lib/modules"; mkdir "$root/lib/modules"; mount --bind /run/modules/lib/modules/ "$root/lib/modules"; }
    read -r pid _ </proc/self/stat  # /proc is still that of the outside
    echo "$pid" >"$out/pid"
fi

mkdir -p "$root/.old"
cd "$root"
pivot_root . .old
# Shared, as systemd has it outside of containers: it hands credentials to a unit by a mount that propagates.
exec chroot . /bin/sh -c 'umount -l /.old; mount --make-rshared /; exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit="$1" --show-status=no' sh "$wanted"
