"""A real OpenLDAP: Debian's slapd with a folder, an authority and people of its own, on loopback ports."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support import require
from support.certificates import make_certificates
from support.ports import free_ports, listens
from support.servers import until

BASE = "dc=example,dc=org"
PEOPLE = f"ou=people,{BASE}"
STAFF_DN = f"cn=hpchub,{BASE}"
STAFF_PASSWORD = "canary-staff-90"
PASSWORD = "canary-ldap-äß-91"

_CONF = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload ppolicy
moduleload memberof
allow bind_anon_cred
access to attrs=userPassword by anonymous auth
access to * by users read by anonymous auth
{tls}
database mdb
suffix {base}
directory {folder}/data
maxsize 10485760
overlay ppolicy
overlay memberof
"""

_TLS = """\
TLSCACertificateFile {folder}/ca.pem
TLSCertificateFile {folder}/server.pem
TLSCertificateKeyFile {folder}/server.key
"""

_TREE = f"""\
dn: {BASE}
objectClass: domain
dc: example

dn: {PEOPLE}
objectClass: organizationalUnit
ou: people

dn: ou=more,{BASE}
objectClass: organizationalUnit
ou: more

dn: ou=groups,{BASE}
objectClass: organizationalUnit
ou: groups

dn: ou=away,{BASE}
objectClass: referral
objectClass: extensibleObject
ou: away
ref: ldap://127.0.0.1:@REFERRAL_PORT@/ou=away,{BASE}

dn: uid=rita,{PEOPLE}
objectClass: referral
objectClass: extensibleObject
uid: rita
ref: ldap://127.0.0.1:@REFERRAL_PORT@/uid=rita,{PEOPLE}

dn: {STAFF_DN}
objectClass: applicationProcess
objectClass: simpleSecurityObject
cn: hpchub
userPassword: {STAFF_PASSWORD}

dn: cn=short,{BASE}
objectClass: device
objectClass: pwdPolicy
cn: short
pwdAttribute: userPassword
pwdMaxAge: 86400

dn: cn=locking,{BASE}
objectClass: device
objectClass: pwdPolicy
cn: locking
pwdAttribute: userPassword
pwdLockout: TRUE

dn: cn=hpc,ou=groups,{BASE}
objectClass: posixGroup
cn: hpc
gidNumber: 30001
memberUid: alice

dn: cn=team,ou=groups,{BASE}
objectClass: groupOfNames
cn: team
member: uid=bob,{PEOPLE}
member: cn=D\\,oe \\+ (*) \\"Jo\\",{PEOPLE}
"""

# Whose DN does not begin with uid.
_ODD_NAMES = {"jdoe": r"cn=D\,oe \+ (*) \"Jo\""}

# Number, folder, and lines besides those of everybody.
_PEOPLE = {
    "alice": (20001, PEOPLE, "employeeType: asmith"),
    "bob": (20002, PEOPLE, f"memberOf: cn=team,ou=groups,{BASE}"),
    "carol": (20003, PEOPLE, f"pwdPolicySubentry: cn=locking,{BASE}\npwdAccountLockedTime: 000001010000Z"),
    "dora": (
        20004,
        PEOPLE,
        f"pwdPolicySubentry: cn=short,{BASE}\npwdChangedTime: 20200101000000Z",
    ),
    "erin": (20005, PEOPLE, "shadowExpire: 1"),
    "frank": (20006, PEOPLE, "shadowExpire: -1"),
    "Henry": (20007, PEOPLE, ""),
    "low": (999, PEOPLE, ""),
    "zero": (0, PEOPLE, ""),
    "mallory": (20008, PEOPLE, "employeeType: root"),
    "double": (20009, PEOPLE, "uid: second"),
    "\uff47reta": (20010, PEOPLE, ""),  # the directory takes a full-width g for a g
    "jdoe": (20013, PEOPLE, ""),
    "twin": (20011, PEOPLE, ""),
    "twin ": (20012, f"ou=more,{BASE}", ""),
}


@dataclass(frozen=True, slots=True)
class Directory:
    """A running slapd. It refers to `referral_port`; `other_ca` is an authority that it knows nothing of."""

    folder: Path
    plain_port: int
    tls_port: int
    referral_port: int

    @property
    def ldap(self) -> str:
        return f"ldap://127.0.0.1:{self.plain_port}"

    @property
    def ldaps(self) -> str:
        return f"ldaps://127.0.0.1:{self.tls_port}"

    @property
    def ldapi(self) -> str:
        return f"ldapi://{self.folder}/ldapi"

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def other_ca(self) -> Path:
        return self.folder / "other_ca.pem"

    def log(self) -> list[str]:
        """What it was asked and what it answered, one line each."""
        return (self.folder / "log").read_text().splitlines()


@contextmanager
def a_directory(folder: Path, *, tls: bool = True) -> Iterator[Directory]:
    """slapd in the foreground, ended by its id; without `tls` it knows neither ldaps nor StartTLS.

    Args:
        folder: An empty one of its own, with a short path: there is a socket in it.
        tls: Whether it has a certificate.
    """
    require.programs("slapd", "slapadd")
    found = Directory(folder, *free_ports(3))
    (folder / "data").mkdir()
    make_certificates(folder)
    conf = folder / "slapd.conf"
    conf.write_text(_CONF.format(tls=_TLS.format(folder=folder) if tls else "", base=BASE, folder=folder))
    subprocess.run(
        ["/usr/sbin/slapadd", "-q", "-f", str(conf)],
        input=_ldif(found.referral_port),
        text=True,
        check=True,
        capture_output=True,
    )
    urls = [found.ldap, f"ldapi://{str(folder / 'ldapi').replace('/', '%2F')}"]
    urls += [found.ldaps] if tls else []
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["/usr/sbin/slapd", "-d", "stats", "-f", str(conf), "-h", " ".join(urls)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        until(lambda: listens(folder / "ldapi") or process.poll() is not None, "slapd listens", 20)
        assert process.poll() is None, (folder / "log").read_text()
        yield found
    finally:
        process.terminate()
        process.wait()


def _ldif(referral_port: int) -> str:
    entries = [_TREE.replace("@REFERRAL_PORT@", str(referral_port))]
    for name, (number, parent, more) in _PEOPLE.items():
        lines = [
            f"dn: {_ODD_NAMES.get(name, f'uid={name.strip()}')},{parent}",
            *(f"objectClass: {kind}" for kind in ("inetOrgPerson", "posixAccount", "shadowAccount")),
            "cn: x",
            "sn: x",
            f"uidNumber: {number}",
            "gidNumber: 30000",
            "homeDirectory: /nowhere",
            f"userPassword: {PASSWORD}",
            f"uid: {name.strip()}",  # last, so that a second one comes beside it
        ]
        entries.append("\n".join([*lines, more] if more else lines) + "\n")
    return "\n".join(entries)
