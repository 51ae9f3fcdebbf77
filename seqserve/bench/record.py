"""Counts and latencies of the calls of one run; times are plain numbers, without clock or network access."""

import math
from collections import Counter
from dataclasses import dataclass, field

from seqserve.bench.histogram import Histogram

OK = "OK"


@dataclass(slots=True)
class Call:
    """One call; all times are seconds of one clock.

    Attributes:
        due: Scheduled send time, from which the latency is measured.
        sent: Actual send time.
        ended: Time of the complete answer, or of the failure.
        code: OK, or the code of the failure; empty while in flight, and if the run ended before the call.
        message: Message of the failure.
        arrivals: Arrival time and number of tokens of each message of a stream.
    """

    due: float
    sent: float = math.nan
    ended: float = math.nan
    code: str = ""
    message: str = ""
    arrivals: list[tuple[float, int]] = field(default_factory=list)


@dataclass(slots=True)
class Record:
    """Counts and histograms of the calls that were due within the measurement window.

    Throughput counts what arrived within the window, regardless of when it was sent.

    Attributes:
        opens: Start of the window, in seconds of the calls' clock.
        closes: End of the window; infinite until it is known.
        goal_s: Maximum latency of a good answer in seconds.
        calls: Calls that were due in the window, unsent ones included.
        begun: Calls sent, warm-up included.
        ended: Calls that ended, warm-up included.
        good: Calls answered within `goal_s`.
        unsent: Calls not sent because too many were in flight.
        failures: Number of failures by code.
        messages: First failure message of each code.
        last_due: Scheduled time of the last call due in the window.
        last_ended: End of the last call that was due in the window.
        answers: Answers that arrived within the window.
        tokens: Tokens that arrived within the window.
        latency: Seconds from scheduled time to complete answer, of answered calls.
        failing: Seconds from scheduled time to failure, of failed calls.
        first_token: Seconds from scheduled time to the first token.
        between_tokens: Seconds between two messages divided by the tokens of the later one, once per token.
        stream_rate: Tokens per second after the first message, one value per stream.
        lag: Seconds by which the load generator itself was late.
    """

    opens: float
    closes: float = math.inf
    goal_s: float = math.inf
    calls: int = 0
    begun: int = 0
    ended: int = 0
    good: int = 0
    unsent: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    messages: dict[str, str] = field(default_factory=dict)
    last_due: float = math.nan
    last_ended: float = math.nan
    answers: int = 0
    tokens: int = 0
    latency: Histogram = field(default_factory=Histogram)
    failing: Histogram = field(default_factory=Histogram)
    first_token: Histogram = field(default_factory=Histogram)
    between_tokens: Histogram = field(default_factory=Histogram)
    stream_rate: Histogram = field(default_factory=Histogram)
    lag: Histogram = field(default_factory=Histogram)

    @property
    def in_flight(self) -> int:
        """Number of calls in flight."""
        return self.begun - self.ended

    @property
    def answered(self) -> int:
        """Number of calls due in the window that were answered."""
        return self.latency.count

    @property
    def failed(self) -> int:
        """Number of calls due in the window that failed."""
        return self.failures.total()

    @property
    def unfinished(self) -> int:
        """Number of calls due in the window that were in flight when the run was cancelled."""
        return self.calls - self.answered - self.failed - self.unsent

    def plan(self, due: float) -> bool:
        """Count a call that is due.

        Returns:
            Whether it is due within the window.
        """
        if not self.opens <= due < self.closes:
            return False
        self.calls += 1
        self.last_due = due
        return True

    def skip(self, due: float) -> None:
        """Count a due call that is not sent."""
        if self.opens <= due < self.closes:
            self.unsent += 1

    def begin(self) -> None:
        """Count a call that is sent."""
        self.begun += 1

    def end(self, call: Call) -> None:
        """Record a call that ended or was cancelled."""
        self.ended += 1
        self.tokens += sum(tokens for at, tokens in call.arrivals if self.opens <= at < self.closes)
        if call.code == OK and self.opens <= call.ended < self.closes:
            self.answers += 1
        if not self.opens <= call.due < self.closes:
            return
        self._add_tokens(call)
        if not call.code:
            return
        self.last_ended = call.ended
        latency_s = call.ended - call.due
        if call.code == OK:
            self.latency.add(latency_s)
            self.good += latency_s <= self.goal_s
        else:
            self.failing.add(latency_s)
            self.failures[call.code] += 1
            self.messages.setdefault(call.code, call.message)

    def close(self, at: float) -> None:
        """End the window at `at`, unless it ended before."""
        self.closes = min(self.closes, at)

    def _add_tokens(self, call: Call) -> None:
        if not call.arrivals:
            return
        first, _ = before = call.arrivals[0]
        self.first_token.add(first - call.due)
        for at, tokens in call.arrivals[1:]:
            self.between_tokens.add((at - before[0]) / tokens, tokens)
            before = (at, tokens)
        if call.code == OK and before[0] > first:
            self.stream_rate.add(sum(tokens for _, tokens in call.arrivals[1:]) / (before[0] - first))
