#!/bin/sh
# Runs a command in a private mount namespace where /etc/passwd, /etc/shadow, /etc/group and /etc/pam.d
# are those of a folder, and /run/sshd is empty. The machine's own stay as they are.
#   namespace.sh FOLDER COMMAND...
set -eu
folder=$1
shift
export folder
exec unshare --mount --propagation private sh -euc '
    for name in passwd shadow group pam.d; do
        mount --bind "$folder/$name" "/etc/$name"
    done
    mount -t tmpfs -o mode=0755 tmpfs /run
    mkdir -m 0755 /run/sshd
    unset folder
    exec "$@"
' namespace "$@"
