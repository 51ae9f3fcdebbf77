"""Finds the environment with Triton that `make bench-peers` builds, or says what of it is missing.

The package nvidia-pytriton holds the program tritonserver, its Python backend, and a stub for each version
of Python: the process in which a model runs.
"""

from ctypes.util import find_library
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv-peers"
PYTHON = "3.11"
STUB = "triton_python_backend_stub"
_PACKAGES = ("pytriton", "onnxruntime", "tokenizers", "numpy", "pydantic")
# The stub loads Python as a shared library.
SHARED_PYTHON = f"libpython{PYTHON}.so.1.0"
_BUILD = "'make bench-peers' builds it"


class MissingPeer(Exception):
    """Triton cannot be started here; the text names what is missing and what to do."""


@dataclass(frozen=True, slots=True)
class Environment:
    """An environment in which everything that Triton needs is present.

    Attributes:
        folder: the virtual environment.
        python: the version of its Python, such as "3.11".
    """

    folder: Path
    python: str = PYTHON

    @property
    def packages(self) -> Path:
        """The folder of installed packages."""
        return self.folder / "lib" / f"python{self.python}" / "site-packages"

    @property
    def triton(self) -> Path:
        """The folder of Triton."""
        return self.packages / "pytriton" / "tritonserver"

    @property
    def program(self) -> Path:
        """The server."""
        return self.triton / "bin" / "tritonserver"

    @property
    def backend(self) -> Path:
        """The folder of the Python backend, without the stub."""
        return self.triton / "backends" / "python"

    @property
    def stub(self) -> Path:
        """The process in which a model runs, for this version of Python."""
        return self.triton / "python_backend_stubs" / self.python / STUB

    @property
    def libraries(self) -> Path:
        """The folder of shared libraries that the server loads."""
        return self.packages / "nvidia_pytriton.libs"

    @property
    def python_libraries(self) -> Path:
        """The folder of libraries of the Python that the environment was made with, from its pyvenv.cfg."""
        lines = (self.folder / "pyvenv.cfg").read_text().splitlines()
        fields = dict(line.split(" = ", 1) for line in lines if " = " in line)
        return Path(fields["home"]).parent / "lib"


def find_environment(folder: Path = FOLDER) -> Environment:
    """Return the environment in a folder.

    Raises:
        MissingPeer: the environment, a part of it, or a library of Python does not exist.
    """
    found = Environment(folder)
    if not folder.is_dir():
        raise MissingPeer(f"Triton is not installed: expected the environment {folder.name}/; {_BUILD}")
    needed = [found.packages / name for name in _PACKAGES]
    needed += [folder / "pyvenv.cfg", found.program, found.backend, found.stub, found.libraries]
    missing = [str(path.relative_to(folder)) for path in needed if not path.exists()]
    if missing:
        raise MissingPeer(f"Triton is not complete: {folder.name}/ has no {', '.join(missing)}; {_BUILD}")
    own = (found.python_libraries / SHARED_PYTHON).exists()
    if not own and find_library(f"python{PYTHON}") is None:
        raise MissingPeer(
            f"Triton's stub needs the library {SHARED_PYTHON}, and neither {found.python_libraries} nor the "
            f"system has it; on Debian and Ubuntu, apt-get install libpython{PYTHON}"
        )
    return found
