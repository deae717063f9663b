# Records what hpchub/doctor/sshd_facts.sh tells of this machine's sshd, at both levels, beside this file:
#   sh tests/golden/capture_sshd.sh
# As root; in a mount namespace with an /etc/ssh and a /run of its own. The account is Debian's `games`.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
script=$here/../../hpchub/doctor/sshd_facts.sh
version=$(ssh -V 2>&1 | sed 's/^OpenSSH_\([0-9.]*\).*/\1/')
export here script version
mkdir -p "$here/sshd"
exec unshare --mount --propagation private sh -euc '
    mount -t tmpfs -o mode=0755 tmpfs /run
    mount -t tmpfs -o mode=0755 tmpfs /etc/ssh
    mkdir -m 0755 /run/sshd /etc/ssh/hpchub_principals
    cd /etc/ssh
    for key in host_key ca; do ssh-keygen -q -t ed25519 -N "" -C "" -f "$key"; done
    mv ca.pub hpchub_ca.pub
    ssh-keygen -q -k -f hpchub_revoked_keys
    echo "from=\"192.0.2.10\",restrict,port-forwarding,permitlisten=\"none:1\" hpchub:games" >hpchub_principals/games
    cat >one_line <<END
HostKey /etc/ssh/host_key
TrustedUserCAKeys /etc/ssh/hpchub_ca.pub
END
    cat one_line - >strict <<END
AuthorizedPrincipalsFile /etc/ssh/hpchub_principals/%u
RevokedKeys /etc/ssh/hpchub_revoked_keys
PermitRootLogin no
END
    for level in one_line strict; do
        sh "$script" games 192.0.2.10 -f "/etc/ssh/$level" >"$here/sshd/$level-$version.txt"
    done
'
