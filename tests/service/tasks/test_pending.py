"""service.tasks.pending: the bound holds, and no client keeps another out."""

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Overloaded
from service.tasks.pending import Pending


def test_place_is_free_again_after_its_run_even_if_that_fails() -> None:
    pending = Pending("model", 1)
    for _ in range(3):
        with pytest.raises(ValueError, match="run"), pending.place("one"):
            raise ValueError("run")
    with pending.place("one"), pytest.raises(Overloaded, match="found 1 and 1 more"), pending.place("one"):
        pass


@given(st.lists(st.integers(0, 4), max_size=60), st.integers(1, 12))
def test_client_is_refused_only_with_its_share_once_the_bound_is_reached(
    clients: list[int], bound: int
) -> None:
    pending, admitted = Pending("model", bound), dict.fromkeys(range(5), 0)
    with ExitStack() as stack:
        for client in clients:
            num_clients = sum(map(bool, admitted.values())) + (not admitted[client])
            may = sum(admitted.values()) < bound or admitted[client] < bound // num_clients
            if may:
                stack.enter_context(pending.place(str(client)))
                admitted[client] += 1
            else:
                with pytest.raises(Overloaded):
                    stack.enter_context(pending.place(str(client)))
    assert sum(admitted.values()) <= 3 * bound
    with pending.place("late"):
        pass
