"""What became of the calls of one run. Knows times as numbers, and neither clocks nor the network."""

import math
from collections import Counter
from dataclasses import dataclass, field

from seqserve.bench.histogram import Histogram

OK = "OK"


@dataclass(slots=True)
class Call:
    """One call; times are seconds of one clock.

    Attributes:
        due: when it was to be sent; the moment from which its latency counts.
        sent: when it was.
        ended: when its answer was whole, or it failed.
        code: OK, or what it failed with; empty while it is under way, and where the run ended before it.
        message: of the failure.
        arrivals: messages of a stream: when each came, and how many tokens it brought.
    """

    due: float
    sent: float = math.nan
    ended: float = math.nan
    code: str = ""
    message: str = ""
    arrivals: list[tuple[float, int]] = field(default_factory=list)


@dataclass(slots=True)
class Record:
    """Counts and histograms of the calls that were due within the window; throughput is what arrived within
    it, whenever it was asked for.

    Attributes:
        opens, closes: the window, in the clock of the calls; `closes` is infinite until it is known.
        goal_s: an answer later than this after its due moment is no good one.
        calls: were due, the unsent ones among them.
        begun: calls of all, warm-up included, that were sent.
        ended: calls of all that have come to their end.
        good: answered in time.
        unsent: not sent, since too many were under way.
        failures: by code.
        messages: the first one of each code.
        last_due, last_ended: of the calls that were due within the window.
        answers, tokens: arrived within the window.
        latency: due to whole answer, of those answered.
        failing: due to failure, of those that failed.
        first_token: due to the first token.
        between_tokens: a message's wait after the one before, divided by its tokens, once for each token.
        stream_rate: tokens a second after the first message, one number a stream.
        lag: by how much the load generator itself was late.
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
    def outstanding(self) -> int:
        """Calls under way now."""
        return self.begun - self.ended

    @property
    def answered(self) -> int:
        """Calls that were due within the window and have their answer."""
        return self.latency.count

    @property
    def failed(self) -> int:
        """Calls that were due within the window and failed."""
        return self.failures.total()

    @property
    def unfinished(self) -> int:
        """Calls that were due within the window and were under way when the run was broken off."""
        return self.calls - self.answered - self.failed - self.unsent

    def plan(self, due: float) -> bool:
        """A call falls due.

        Returns:
            Whether it is within the window, and counted.
        """
        if not self.opens <= due < self.closes:
            return False
        self.calls += 1
        self.last_due = due
        return True

    def skip(self, due: float) -> None:
        """A call that has been planned is not sent."""
        if self.opens <= due < self.closes:
            self.unsent += 1

    def begin(self) -> None:
        """A call is sent."""
        self.begun += 1

    def end(self, call: Call) -> None:
        """A call has ended, or was broken off."""
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
        """The window ends here, if it has not ended before."""
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
