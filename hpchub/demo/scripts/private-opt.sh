# Shows a folder as /opt/hpc in a private mount namespace, beside what the machine's /opt holds, and
# runs a command there. Arguments: the folder, the command.
set -eu
folder=$1
shift
own=$(mktemp -d)
mount -t tmpfs -o mode=755 tmpfs "$own"
for entry in /opt/*; do
    [ -d "$entry" ] || continue
    mkdir "$own/${entry#/opt/}"
    mount --rbind "$entry" "$own/${entry#/opt/}"
done
mkdir -p "$own/hpc"
mount --bind "$folder" "$own/hpc"
mount --rbind "$own" /opt
umount -l "$own"
rmdir "$own"
exec "$@"
