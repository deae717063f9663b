# Makes the mount namespace from which every host descends, then holds it.
# Arguments: the demo's state folder, the folder of environments. Nothing here is seen by the machine.
set -eu
state=$1 environments=$2

own=$state/own
mkdir -p "$own"
mount -t tmpfs -o mode=755 tmpfs "$own"
mkdir "$own/etc" "$own/work" "$own/opt"

# Overlay is refused on some containers' filesystems; a copy does as well.
if ! mount -t overlay -o "lowerdir=/etc,upperdir=$own/etc,workdir=$own/work" overlay /etc 2>/dev/null; then
    cp -a /etc/. "$own/etc"
    mount --bind "$own/etc" /etc
fi
cp -a "$state/etc/." /etc

# The machine's own /opt stays, with two folders more.
for entry in /opt/*; do
    [ -d "$entry" ] || continue
    mkdir "$own$entry"
    mount --rbind "$entry" "$own$entry"
done
mkdir -p "$own/opt/hpc"
mount --bind "$environments" "$own/opt/hpc"
mkdir -p "$own/opt/slurm_magics"
mount --bind "$state/slurm_magics" "$own/opt/slurm_magics"
mount --rbind "$own/opt" /opt

mount --bind "$state/mysql" /var/lib/mysql
mount -t tmpfs -o mode=755 tmpfs /var/log

# The hub stands outside: its files are not on the cluster. From here on the state folder may be out of
# sight already, because people keep their checkouts in /home or /root.
mount --bind "$state/home" /home
if [ -d /home/jana ]; then
    # Full to the last byte and the last inode.
    mount -t tmpfs -o "size=64k,nr_inodes=16,mode=700,uid=$(id -u jana),gid=$(id -g jana)" tmpfs /home/jana
    number=0
    while touch "/home/jana/file$number" 2>/dev/null; do number=$((number + 1)); done
    head -c 128k /dev/zero >/home/jana/file0 2>/dev/null || true
fi
mount -t tmpfs -o mode=700 tmpfs /root
if [ -d "$state" ]; then mount -t tmpfs -o mode=700 tmpfs "$state"; fi
echo ready
exec sleep infinity
