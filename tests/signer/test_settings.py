"""Settings are read strictly: each fault is named with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpchub.errors import ConfigError
from hpchub.signer.factor_settings import FactorKind
from hpchub.signer.guessing import GuessLimits
from hpchub.signer.policy import TerminalPolicy
from hpchub.signer.settings import ProofKind, load_settings
from hpchub.signer.webauthn_settings import UserVerification, WebAuthnSettings

GOOD = """\
socket = "run/signer.sock"
state_dir = "/var/lib/hpchub/signer"
audit_log = "audit.jsonl"
source_addresses = ["192.0.2.7", "2001:db8::/64"]
[proof]
kind = "password-file"
file = "passwords"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "signer.toml"
    path.write_text(text)
    return path


def test_defaults_and_relative_paths(tmp_path: Path) -> None:
    """Ten minutes, twelve hours; relative paths count from the file's folder."""
    settings = load_settings(write(tmp_path, GOOD))
    assert settings.socket == tmp_path / "run/signer.sock"
    assert settings.state_dir == Path("/var/lib/hpchub/signer")
    assert settings.proof.file == tmp_path / "passwords"
    assert settings.policy.certificate_lifetime_s == 600
    assert settings.policy.login_ceiling_s == 43200
    assert settings.policy.source_addresses == ("192.0.2.7/32", "2001:db8::/64")


def test_terminals(tmp_path: Path) -> None:
    """None unless the table is there; then a day at most, from anywhere unless the site says from where."""
    assert load_settings(write(tmp_path, GOOD)).policy.terminal is None
    usual = load_settings(write(tmp_path, f"{GOOD}[terminal]\n")).policy.terminal
    assert usual == TerminalPolicy(
        lifetime_s=8 * 3600, port_forwarding=True, source_addresses=(), principal="{account}"
    )
    strict = 'lifetime = "01:00:00"\nport_forwarding = false\nsource_addresses = ["192.0.2.0/24"]\n'
    forms = 'principals = ["hpchub:{account}", "terminal:{account}"]\n'
    text = f'{forms}{GOOD}[terminal]\n{strict}principal = "terminal:{{account}}"\n'
    assert load_settings(write(tmp_path, text)).policy.terminal == TerminalPolicy(
        lifetime_s=3600,
        port_forwarding=False,
        source_addresses=("192.0.2.0/24",),
        principal="terminal:{account}",
    )
    for bad in (
        'lifetime = "24:00:01"',
        "source_addresses = []",
        'source_addresses = ["::/0"]',
        "pty = true",
        'principal = "terminal:{account}"',
    ):
        with pytest.raises(ConfigError, match="terminal"):
            load_settings(write(tmp_path, f"{GOOD}[terminal]\n{bad}\n"))


def test_pam(tmp_path: Path) -> None:
    """PAM needs a service's name."""
    text = GOOD.replace('"password-file"', '"pam"').replace('file = "passwords"', 'service = "hpchub"')
    settings = load_settings(write(tmp_path, text))
    assert (settings.proof.kind, settings.proof.service) == (ProofKind.PAM, "hpchub")


def test_ldap(tmp_path: Path) -> None:
    """A directory's settings stand beside its kind."""
    ldap = 'servers = ["ldaps://a"]\nca_file = "ca.pem"\nuser_dn = "uid={account},o=x"'
    text = GOOD.replace('"password-file"', '"ldap"').replace('file = "passwords"', ldap)
    proof = load_settings(write(tmp_path, text)).proof
    assert proof.ldap is not None
    assert (proof.kind, proof.ldap.ca_file) == (ProofKind.LDAP, tmp_path / "ca.pem")


def test_kerberos(tmp_path: Path) -> None:
    """A realm, a service and its keytab; the machine's own krb5.conf unless another is named."""
    kerberos = 'realm = "EXAMPLE.ORG"\nservice = "hpchub/hub.example.org"\nkeytab = "hub.keytab"'
    text = GOOD.replace('"password-file"', '"kerberos"').replace('file = "passwords"', kerberos)
    proof = load_settings(write(tmp_path, text)).proof
    assert proof.kerberos is not None
    assert (proof.kind, proof.kerberos.keytab) == (ProofKind.KERBEROS, tmp_path / "hub.keytab")
    assert proof.kerberos.krb5_conf == Path("/etc/krb5.conf")


def test_principals(tmp_path: Path) -> None:
    """The account's own name unless the site has forms; the first is the usual one."""
    assert load_settings(write(tmp_path, GOOD)).policy.principals == ("{account}",)
    settings = load_settings(write(tmp_path, 'principals = ["hpchub:{account}", "{account}"]\n' + GOOD))
    assert settings.policy.principals == ("hpchub:{account}", "{account}")


def test_query_accounts(tmp_path: Path) -> None:
    """None unless the site names them."""
    assert load_settings(write(tmp_path, GOOD)).policy.query_accounts == ()
    settings = load_settings(write(tmp_path, 'query_accounts = ["slurmwatch", "w2"]\n' + GOOD))
    assert settings.policy.query_accounts == ("slurmwatch", "w2")


def test_guessing(tmp_path: Path) -> None:
    """Every number has a default; those that are given are taken."""
    assert load_settings(write(tmp_path, GOOD)).guessing == GuessLimits()
    text = GOOD + '[guessing]\nfree_tries = 3\nwindow = "02:00:00"\nknown_for = "30-00:00:00"\n'
    found = load_settings(write(tmp_path, text)).guessing
    assert found == GuessLimits(free_tries=3, window_s=7200, known_for_s=30 * 24 * 3600)


def test_audit_and_revocation_list(tmp_path: Path) -> None:
    """Neither rotation nor syslog nor a list's file unless the site names them."""
    settings = load_settings(write(tmp_path, GOOD))
    assert (settings.audit_rotate_mb, settings.audit_syslog, settings.krl_file) == (0, None, None)
    more = 'audit_rotate_mb = 100\naudit_syslog = "/dev/log"\nkrl_file = "krl/revoked_keys"\n'
    settings = load_settings(write(tmp_path, more + GOOD))
    assert (settings.audit_rotate_mb, settings.audit_syslog) == (100, Path("/dev/log"))
    assert settings.krl_file == tmp_path / "krl/revoked_keys"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("[proof]", '[second_factor]\nrequired = "maybe"\n[proof]', "'maybe' is not one of none, some, all"),
        ("[proof]", '[second_factor]\nrequired = "some"\n[proof]', "Write groups or users"),
        (
            "[proof]",
            '[second_factor]\nrequired = "all"\nusers = ["alice"]\n[proof]',
            "second_factor.users: says nothing",
        ),
        (
            "[proof]",
            '[second_factor]\nrequired = "some"\nusers = ["root"]\n[proof]',
            "'root' is no account that may log in",
        ),
        ("[proof]", '[second_factor]\nissuer = "a:b"\n[proof]', "second_factor.issuer"),
        ("[proof]", '[second_factor]\nkinds = ["sms"]\n[proof]', "second_factor.kinds"),
        ("[proof]", '[second_factor]\nkinds = ["webauthn"]\n[proof]', "write [second_factor.webauthn]"),
        ("[proof]", "[second_factor.webauthn]\n[proof]", "rp_id: is missing"),
        ("[proof]", '[second_factor.webauthn]\nrp_id = "Hub"\n[proof]', "rp_id"),
        (
            "[proof]",
            '[second_factor.webauthn]\nrp_id = "a.org"\norigins = ["https://b.org"]\n[proof]',
            "https://b.org is not within a.org",
        ),
        (
            "[proof]",
            '[second_factor.webauthn]\nrp_id = "a.org"\norigins = ["http://a.org"]\n[proof]',
            "only over https",
        ),
        (
            "[proof]",
            '[second_factor.webauthn]\nrp_id = "a.org"\norigins = ["https://a.org/hub"]\n[proof]',
            "second_factor.webauthn.origins",
        ),
        (
            "[proof]",
            '[second_factor.webauthn]\nrp_id = "a.org"\nuser_verification = "no"\n[proof]',
            "required, preferred, discouraged",
        ),
        ("[proof]", '[second_factor]\nrequires = "all"\n[proof]', "did you mean 'required'?"),
        ("[proof]", "[guessing]\nfree_tries = 0\n[proof]", "guessing.free_tries: 0 is not a whole number"),
        ("[proof]", "[guessing]\nper_account = 101\n[proof]", "from 5 to 100"),
        ("[proof]", "[guessing]\nper_adress = 60\n[proof]", "did you mean 'per_address'?"),
        ("[proof]", '[guessing]\nlongest_wait = "00:00:30"\n[proof]', "is not from 00:01:00 to 24:00:00"),
        (
            "[proof]",
            '[guessing]\nfirst_wait = "00:05:00"\nlongest_wait = "00:01:00"\n[proof]',
            "guessing.first_wait: is longer than longest_wait",
        ),
        ("socket", "audit_rotate_mb = -1\nsocket", "audit_rotate_mb: -1 is not a whole number"),
        ("socket", "krl_file = true\nsocket", "krl_file: "),
        ("socket", "audit_syslog = 5\nsocket", "audit_syslog: "),
        ("socket", 'query_accounts = ["root"]\nsocket', "query_accounts: 'root' is no account"),
        ("socket", 'query_accounts = ["a,b"]\nsocket', "query_accounts: 'a,b' is no account"),
        ("socket", 'query_accounts = "w"\nsocket', "query_accounts: 'w' is not a list"),
        ("socket", 'principals = ["hpchub-{account}"]\nsocket', "principals: 'hpchub-{account}' is no form"),
        ("socket", 'principals = ["root"]\nsocket', "principals: 'root' is no form"),
        ("socket", "principals = []\nsocket", "principals: is empty"),
        ("socket", "query_account = []\nsocket", "did you mean 'query_accounts'?"),
        (
            "socket",
            "sockett",
            "signer.toml:1: sockett: there is no key 'sockett' here; did you mean 'socket'?",
        ),
        ("state_dir", "statedir", "state_dir: is missing"),
        ("audit_log", "audit", "audit_log: is missing"),
        ("source_addresses", "source_address", "did you mean 'source_addresses'?"),
        ('["192.0.2.7", "2001:db8::/64"]', "[]", "signer.toml:4: source_addresses: is empty"),
        ("192.0.2.7", "0.0.0.0/0", "every address"),
        ("192.0.2.7", "::/0", "every address"),
        ("192.0.2.7", "192.0.2.7/24", "host bits"),
        ("192.0.2.7", "localhost", "source_addresses"),
        ("192.0.2.7", "1.2.3.4,5.6.7.8", "source_addresses"),
        ("[proof]", "[prof]", "proof: is missing"),
        ("[proof]", "[prof]", "there is no key 'prof' here; did you mean 'proof'?"),
        ('kind = "password-file"', 'kind = "ldp"', "is not one of password-file, pam, ldap, kerberos"),
        ('kind = "password-file"', 'kind = "ldap"', "proof.servers: must name 1 to 4 servers"),
        ('kind = "password-file"', 'kind = "ldap"', "proof.file: there is no key 'file' here"),
        ('kind = "password-file"', 'kind = "kerberos"', "proof.realm: is missing"),
        ('kind = "password-file"', 'kind = "kerberos"', "proof.keytab: is missing"),
        (
            'kind = "password-file"',
            'kind = "kerberos"\nservice = "host"',
            "proof.service: 'host' may hold only",
        ),
        (
            'kind = "password-file"',
            'kind = "kerberos"\nrealm = "A@B"',
            "proof.realm: 'A@B' may hold only",
        ),
        ('kind = "password-file"', 'kind = "pam"', "proof.file: there is no key 'file' here"),
        ('kind = "password-file"', 'kind = "pam"', "proof.service: is missing"),
        ("file =", "service =", "proof.file: is missing"),
        ("[proof]", 'certificate_lifetime = "00:16:00"\n[proof]', "is not from 00:05:00 to 00:15:00"),
        ("[proof]", 'certificate_lifetime = "00:04:59"\n[proof]', "is not from 00:05:00 to 00:15:00"),
        ("[proof]", "certificate_lifetime = 600\n[proof]", "is not a text"),
        ("[proof]", 'login_ceiling = "400:00:00"\n[proof]', "is not from 00:15:00 to 168:00:00"),
    ],
)
def test_faults_are_named(tmp_path: Path, old: str, new: str, problem: str) -> None:
    """Missing, unknown, empty and boundless values: one line each, with the nearest valid key."""
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, GOOD.replace(old, new, 1)))
    assert any(problem in found for found in caught.value.problems), caught.value.problems


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The error names the file."""
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path / "none.toml")
    assert "none.toml" in str(caught.value)


def test_security_keys(tmp_path: Path) -> None:
    """Kinds and pages as they are written; without pages, the domain's own over https."""
    head = (
        '[second_factor]\nkinds = ["webauthn", "totp"]\n[second_factor.webauthn]\nrp_id = "hub.example.org"\n'
    )
    found = load_settings(write(tmp_path, GOOD + head)).second_factor
    assert found.kinds == (FactorKind.WEBAUTHN, FactorKind.TOTP)
    assert found.webauthn == WebAuthnSettings(rp_id="hub.example.org", origins=("https://hub.example.org",))
    pages = 'origins = ["https://hub.example.org:8443", "https://a.hub.example.org"]\n'
    pages += 'user_verification = "required"\n'
    found = load_settings(write(tmp_path, GOOD + head + pages)).second_factor
    assert found.webauthn == WebAuthnSettings(
        rp_id="hub.example.org",
        origins=("https://hub.example.org:8443", "https://a.hub.example.org"),
        user_verification=UserVerification.REQUIRED,
    )
    assert load_settings(write(tmp_path, GOOD)).second_factor.kinds == (FactorKind.TOTP,)
