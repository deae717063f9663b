# Makes one host inside namespaces of its own, then holds them as their PID 1. Argument: its name.
set -eu
hostname "$1"
for folder in /tmp /var/tmp /dev/shm; do mount -t tmpfs -o mode=1777 tmpfs "$folder"; done
for folder in /run /var/spool; do mount -t tmpfs -o mode=755 tmpfs "$folder"; done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts /dev/pts
mount --bind /dev/pts/ptmx /dev/ptmx
sh /etc/hpchub/folders.sh /run /var/spool

# A host joins two networks at most and carries nothing from one to the other.
echo 0 >/proc/sys/net/ipv4/ip_forward
if [ -e /proc/sys/net/ipv6/conf/all/forwarding ]; then echo 0 >/proc/sys/net/ipv6/conf/all/forwarding; fi
echo ready
# A shell reaps the orphans that come to PID 1; `sleep` alone would not.
while :; do sleep 86400; done
