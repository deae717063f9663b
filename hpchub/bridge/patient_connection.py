"""A psycopg connection that waits for an answer only so long: for a server that is connected and silent.

A server whose disk hangs, or whose machine is frozen, still takes what we send, and TCP's own limits see
nothing wrong. Whoever waits for it would wait for ever, and so would all who start a server.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.pq import TransactionStatus

LONGEST_ANSWER_S = 20.0


class PatientConnection(psycopg.Connection[Any]):
    """Closes itself where an answer takes longer than LONGEST_ANSWER_S seconds."""

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """As psycopg's own.

        Raises:
            psycopg.OperationalError: There was no answer, and the connection is closed.
        """
        try:
            return super().wait(gen, interval, LONGEST_ANSWER_S if timeout is None else timeout)
        except psycopg.OperationalError as error:
            if self.pgconn.transaction_status is not TransactionStatus.ACTIVE:
                raise
            self.pgconn.finish()  # an answer that comes later must not be taken for another's
            raise psycopg.OperationalError("it has not answered for too long") from error
