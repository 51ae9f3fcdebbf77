"""Which commands of the pages are run, and which are not and why. A new one is a line here; a line that fits
no command any more fails a test.
"""

import re
from dataclasses import dataclass
from typing import Final

_OWN_DATA: Final = "names files of the reader's own; tests/training trains on data of its own"
_VERSIONS: Final = "names versions of the reader's own, and writes; tests/training does the same to tiny ones"
_CLUSTER: Final = "changes a cluster, and there is none; the tests of deploy/ check the files"
_CONTAINER: Final = "needs a container tool and a registry; tests/image runs what is built"
_INSTALLS: Final = "writes where Grafana reads; the tests of deploy/ check the files"
_LESSONS: Final = (
    "needs all lessons; tests/training/lecture teaches them, and tests/integration/test_lecture.py asks them"
)
_SHAPES: Final = (
    "needs all shapes, trained for minutes; "
    "tests/training/shapes trains them small, and tests/integration/test_shapes.py asks them"
)
_LANGUAGE: Final = "needs the tools of another language; tests/clients runs the same where they are"
_OWN_MODEL: Final = (
    "asks a model of the reader's own; tests/seqserve/test_cli_follow.py follows files and pipes with one"
)
_PACKAGE: Final = "would change the environment of the tests; tests/deploy/test_wheel.py installs the wheel"
_RELEASE: Final = "makes a release; tests/docs/test_release.py makes one of copies of the files"
_SERVES: Final = "serves until it is stopped; tests/integration starts it for every test"


# The folder that a page trains into and then serves.
OWN_MODELS: Final = "mine"


@dataclass(frozen=True, slots=True)
class Exempt:
    """Commands that begin with `start`.

    Attributes:
        start: of the command, everywhere on the pages.
        why: it is not run.
        instead: what is run in place of `start`, the rest of the command unchanged; "": nothing.
    """

    start: str
    why: str
    instead: str = ""


EXEMPT: Final = (
    Exempt("make ", "makes environments, serves, or runs this very test", instead="make --dry-run "),
    Exempt(".venv/bin/python -m training generate ", _OWN_DATA),
    Exempt(".venv/bin/python -m training classify ", _OWN_DATA),
    Exempt(".venv/bin/python -m training forecast ", _OWN_DATA),
    Exempt(".venv/bin/python -m training series ", _OWN_DATA),
    Exempt(".venv/bin/python -m training label ", _OWN_DATA),
    Exempt(".venv/bin/python -m training charlm ", _VERSIONS),
    Exempt(
        ".venv/bin/python -m training convert ",
        "names files of the reader's own; those of docs/convert.md are made there, and run",
    ),
    Exempt(
        ".venv/bin/torchrun ",
        (
            "starts several processes on data or machines of the reader's own; "
            "tests/training/loop/test_parallel.py starts two"
        ),
    ),
    Exempt("tail -n +1 sensors.csv | seqserve infer activity ", _OWN_MODEL),
    Exempt("seqserve infer activity --follow ", _OWN_MODEL),
    Exempt(".venv/bin/python -m training card ", _VERSIONS),
    Exempt(".venv/bin/python -m training compare ", _VERSIONS),
    Exempt(".venv/bin/python -m training normalize ", _VERSIONS),
    Exempt(".venv/bin/python -m training promote ", _VERSIONS),
    Exempt(
        f"SEQSERVE_REPOSITORY={OWN_MODELS} make serve",
        "the commands below it are answered by a server of that folder, which the test starts",
    ),
    Exempt(".venv/bin/python -m training lecture --pictures ", _LESSONS),
    Exempt("SEQSERVE_REPOSITORY=lecture make serve", _SERVES),
    Exempt("seqserve generate --model hihello ", _LESSONS),
    Exempt("seqserve generate --model longseq ", _LESSONS),
    Exempt("seqserve forecast --model stock --last 7 ", _LESSONS),
    Exempt(".venv/bin/python -m training shapes", _SHAPES),
    Exempt("SEQSERVE_REPOSITORY=runs/shapes make serve", _SERVES),
    Exempt("seqserve generate --model alphabet ", _SHAPES),
    Exempt("seqserve generate --model digits ", _SHAPES),
    Exempt("seqserve classify --model majority ", _SHAPES),
    Exempt("seqserve score --model wave ", _SHAPES),
    Exempt("seqserve generate --model dates ", _SHAPES),
    Exempt(
        "python3 -m venv triton ",
        "installs 60 MB; make test does the same for tests/integration/test_tritonclient.py",
    ),
    Exempt("pip install ./dist/", _PACKAGE),
    Exempt("pip install './dist/", _PACKAGE),
    Exempt("python3 -m venv trial", _PACKAGE),
    Exempt("trial/bin/", _PACKAGE),
    Exempt("git ", _RELEASE),
    Exempt(".venv/bin/python -m tools.release ", _RELEASE),
    Exempt("pip install perf-analyzer", "would change the environment of the tests"),
    Exempt(
        "perf_analyzer ",
        "needs a newer libc; tests/integration/test_triton_sequences.py starts it where it can",
    ),
    Exempt("python -m service --grpc-address ", _SERVES),
    Exempt(".venv/bin/seqserve playground ", _SERVES),
    Exempt("SEQSERVE_GRPC_ADDRESS=127.0.0.1:50052 ", _SERVES),
    Exempt(
        "cp -r build/charlm/7 ", "names folders of the reader's own; tests/integration/test_reload.py does it"
    ),
    Exempt("SEQSERVE_TOKENS=tokens ", _SERVES),
    Exempt("docker ", _CLUSTER),
    Exempt("kind ", _CLUSTER),
    Exempt("kubectl ", _CLUSTER),
    Exempt("helm ", _CLUSTER),
    Exempt("openssl rand -hex 32 > mine/keys", "writes into an overlay of the reader's own"),
    Exempt("cp deploy/grafana/", _INSTALLS),
    Exempt("install -D -m 644 deploy/grafana/", _INSTALLS),
    Exempt(
        "pip install --constraint constraints.txt '.[serve,traces]'",
        "would change the environment of the tests",
    ),
    Exempt("SEQSERVE_TRACES_ENDPOINT=", _SERVES),
    Exempt("podman ", _CONTAINER),
    Exempt("apt-get install ", "installs the tools of another language"),
    Exempt("npm install ", "installs the packages of another language"),
    Exempt("cd deploy/envoy && ", "runs until it is stopped; tests/integration/test_envoy.py starts it"),
    Exempt(
        "curl http://localhost:8081/", "needs Envoy; tests/integration/test_envoy.py sends the same requests"
    ),
    Exempt("npm ci ", "installs the packages of another language"),
    Exempt(
        "python3 -m http.server ", "serves until it is stopped; tests/integration/browser.py serves the page"
    ),
    Exempt("npm run ", _LANGUAGE),
    Exempt(
        ".venv-ray/bin/python examples/ray/",
        "names folders of the reader's own, and needs an environment of 600 MB; make bulk-test runs it",
    ),
    Exempt("node examples/clients/", _LANGUAGE),
    Exempt("sh examples/clients/", _LANGUAGE),
    Exempt("GRPC_GO_RETRY=on runs/go/client", _LANGUAGE),
    Exempt("cmake ", _LANGUAGE),
    Exempt("runs/cpp/client", _LANGUAGE),
    Exempt("java ", _LANGUAGE),
    Exempt("protoc ", "generates into a folder of the reader's own; tests/seqserve/test_protos.py compiles"),
    Exempt("nginx -p ", "runs until it is stopped; tests/integration/test_nginx.py starts it"),
)


# Nothing else is run unseen: a page may name commands that change a cluster or delete files.
PROGRAMS: Final = (
    ".venv/bin/python",
    "cat",
    "curl",
    "export",
    "grpcurl",
    "head",
    "printf",
    "python",
    "seqserve",
    "tail",
)
_FIRST_WORD: Final = re.compile(r"(?:[A-Z_]+=\$\(|[A-Z_]+=\S* )?([^\s()]+)")


def program(text: str) -> str:
    """The first program that a command names; of `NAME=$(program ...)` and `NAME=value program`, too."""
    found = _FIRST_WORD.match(text)
    return found[1] if found else ""


def serves_own_models(text: str) -> bool:
    """Whether the commands below it speak to a server of `OWN_MODELS`."""
    return text.startswith(f"SEQSERVE_REPOSITORY={OWN_MODELS} make serve")


def exemption(text: str) -> Exempt | None:
    """Why a command is not run, or None if it is."""
    return next((one for one in EXEMPT if text.startswith(one.start)), None)


def runnable(text: str) -> str:
    """What is run for a command; "": nothing."""
    found = exemption(text)
    if found is None:
        return text if program(text) in PROGRAMS else ""
    return found.instead + text.removeprefix(found.start) if found.instead else ""
