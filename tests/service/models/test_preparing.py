"""service.models.preparing: graphs in memory while threads are chosen."""

from pathlib import Path

import pytest

from service.contract import spec
from service.models.choices import Choices
from service.models.kinds import AnyRuntime, seconds_of_one
from service.models.preparing import Preparation
from service.runtime import Session
from tests import contract2
from tests.contract2 import ACTIVITY, POOLED
from tests.contract2_graphs import Net

CHOICES = Choices("cpu", "fp32", 2, 1, "thread", slots=8, chunk=4, chunk_rows=8)


def is_released(runtime: Session) -> bool:
    return not hasattr(runtime, "_session")


@pytest.mark.parametrize("is_faster", [True, False], ids=["two threads are faster", "one thread is enough"])
@pytest.mark.parametrize(("limit", "num_released"), [(0, (1, 2)), (1 << 30, (0, 0))], ids=["large", "small"])
@pytest.mark.parametrize("net", [ACTIVITY, POOLED], ids=lambda net: net.name)
def test_large_graph_is_in_memory_once_at_a_time(
    net: Net,
    limit: int,
    num_released: tuple[int, int],
    is_faster: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.models.preparing._LARGE_BYTES", limit)
    monkeypatch.setattr("service.models.preparing.is_clearly_less", lambda *_: is_faster)
    loaded: list[AnyRuntime] = []

    class Noting(Preparation):
        def _runtime(self, model: spec.ModelSpec, graph: bytes, threads: int) -> AnyRuntime:
            if limit == 0:
                assert all(map(is_released, loaded))
            loaded.append(super()._runtime(model, graph, threads))
            return loaded[-1]

    prepared = Noting(CHOICES).run(contract2.export(net, tmp_path))
    assert sum(map(is_released, loaded)) == num_released[0 if is_faster else 1]
    assert not is_released(prepared.runtime)
    assert seconds_of_one(prepared.spec, prepared.runtime) > 0
