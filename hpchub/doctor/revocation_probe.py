"""Revokes the doctor's own login, and waits until every login node refuses it: is the list fetched there?"""

from __future__ import annotations

import asyncio
import getpass
import time
from collections.abc import Iterable

from hpchub.bridge.sessions import Sessions
from hpchub.core.certificate import Profile
from hpchub.core.cluster import Cluster, LoginNode
from hpchub.doctor.report import Finding, Report, Verdict
from hpchub.errors import AccountProblem, HpchubError, UnexpectedOutput
from hpchub.signer.client import SignerClient
from hpchub.ssh.connect import known_host_keys, log_in
from hpchub.ssh.credentials import Credential
from hpchub.ssh.limits import Limits

# A timer of a minute, with some room. The certificates that are tried live for five at least.
LIMIT_S = 150.0
PAUSE_S = 2.0
_WRITE = "Have the node fetch the list, and name it in RevokedKeys (docs/howto/revocation.md)."


async def check_revocation(
    report: Report, signer: SignerClient, sessions: Sessions, clusters: Iterable[Cluster], user: str
) -> None:
    """Try one certificate for each cluster, on each of its login nodes, from the revocation on."""
    tried = [
        (cluster, node, await sessions.credential(user, Profile.CONTROL, cluster.principal))
        for cluster in clusters
        for node in cluster.login_nodes
    ]
    fingerprint = tried[0][2].certificate.key.get_fingerprint()
    rows = (await signer.sessions()).logins
    # Any certificate of a login stands for all of it. The key is revoked too, and no other login has it.
    serials = [
        one["serial"] for row in rows if row["fingerprint"] == fingerprint for one in row["certificates"]
    ]
    if not serials:
        raise UnexpectedOutput("the signer", "a list of logins without the doctor's own")
    await signer.revoke(serials[0], reason="hpchub doctor", by=getpass.getuser())
    began = time.monotonic()
    findings = await asyncio.gather(*(_refused(*one, user, began) for one in tried))
    for finding in findings:
        report.add(finding)


async def _refused(
    cluster: Cluster, node: LoginNode, credential: Credential, user: str, began: float
) -> Finding:
    """When a node refuses what was revoked; every try before that is a good login, and no mark against us."""
    what = f"{cluster.name} {node.name} revocation"
    keys = known_host_keys(cluster.known_hosts, node)
    while True:
        elapsed = time.monotonic() - began
        try:
            connection = await log_in(user, node, keys, credential.key, credential.certificate, Limits())
        except AccountProblem:
            return Finding(Verdict.OK, what, f"a revoked certificate was refused after {elapsed:.0f} s")
        except HpchubError as error:
            return Finding(Verdict.FAILED, what, error.message, error.hint)
        connection.close()
        await connection.wait_closed()
        if elapsed >= LIMIT_S:
            found = f"a revoked certificate is let in after {elapsed:.0f} s."
            return Finding(Verdict.MISSING, what, found, _WRITE)
        await asyncio.sleep(PAUSE_S)
