"""A real Kerberos: MIT's krb5kdc from Debian with a realm, a folder and people of its own, on loopback."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support import require
from support.ports import free_ports
from support.servers import until

REALM = "HPCHUB.TEST"
SERVICE = "hpchub/hub.example.org"
HTTP_SERVICE = "HTTP/hub.example.org"
OTHER_REALM = "OTHER.TEST"  # the site's KDC trusts it: alice has a namesake there
PASSWORD = "canary-krb-äß-92"

KRB5_CONF = """\
[libdefaults]
default_realm = {realm}
dns_lookup_kdc = false
dns_lookup_realm = false
dns_canonicalize_hostname = false
[realms]
{realm} = {{
    kdc = 127.0.0.1:{port}
}}
OTHER.TEST = {{
    kdc = 127.0.0.1:{port}
}}
[domain_realm]
hub.example.org = {realm}
"""

_KDC_CONF = """\
[kdcdefaults]
kdc_listen = 127.0.0.1:{port}
kdc_tcp_listen = 127.0.0.1:{port}
[realms]
{realm} = {{
    database_name = {folder}/principal
    key_stash_file = {folder}/stash
    acl_file = {folder}/kadm5.acl
}}
[logging]
kdc = FILE:{folder}/log
"""

_PEOPLE = f"""\
add_policy -maxfailure 1 once
add_principal -pw "{{password}}" +requires_preauth alice
add_principal -pw "{{password}}" +requires_preauth alice/admin
add_principal -pw "{{password}}" bob
add_principal -pw "{{password}}" +requires_preauth -allow_tix carol
add_principal -pw "{{password}}" +requires_preauth -expire "2020-01-01" dora
add_principal -pw "{{password}}" +requires_preauth -pwexpire "2020-01-01" erin
add_principal -pw "{{password}}" +requires_preauth -policy once gina
add_principal -pw "{{password}}" +requires_preauth Henry
add_principal -randkey {SERVICE}
ktadd -k {{folder}}/keytab {SERVICE}
add_principal -randkey {HTTP_SERVICE}
ktadd -k {{folder}}/http.keytab {HTTP_SERVICE}
add_principal -randkey HTTP/localhost
ktadd -k {{folder}}/http.keytab HTTP/localhost
add_principal -pw "{{password}}" alice@{OTHER_REALM}
add_principal -randkey krbtgt/{OTHER_REALM}@{OTHER_REALM}
add_principal -randkey krbtgt/{REALM}@{OTHER_REALM}
"""


@dataclass(frozen=True, slots=True)
class Kdc:
    """A running KDC. `keytab` has the key of SERVICE; `krb5_conf` leads to it."""

    folder: Path
    port: int

    @property
    def krb5_conf(self) -> Path:
        return self.folder / "krb5.conf"

    @property
    def keytab(self) -> Path:
        return self.folder / "keytab"

    @property
    def http_keytab(self) -> Path:
        """Has the keys of HTTP_SERVICE and of HTTP/localhost."""
        return self.folder / "http.keytab"

    def log(self) -> list[str]:
        """What it was asked and what it answered."""
        return (self.folder / "log").read_text().splitlines()


@contextmanager
def a_kdc(folder: Path, password: str = PASSWORD) -> Iterator[Kdc]:
    """krb5kdc in the foreground, ended by its id.

    Args:
        folder: An empty one of its own.
        password: Everybody's.
    """
    require.programs("krb5kdc", "kdb5_util", "kadmin.local")
    found = Kdc(folder, *free_ports(1))
    values = {"realm": REALM, "port": found.port, "folder": folder}
    found.krb5_conf.write_text(KRB5_CONF.format(**values))
    (folder / "kdc.conf").write_text(_KDC_CONF.format(**values))
    for name in ("kadm5.acl", "log"):
        (folder / name).touch()
    environ = os.environ | {
        "KRB5_CONFIG": str(found.krb5_conf),
        "KRB5_KDC_PROFILE": str(folder / "kdc.conf"),
        "KRB5RCACHENAME": f"dfl:{folder}/rcache",
        "LANG": "C.UTF-8",
    }

    def run(*argv: str, typed: str = "") -> None:
        done = subprocess.run(argv, env=environ, input=typed, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    run("/usr/sbin/kdb5_util", "-r", REALM, "create", "-s", "-P", "a master key's password")
    run("/usr/sbin/kadmin.local", "-r", REALM, typed=_PEOPLE.format(password=password, folder=folder))
    process = subprocess.Popen(
        ["/usr/sbin/krb5kdc", "-n", "-r", REALM],
        env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(lambda: "commencing" in "".join(found.log()) or process.poll() is not None, "a KDC", 10)
        assert process.poll() is None, found.log()
        yield found
    finally:
        process.terminate()
        process.wait()
