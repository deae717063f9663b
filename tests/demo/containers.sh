# docker-compose.slurm.yml without an engine: builds "the image" in this mount namespace, starts each
# service's command in namespaces of its own, joins them as compose would, and tries the hub.
# Argument: a folder for logs. Environment: PYTHON and CHECKOUT, where it is. /opt/hpc is there already.
set -eu
own=$1
here=$(dirname "$0")
mkdir "$own/image"
mount -t tmpfs -o mode=755 tmpfs "$own/image"
for folder in etc home var/lib; do
    mkdir -p "$own/image/$folder" "$own/image/work/$folder"
    mount -t overlay -o "lowerdir=/$folder,upperdir=$own/image/$folder,workdir=$own/image/work/$folder" \
        overlay "/$folder"
done
find /var/lib/mysql -mindepth 1 -delete
"$PYTHON" -m hpchub.demo.container build >&2
mount -t tmpfs -o mode=755 tmpfs /srv
mkdir /srv/cluster /srv/meeting

for network in fabric edge; do
    ip link add name "$network" type bridge stp_state 0 forward_delay 0
    ip link set "$network" up
done

# Arguments: its name, then "network address" for each network.
container() {
    name=$1
    shift
    unshare --mount --propagation private --uts --ipc --net --pid --fork --kill-child --mount-proc \
        sh -euc '
            hostname "$1"
            for folder in /run /var/spool /var/log; do mount -t tmpfs -o mode=755 tmpfs "$folder"; done
            mkdir /run/checkout
            mount --bind "$CHECKOUT" /run/checkout
            mount -t tmpfs -o mode=1777 tmpfs /tmp
            mkdir -p "$CHECKOUT"  # it may lie under /tmp
            mount --bind /run/checkout "$CHECKOUT"
            mkdir /run/layer /run/layer/up /run/layer/work
            mount -t overlay -o lowerdir=/etc,upperdir=/run/layer/up,workdir=/run/layer/work overlay /etc
            mkdir /var/lib/hpchub-demo 2>/dev/null || true
            mount -t tmpfs -o mode=755 tmpfs /var/lib/hpchub-demo
            ip link set lo up
            until [ -e /run/joined ]; do sleep 0.05; done
            exec "$PYTHON" -m hpchub.demo.container "$1"
        ' sh "$name" >"$own/$name.log" 2>&1 &
    pid=$!
    until [ "$(readlink "/proc/$pid/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
    until [ "$(nsenter -t "$pid" --uts --mount hostname)" = "$name" ]; do sleep 0.02; done
    while [ $# -gt 0 ]; do
        ip link add name "$1-$name" type veth peer name "$1" netns "$pid"
        ip link set "$1-$name" master "$1" up
        nsenter -t "$pid" --net ip addr add "$2/24" dev "$1"
        nsenter -t "$pid" --net ip link set "$1" up
        shift 2
    done
    until nsenter -t "$pid" --mount sh -c '[ -d /run/layer/work/work ] && touch /run/joined'; do sleep 0.02; done
}
container ctl fabric 10.77.0.1
container c1 fabric 10.77.0.21
container c2 fabric 10.77.0.22
container login1 fabric 10.77.0.11 edge 10.78.0.11
container login2 fabric 10.77.0.12 edge 10.78.0.12
container hub edge 10.78.0.1
nsenter -t "$pid" --mount --net -- "$PYTHON" "$here/inside_sandbox.py" --containers /var/lib/hpchub-demo
