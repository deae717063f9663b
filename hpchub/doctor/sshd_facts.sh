# Tells what this machine's sshd would do with USER who logs in from ADDRESS. As root; it changes nothing.
#   sh sshd_facts.sh USER ADDRESS [OPTION-OF-SSHD...]
# Each line is a word and what it says; hpchub/doctor/sshd_facts.py reads them.
set -u
user=$1 address=$2
shift 2
sshd=$(command -v sshd || echo /usr/sbin/sshd)

# Every line of standard input, after a word.
say() { awk -v word="$1" '{ print word " " $0 }'; }

# Owner, mode, kind and name of a path and of every folder above it, links followed.
walk() {
    word=$1 path=$(readlink -f -- "$2") || path=$2
    while :; do
        stat -c '%u %a %F|%n' -- "$path" 2>/dev/null | say "$word"
        case $path in / | . | '') break ;; esac
        path=$(dirname -- "$path")
    done
}

echo "user $user"
echo "address $address"
ssh -V 2>&1 | head -n 1 | say version
settings=$("$sshd" -T -C "user=$user,host=$address,addr=$address" "$@" 2>&1)
if [ $? -ne 0 ]; then
    printf '%s\n' "$settings" | say fault
    exit 0
fi
printf '%s\n' "$settings" | say setting
value() { printf '%s\n' "$settings" | sed -n "s/^$1 //p" | head -n 1; }

ca=$(value trustedusercakeys)
if [ -n "$ca" ] && [ "$ca" != none ]; then cat -- "$ca" 2>/dev/null | say ca; fi

home=$(getent passwd "$user" | cut -d: -f6)
uid=$(getent passwd "$user" | cut -d: -f3)
expand() { sed "s|%%|\\n|g; s|%u|$user|g; s|%h|$home|g; s|%U|$uid|g; s|\\n|%|g"; }

principals=$(value authorizedprincipalsfile | expand)
command=$(value authorizedprincipalscommand)
case $principals in none | '') ;; *)
    echo "principals_path $principals"
    walk principals_walk "$principals"
    cat -- "$principals" 2>/dev/null | say principal
    command=none
    ;;
esac
# Asked as sshd would ask it, unless it wants to see the certificate.
case $command in none | '' | *%[!uhU%]*) ;; *)
    set -f
    set -- $(printf '%s\n' "$command" | expand)
    echo "principals_path $1"
    walk principals_walk "$1"
    as=$(value authorizedprincipalscommanduser)
    setpriv --reuid="$as" --regid="$(id -g -- "$as")" --clear-groups -- "$@" 2>/dev/null </dev/null |
        say principal
    ;;
esac

krl=$(value revokedkeys)
case $krl in none | '') ;; *)
    walk krl_walk "$krl"
    if [ ! -f "$krl" ]; then
        echo "krl absent"
    elif [ ! -s "$krl" ]; then
        echo "krl empty"
    elif [ "$(head -c 6 -- "$krl")" != SSHKRL ]; then
        echo "krl text"
    elif ssh-keygen -Q -l -f "$krl" >/dev/null 2>&1; then
        echo "krl good"
    else
        echo "krl broken"
    fi
    echo "krl_age_s $(($(date +%s) - $(stat -L -c %Y -- "$krl" 2>/dev/null || date +%s)))"
    ;;
esac
