"""The settings of `kind = "oidc"`: what they may say, and what is named as a fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpchub.errors import ConfigError
from hpchub.signer.oidc_settings import OidcSettings, is_safe_url
from hpchub.signer.settings import load_settings

HEAD = """
socket = "signer.sock"
state_dir = "state"
audit_log = "audit.log"
source_addresses = ["192.0.2.1"]
"""
PROOF = """
[proof]
kind = "oidc"
issuer = "https://login.example.org/realms/site"
client_id = "hpchub"
"""


def load(folder: Path, proof: str, head: str = HEAD) -> OidcSettings:
    file = folder / "signer.toml"
    file.write_text(head + proof)
    found = load_settings(file).proof.oidc
    assert found is not None
    return found


def faults(folder: Path, proof: str, head: str = HEAD) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, proof, head)
    return "\n".join(caught.value.problems)


def test_the_least(tmp_path: Path) -> None:
    """Issuer, client and whose account: the rest has defaults."""
    found = load(tmp_path, PROOF + 'account_claim = "preferred_username"\n')
    assert found == OidcSettings(
        issuer="https://login.example.org/realms/site",
        client_id="hpchub",
        account_claim="preferred_username",
    )
    assert (found.scopes, found.max_age_s) == (("openid", "profile"), 0)


def test_everything(tmp_path: Path) -> None:
    """Every key, and a maximum age of an hour where a second factor is wanted and no age is named."""
    text = """account_claim = "email"
account_suffix = "@example.org"
account_pattern = "[a-z]{3}[0-9]{3}"
scopes = ["openid", "email"]
other_audiences = ["portal"]
ca_file = "ca.pem"
acr_values = ["https://refeds.org/profile/mfa"]
min_uid_number = 1000
groups_claim = "groups"
groups = ["/hpc users"]
timeout_s = 3
"""
    found = load(tmp_path, PROOF + text)
    assert found.max_age_s == 3600
    assert found.ca_file == tmp_path / "ca.pem"
    assert found.account_pattern is not None
    assert found.account_pattern.fullmatch("abc123")
    assert not found.account_pattern.fullmatch("abc\u0661\u0662\u0663")
    assert load(tmp_path, PROOF + text + 'max_age = "00:05:00"\n').max_age_s == 300
    by_file = load(tmp_path, PROOF + 'account_file = "subjects"\n')
    assert by_file.account_file == tmp_path / "subjects"


@pytest.mark.parametrize(
    ("proof", "fault"),
    [
        (PROOF, "exactly one"),
        (PROOF + 'account_claim = "sub"\naccount_file = "x"\n', "exactly one"),
        (PROOF + 'account_claim = "sub"\naccount_function = "a.b:c"\n', "exactly one"),
        (PROOF + 'account_file = "x"\naccount_suffix = "@a"\n', "nothing without account_claim"),
        (PROOF + 'account_file = "x"\naccount_pattern = "a"\n', "nothing without account_claim"),
        (PROOF + 'account_claim = "sub"\naccount_pattern = "("\n', "no regular expression"),
        (PROOF + 'account_function = "os.system"\n', "account_function"),
        (PROOF + 'account_claim = "sub"\ngroups = ["a"]\n', "only together"),
        (PROOF + 'account_claim = "sub"\ngroups_claim = "a"\n', "only together"),
        (PROOF + 'account_claim = "sub"\nscopes = ["profile"]\n', "must hold openid"),
        (PROOF + 'account_claim = "sub"\nmax_age = "00:00:10"\n', "is not from"),
        (PROOF + 'account_claim = "sub"\nalgorithms = ["HS256"]\n', "no key 'algorithms'"),
        (PROOF.replace("https", "http") + 'account_claim = "sub"\n', "must begin with https"),
        (PROOF.replace("https://", "https://user@") + 'account_claim = "sub"\n', "issuer"),
        (
            PROOF + 'account_claim = "sub"\n[second_factor]\nrequired = "all"\n',
            "is the OpenID provider's",
        ),
    ],
)
def test_faults(tmp_path: Path, proof: str, fault: str) -> None:
    """What would be ambiguous, unsafe or without effect is refused, and named."""
    assert fault in faults(tmp_path, proof)


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://login.example.org", True),
        ("http://127.0.0.1:8000/x", True),
        ("http://[::1]:8000/x", True),
        ("http://login.example.org", False),
        ("http://localhost", False),
        ("http://127.0.0.1.example.org", False),
        ("http://169.254.169.254/", False),
        ("file:///etc/passwd", False),
        ("https://", False),
        ("https://user@login.example.org", False),
        ("https://login.example.org/#x", False),
        ("https://[", False),
        ("", False),
    ],
)
def test_addresses(url: str, safe: bool) -> None:
    """TLS, or this machine alone: nothing that somebody on the way could change."""
    assert is_safe_url(url) is safe
