"""Converts many random networks, judges each by its module, and prints what came out.

    python -m tests.training.convert.many 500 --first 0 --dynamo 10

The dynamo exporter takes seconds a network, and freezes time from its second export in a process on, so that
each runs in a process of its own. Exit status 1: a conversion was accepted that is not the network.
"""

import argparse
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from itertools import count as count_from
from itertools import islice
from json import dumps, loads

import torch

from tests.training.convert.foreign_networks import random_plan
from tests.training.convert.judging import Verdict, judged

_SHOWN = 12


def main() -> int:
    """Convert, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="number of networks")
    parser.add_argument("--first", type=int, default=0, help="seed of the first one")
    parser.add_argument("--dynamo", type=int, default=0, help="number of those exported by torch.export")
    parser.add_argument("--one", choices=["legacy", "dynamo"], help="print the verdict on the first as JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.one:
        print(dumps(asdict(judged(random_plan(given.first), given.one))))
        return 0
    found = dict(verdicts(given.first, given.count, given.dynamo))
    for line in table(found):
        print(line)
    return 1 if any(one.is_wrong for one in found.values()) else 0


def verdicts(first: int, count: int, dynamo: int) -> Iterator[tuple[str, Verdict]]:
    """Yield the verdict on each network by the name of its exporter and its seed."""
    for seed in range(first, first + count):
        yield f"legacy {seed}", judged(random_plan(seed))
    for seed in islice(filter(suits_dynamo, count_from(first)), dynamo):
        yield f"dynamo {seed}", in_child(seed)


def suits_dynamo(seed: int) -> bool:
    """Return True if torch.export takes the network: no packs, no RNN, no time that comes first."""
    plan = random_plan(seed)
    return not (plan.has_lengths or plan.is_time_first or any(one.kind == "rnn" for one in plan.blocks))


def in_child(seed: int) -> Verdict:
    """Judge a network that the dynamo exporter writes in a process of its own."""
    command = [sys.executable, "-m", "tests.training.convert.many", "1", "--first", str(seed)]
    ran = subprocess.run([*command, "--one", "dynamo"], capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        return Verdict("crashed", float("inf"), ran.stderr[-200:])
    return Verdict(**loads(ran.stdout.splitlines()[-1]))


def table(found: dict[str, Verdict]) -> Iterator[str]:
    """Yield lines: rungs with their largest differences, the reasons of refusals, and what is wrong."""
    rungs: defaultdict[str, list[float]] = defaultdict(list)
    for one in found.values():
        rungs[one.rung].append(one.difference)
    for rung, differences in sorted(rungs.items()):
        yield f"{rung:<22} {len(differences):>4}   largest difference {max(differences):.1e}"
    reasons = Counter(one.reason[:110] for one in found.values() if one.reason)
    for reason, times in reasons.most_common(_SHOWN):
        yield f"  {times:>3} x {reason}"
    for name, one in found.items():
        if one.is_wrong:
            yield f"WRONG {name}: {one.rung}, {one.difference:.1e}"


if __name__ == "__main__":
    sys.exit(main())
