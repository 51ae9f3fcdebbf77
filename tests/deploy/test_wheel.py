"""The wheel that `make wheel` builds: what is in it, and that it works where nothing else of ours is.

The wheel is built and installed without the network: the build's tools and the packages that the wheel asks
for are taken from the environment of the tests.
"""

import re
import shutil
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

import pytest

import seqserve
from tests.deploy.fresh import Environment, dependencies, link, make_environment, must_run, run
from tests.deploy.render import ROOT
from tests.seqserve.scripted_server import WAIT_S, ScriptedServer, started

# What `import seqserve` may take beside the standard library: gRPC takes its health and reflection by itself.
NEEDED = {"google", "grpc", "grpc_health", "grpc_reflection", "grpc_status", "seqserve", "typing_extensions"}
COMPILED = {"cython_runtime"}
CALL = """
from seqserve import Client
with Client() as client:
    print(*sorted({model.name for model in client.models()}), client.classify("a fine film")[0].label)
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder called seqserve with what a clone has of the package."""
    folder = tmp_path_factory.mktemp("beside") / "seqserve"
    shutil.copytree(ROOT / "seqserve", folder / "seqserve", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def built(clone: Path) -> Path:
    """The folder with the source distribution and the wheel that was built from it."""
    must_run([sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "."], clone)
    return clone / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel and what it asks for without extras."""
    environment = make_environment(tmp_path_factory.mktemp("fresh") / "venv")
    environment.pip("install", "--no-deps", str(wheel))
    link(dependencies(_distribution(environment)), environment.packages)
    return environment


@pytest.fixture(scope="module")
def extra(installed: Environment, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables with which that environment has the extra of the command, too."""
    folder = tmp_path_factory.mktemp("extra")
    wheel = _distribution(installed)
    link(dependencies(wheel, frozenset({"cli"})) - dependencies(wheel), folder)
    return {"PYTHONPATH": str(folder)}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    servicer = ScriptedServer()
    running = started(servicer)
    yield servicer.address
    running.stop(grace=1).wait(WAIT_S)


def _distribution(environment: Environment) -> Distribution:
    (found,) = environment.packages.glob("seqserve-*.dist-info")
    return PathDistribution(found)


def _files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder.parent))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wheel_holds_the_whole_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    others = {name for name in names if ".dist-info/" not in name}
    assert others == _files(ROOT / "seqserve")
    assert wheel.name == f"seqserve-{seqserve.__version__}-py3-none-any.whl"


def test_every_folder_of_the_package_is_listed() -> None:
    """setuptools warns of a folder that is not, and says that it would be left out."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    holding = {path.parent for path in (ROOT / "seqserve").rglob("*") if path.is_file()}
    folders = {folder.relative_to(ROOT) for folder in holding if folder.name != "__pycache__"}
    assert set(settings["packages"]) == {".".join(folder.parts) for folder in folders}


def test_source_distribution_holds_what_the_wheel_is_built_from(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE"} | _files(ROOT / "seqserve") <= names


def test_client_of_the_wheel_calls_a_server(installed: Environment, address: str, tmp_path: Path) -> None:
    done = must_run([installed.python, "-c", CALL], tmp_path, {"SEQSERVE_SERVER": address})
    assert done.stdout == "charlm sentiment stock positive\n"


def test_command_without_its_extra_says_how_to_get_it(installed: Environment, tmp_path: Path) -> None:
    done = run([installed.command, "models"], tmp_path)
    assert done.returncode == 1
    assert re.match(r"error: the seqserve command needs .*typer.* extra 'cli'", done.stderr)
    assert done.stderr.count("\n") == 1


def test_every_command_of_the_wheel_starts(
    installed: Environment, extra: dict[str, str], address: str, tmp_path: Path
) -> None:
    shown = must_run([installed.command, "--version"], tmp_path, extra).stdout
    assert shown == f"seqserve {seqserve.__version__}\n"
    environment = extra | {"SEQSERVE_SERVER": address}
    listed = must_run([installed.command, "models"], tmp_path, environment).stdout
    assert [line.split("\t")[0] for line in listed.splitlines()] == ["name", "charlm", "sentiment", "stock"]
    every = (
        "import sys; from typer.main import get_command; from seqserve.cli.app import app\n"
        "for name, command in get_command(app).commands.items():\n"
        "    assert command.main([name, '--help'], standalone_mode=False) in (0, None), name\n"
        "print('numpy' in sys.modules)"
    )
    assert must_run([installed.python, "-c", every], tmp_path, extra).stdout.endswith("\nFalse\n")


def test_import_takes_the_packages_that_it_asks_for_alone(tmp_path: Path) -> None:
    """In the environment of the tests, which has numpy, pandas and all the others."""
    listing = (
        "import sys; before = set(sys.modules); import seqserve\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)"
    )
    done = must_run([sys.executable, "-c", listing], tmp_path, {"PYTHONPATH": str(ROOT)})
    assert {name for name in done.stdout.split() if not name.startswith("_")} - COMPILED <= NEEDED


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_package_is_found_beside_a_clone_of_its_name(
    kind: str, clone: Path, installed: Environment, tmp_path: Path
) -> None:
    """The clone, seen from its parent folder, is a folder `seqserve` without code.

    Python takes such a folder as a package only if no folder of its path holds a real one, so the real one
    must be found by the path; an editable install's finder would be asked too late.
    """
    environment = installed
    if kind == "editable":
        environment = make_environment(tmp_path / "venv")
        link({"setuptools"}, environment.packages)
        environment.pip("install", "--no-deps", "--no-build-isolation", "--editable", str(clone))
        link(dependencies(_distribution(environment)), environment.packages)
    show = "import seqserve; print(seqserve.Client.__name__, seqserve.__file__)"
    done = must_run([environment.python, "-c", show], clone.parent)
    place = clone if kind == "editable" else environment.packages
    assert done.stdout == f"Client {place / 'seqserve/__init__.py'}\n"
