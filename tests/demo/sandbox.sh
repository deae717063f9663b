# A container as Docker gives it, from namespaces: folders of its own to write to, one network
# interface beside lo, and no CAP_SYS_ADMIN. Arguments: an empty folder for what is written; the command.
set -eu
own=$1
shift
mount -t tmpfs -o mode=755 tmpfs "$own"
mkdir "$own/work"
for folder in etc home opt run var/lib var/tmp; do
    mkdir -p "$own/$folder" "$own/work/$folder"
    if ! mount -t overlay -o "lowerdir=/$folder,upperdir=$own/$folder,workdir=$own/work/$folder" overlay \
        "/$folder" 2>/dev/null; then
        cp -a "/$folder/." "$own/$folder"
        mount --bind "$own/$folder" "/$folder"
    fi
done
hostname container
ip link set lo up
ip link add eth0 type veth peer name far
ip addr add 192.0.2.2/24 dev eth0
ip link set eth0 up
ip link set far up
echo "192.0.2.2 container" >>/etc/hosts
exec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin -- "$@"
