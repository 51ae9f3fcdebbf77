"""The pages in the test's own process, with a simulated browser."""

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from nicegui import core, ui
from nicegui.elements.mixins.value_element import ValueElement
from nicegui.testing import User
from nicegui.testing.general import nicegui_reset_globals, prepare_simulation

from seqserve.playground.app import install
from seqserve.playground.server import Target

# Of a link that is opened, which a page asks its browser for.
_FRAGMENT = re.compile(r"window\.location\.hash")
_VARIABLE = "NICEGUI_USER_SIMULATION"


@asynccontextmanager
async def simulated_user(address: str) -> AsyncIterator[User]:
    """Serve the pages for a server without a socket, and yield a user who may open them."""
    navigate, notify, download = ui.navigate, ui.notify, ui.download
    with nicegui_reset_globals():
        os.environ[_VARIABLE] = "true"
        try:
            prepare_simulation()
            install(Target(address))
            ui.run(storage_secret="simulated secret")
            async with core.app.router.lifespan_context(core.app):
                transport = httpx.ASGITransport(core.app)
                async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                    user = User(client)
                    user.javascript_rules[_FRAGMENT] = lambda _: ""
                    yield user
        finally:
            os.environ.pop(_VARIABLE)
            ui.navigate, ui.notify, ui.download = navigate, notify, download


def fill(user: User, label: str, value: Any) -> None:
    """Set the value of the control that has a label."""
    [control] = [one for one in user.find(label).elements if isinstance(one, ValueElement)]
    control.set_value(value)
