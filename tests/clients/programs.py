"""The programs of examples/clients: what each needs, how it is built, and how its output is read.

A program is built once for its sources, into a folder of runs/clients named after their hash.
"""

import asyncio
import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.integration.process import ROOT

FOLDER: Final = ROOT / "examples" / "clients"
CACHE: Final = ROOT / "runs" / "clients"
# A build of the C++ program takes two minutes of a core.
_BUILD_LIMIT_S: Final = 280
_RUN_LIMIT_S: Final = 60
_DONE: Final = "built"

_APT: Final = "apt-get install --no-install-recommends"
_GO: Final = f"{_APT} golang-go golang-google-grpc-dev protoc-gen-go protoc-gen-go-grpc"
_GOCODE: Final = "/usr/share/gocode/src/google.golang.org"
_CPP: Final = f"{_APT} cmake g++ make libgrpc++-dev protobuf-compiler-grpc"
_JARS: Final = "/usr/share/java"
_JAR_NAMES: Final = (
    "grpc-netty",
    "netty-codec-http2",
    "guava",
    "perfmark-api",
    "geronimo-annotation-1.3-spec",
)
_JAVA: Final = (
    f"{_APT} default-jdk-headless protobuf-compiler-grpc-java-plugin libgrpc-java libprotobuf-java "
    "libguava-java libnetty-java libnetty-tcnative-java libnetty-tcnative-jni libperfmark-java "
    "libgeronimo-annotation-1.3-spec-java"
)
_PACKAGES: Final = "make clients-test installs it with npm"

# What a program needs, and how it is got.
Need = tuple[str, str]

_NODE: Final[Need] = ("node", "install Node 20 or newer")
_PROTOC: Final[Need] = ("protoc", f"{_APT} protobuf-compiler")


@dataclass(frozen=True, slots=True)
class Program:
    """An example program.

    Attributes:
        name: its folder under examples/clients.
        command: what starts it, without the arguments; `{build}` is the folder that it is built into.
        needs: programs and files that must be there; a path without a leading / starts at its folder.
        builds: commands that build it, run in its folder; `{build}` as above.
        is_kept: whether a build of the same sources is used again.
        environment: variables that it is run with.
    """

    name: str
    command: tuple[str, ...]
    needs: tuple[Need, ...]
    builds: tuple[tuple[str, ...], ...] = ()
    is_kept: bool = True
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def folder(self) -> Path:
        """Folder of the sources."""
        return FOLDER / self.name

    def missing(self) -> str | None:
        """Return what is missing to build and run it, and how to get it; None: nothing."""
        return next((f"{need} is missing: {how}" for need, how in self.needs if not self._has(need)), None)

    def _has(self, need: str) -> bool:
        return (self.folder / need).exists() if "/" in need else shutil.which(need) is not None

    @property
    def build(self) -> Path:
        """Folder that it is built into: one for each state of its sources and of the protos."""
        digest = hashlib.sha256()
        for path in sorted([*self.folder.glob("*"), *(ROOT / "protos").rglob("*.proto")]):
            if path.is_file():
                digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
        return CACHE / f"{self.name}-{digest.hexdigest()[:16]}"

    async def prepare(self) -> None:
        """Build it, unless a build of these sources is kept."""
        done = self.build / _DONE
        if self.is_kept and done.exists():
            return
        shutil.rmtree(self.build, ignore_errors=True)
        self.build.mkdir(parents=True)
        for command in self.builds:
            await self._output_of(command, (), _BUILD_LIMIT_S)
        done.touch()

    async def run(self, *arguments: str) -> str:
        """Return what it prints; the program must end with status 0."""
        return await self._output_of(self.command, arguments, _RUN_LIMIT_S)

    async def _output_of(self, command: Sequence[str], arguments: Sequence[str], limit_s: float) -> str:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *(part.format(build=self.build) for part in command),
            *arguments,
            cwd=self.folder,
            env=os.environ | dict(self.environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
        )
        try:
            async with asyncio.timeout(limit_s):
                output, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        printed = f"{errors.decode()}{output.decode()}"
        assert process.returncode == 0, f"{self.name}: {command}: status {process.returncode}\n{printed}"
        return output.decode()


PROGRAMS: Final = (
    Program("node", ("node", "client.mjs"), (_NODE, ("./node_modules/@grpc/grpc-js", _PACKAGES))),
    Program(
        "connect-node",
        ("node", "client.mjs"),
        (
            _NODE,
            ("npm", "install it with Node"),
            _PROTOC,
            ("./node_modules/@connectrpc/connect-node", _PACKAGES),
        ),
        (("npm", "run", "generate"),),
        is_kept=False,
    ),
    Program(
        "go",
        ("{build}/client",),
        (("go", _GO), _PROTOC, ("protoc-gen-go", _GO), ("protoc-gen-go-grpc", _GO), (f"{_GOCODE}/grpc", _GO)),
        (("sh", "build.sh", "{build}"),),
        # Before 1.40 grpc-go follows a retryPolicy only with this; the program's own retries do without.
        environment=(("GRPC_GO_RETRY", "on"),),
    ),
    Program(
        "cpp",
        ("{build}/client",),
        (("cmake", _CPP), ("c++", _CPP), _PROTOC, ("grpc_cpp_plugin", _CPP)),
        (("cmake", "-S", ".", "-B", "{build}"), ("cmake", "--build", "{build}")),
    ),
    Program(
        "java",
        ("java", "-Djava.library.path={build}/native", "-jar", "{build}/client.jar"),
        (
            ("javac", _JAVA),
            _PROTOC,
            ("grpc_java_plugin", _JAVA),
            *((f"{_JARS}/{name}.jar", _JAVA) for name in _JAR_NAMES),
        ),
        (("sh", "build.sh", "{build}"),),
    ),
)


def sections(output: str) -> dict[str, list[str]]:
    """Return the lines that a program prints, by the title `== TITLE` above them."""
    found: dict[str, list[str]] = {}
    for line in output.splitlines():
        if line.startswith("== "):
            found[line.removeprefix("== ")] = lines = []
        else:
            lines.append(line)
    return found
