"""Delays between the attempts of a call."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, field

from .errors import VisageError

INITIAL_DELAY, MAX_DELAY = 0.1, 5.0


@dataclass
class Backoff:
    """Delays between attempts, and the time limit of all attempts."""

    # Seconds without contact after which the error is raised.
    patience: float
    failures: int = 0
    silent_since: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Restarts the time limit, at the first attempt and after each message of the server."""
        self.failures, self.silent_since = 0, time.monotonic()

    def delay_after(self, error: VisageError, limit: float = math.inf) -> float:
        """Returns the delay in seconds before the next attempt, at least the server's retry delay.

        Raises errors that are not retryable, and others after `patience` or `limit` seconds without contact.
        """
        refused = not error.is_of_the_connection and error.retry_delay is None
        remaining = min(self.patience, limit) - (time.monotonic() - self.silent_since)
        if refused or remaining <= 0:
            raise error
        delay: float = min(MAX_DELAY, INITIAL_DELAY * 2.0**min(self.failures, 10))
        self.failures += 1
        # Random, so that the clients of a restarted server do not all reconnect at once. The last
        # attempt is at the end of the time limit.
        return max(error.retry_delay or 0.0, min(delay * random.uniform(0.5, 1.0), remaining))
