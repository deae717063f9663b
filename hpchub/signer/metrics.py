"""What the signer counts. docs/howto/monitoring.md explains each name.

Each attempt is counted where it is recorded, so the numbers and the audit log agree.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector

from hpchub.audit import Event, Record
from hpchub.core.certificate import Profile
from hpchub.signer.guessing import Limit

# argon2id takes 50 ms; a PAM stack with a directory server far away takes seconds.
_PROOF_BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class SignerMetrics:
    """One signer's numbers, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._logins = Counter(
            "hpchub_signer_logins_total",
            "Attempts to log in, by outcome: granted, refused, or error where nobody could tell",
            ("outcome",),
            registry=self.registry,
        )
        self._limited = Counter(
            "hpchub_signer_logins_limited_total",
            "Attempts to log in that were refused because of failures before, by what had failed",
            ("limit",),
            registry=self.registry,
        )
        for limit in Limit:
            self._limited.labels(limit.value)
        self._certificates = Counter(
            "hpchub_signer_certificates_total",
            "Requests for a certificate, by profile and outcome",
            ("profile", "outcome"),
            registry=self.registry,
        )
        self.audit_failures = Counter(
            "hpchub_signer_audit_failures_total",
            "Attempts that could not be recorded, and so were granted nothing",
            registry=self.registry,
        )
        self.proof_seconds = Histogram(
            "hpchub_signer_proof_seconds",
            "How long it took to check a password, in seconds, the wait for a turn included",
            buckets=_PROOF_BUCKETS,
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)

    def count(self, record: Record) -> None:
        """One attempt, as the audit log has it."""
        if record.event is Event.LOGIN:
            self._logins.labels(record.outcome.value).inc()
            for limit in Limit:
                if record.reason.startswith(limit.reason):
                    self._limited.labels(limit.value).inc()
        elif record.event is Event.CERTIFICATE:
            # What was asked for may be any text; a label may not.
            profile = record.profile if record.profile in set(Profile) else "unknown"
            self._certificates.labels(profile, record.outcome.value).inc()
