"""The calls of a panel, which end with it, and refused files."""

import asyncio
from typing import cast

from seqserve.playground.context import Alert, Call, Context, Tab
from seqserve.playground.server import Server
from seqserve.playground.uploads import FileRefusedError
from seqserve.playground.work import Work


class ScriptedAlert:
    """An alert without a page."""

    text = ""

    def show(self, text: str) -> None:
        self.text = text

    def clear(self) -> None:
        self.text = ""


class ScriptedTab:
    """A tab without a browser."""

    def start(self, call: Call) -> asyncio.Task[None]:
        return asyncio.ensure_future(call)


def context() -> Context:
    return Context(cast(Server, None), cast(Tab, ScriptedTab()), cast(Alert, ScriptedAlert()))


async def test_a_refused_file_is_a_sentence_and_the_next_action_clears_it() -> None:
    page = context()
    panel = Work(page)

    async def refused() -> None:
        raise FileRefusedError("a.csv: expected a column close, found none")

    async def accepted() -> None:
        pass

    await panel.start(refused())
    assert page.alert.text == "a.csv: expected a column close, found none"
    panel.action(accepted)()
    assert page.alert.text == ""


async def test_cancelling_a_panel_cancels_its_calls_alone() -> None:
    page = context()
    panel, other = Work(page), Work(page)
    begun = asyncio.Barrier(3)

    async def hangs() -> None:
        await begun.wait()
        await asyncio.Event().wait()

    running, kept = panel.start(hangs()), other.start(hangs())
    await begun.wait()
    panel.cancel()
    await asyncio.wait([running])
    assert (running.cancelled(), kept.done()) == (True, False)
    kept.cancel()
