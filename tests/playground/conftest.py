"""What tests of pages share; each starts once in a run.

- `repository` (Path): the models that the server serves: those that ship, and the small untrained ones of
  SEQUENCES. A page that needs another model exports it here, in this fixture, before the server starts.
- `served` (ServerProcess): the server of these models; `served.address` is its address.
- `playground` (str): URL of `seqserve playground` for that server, a process of its own.
- `browser` (Browser): a headless Chromium at the playground, see tests/playground/browsing.py. Its tests are
  skipped where Chromium or selenium is missing. They fail at their end on an error in the console, and on a
  request to another host. `browser.shot(name)` keeps a screenshot in runs/playground/.
- `user` (nicegui.testing.User): a simulated browser at the pages, which run in the process of the tests, for
  the same server. It needs no browser.

All tests here are coroutines, those of the browser too: pytest-asyncio ends its event loop, and with it the
server, between a test that is one and a test that is not.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.contract2 import ACTIVITY, BEGUN, BOTH_WAYS, TAGS, TOPICS, VANILLA, WORD_TAGS, export
from tests.contract2_graphs import Layer, Net
from tests.integration.process import ServerProcess
from tests.playground.browsing import Browser, copy_shipped, make_driver, playground_process

# A label that would change the title of a page that took it for HTML, of a model for every kind of character.
LABEL = "<img src=x onerror=document.title='hacked'>"
HOSTILE = Net(
    "hostile",
    (Layer("gru", 4),),
    len(set(LABEL)),
    2,
    {
        "text": {"kind": "characters", "vocabulary": "".join(dict.fromkeys(LABEL))},
        "output": {"kind": "logits", "steps": "every", "labels": [LABEL, "other"], "exclusive": False},
    },
    takes_tokens=True,
)
# A class, a label a character and a word, several labels, an embedding, an init graph, and both directions.
SEQUENCES = (ACTIVITY, TAGS, WORD_TAGS, TOPICS, VANILLA, BEGUN, BOTH_WAYS, HOSTILE)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of models that the server serves."""
    folder = copy_shipped(tmp_path_factory.mktemp("playground") / "models")
    for net in SEQUENCES:
        export(net, folder)
    return folder


@pytest_asyncio.fixture(scope="session")
async def served(repository: Path) -> AsyncIterator[ServerProcess]:
    """The server."""
    async with ServerProcess(repository) as server:
        yield server


@pytest_asyncio.fixture(scope="session")
async def playground(served: ServerProcess) -> AsyncIterator[str]:
    """The playground's URL."""
    async with playground_process(served.address) as url:
        yield url


@pytest.fixture(scope="session")
def driver() -> Iterator[Any]:
    """The browser itself, for all tests."""
    driver = make_driver()
    yield driver
    driver.quit()


@pytest.fixture
def browser(driver: Any, playground: str) -> Iterator[Browser]:
    """A browser at the playground, watched for errors and for requests to other hosts."""
    browser = Browser(driver, playground)
    browser.reset()
    yield browser
    browser.assert_clean()


@pytest_asyncio.fixture
async def user(served: ServerProcess) -> AsyncIterator[Any]:
    """A simulated browser at the pages."""
    from tests.playground.simulated import simulated_user  # noqa: PLC0415 - it imports NiceGUI

    async with simulated_user(served.address) as user:
        yield user
