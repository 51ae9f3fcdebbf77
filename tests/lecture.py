"""The lecture's models, trained once for all tests that look at them."""

from functools import cache

import torch

from training.lecture import dynamic, longseq, recital, stock
from training.networks.network import Cell

CELLS: tuple[Cell, ...] = ("rnn", "lstm", "gru")
SEED = 0


@cache
def hihello(cell: Cell) -> recital.Recital:
    torch.set_num_threads(1)
    return recital.teach_hihello(cell, SEED)


@cache
def charseq(cell: Cell) -> recital.Recital:
    torch.set_num_threads(1)
    return recital.teach_charseq(cell, SEED)


@cache
def net_of_windows(cell: Cell, layers: int, *, has_head: bool) -> longseq.Net:
    torch.set_num_threads(1)
    return longseq.train(cell, SEED, layers, has_head=has_head)


def contest(cell: Cell) -> longseq.Contest:
    """The two nets that the lecture speaks of."""
    return longseq.Contest(
        [net_of_windows(cell, 1, has_head=False), net_of_windows(cell, 2, has_head=True)], SEED
    )


@cache
def words(cell: Cell) -> dynamic.Padded:
    torch.set_num_threads(1)
    return dynamic.teach(cell, SEED)


@cache
def market(cell: Cell) -> stock.Market:
    """The levels are those of the cheapest cell: they are looked at, not served."""
    torch.set_num_threads(1)
    history = stock.read_history()
    return stock.Market(history, levels(), stock.train_changes(history, cell, SEED), SEED)


@cache
def levels() -> stock.Forecaster:
    torch.set_num_threads(1)
    return stock.train_levels(stock.read_history(), "rnn", SEED)
