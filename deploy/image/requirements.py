"""Print what the image installs: the dependencies of pyproject.toml and of its extras `serve` and `traces`,
one a line.

    python3 requirements.py PROVIDER [PYPROJECT]

For `cuda` onnxruntime gives way to onnxruntime-gpu: both install the same package folder, so that beside each
other the later one would win. The standard library alone is used, since nothing is installed yet when it
runs.
"""

import re
import sys
import tomllib
from pathlib import Path

# The extras bring CUDA's run-time libraries in the versions that onnxruntime-gpu was built for.
ONNXRUNTIME = {"cpu": "onnxruntime", "cuda": "onnxruntime-gpu[cuda,cudnn]"}


def requirements(project: Path, provider: str) -> list[str]:
    """The requirements for a provider.

    Args:
        project: a pyproject.toml.
        provider: cpu or cuda.
    Raises:
        KeyError: there is no such provider.
    """
    described = tomllib.loads(project.read_text())["project"]
    extras = described["optional-dependencies"]
    named: list[str] = [*described["dependencies"], *extras["serve"], *extras["traces"]]
    return [re.sub(r"^onnxruntime\b", ONNXRUNTIME[provider], one) for one in named]


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or sys.argv[1] not in ONNXRUNTIME:
        sys.exit(f"expected {' or '.join(ONNXRUNTIME)}, found {' '.join(sys.argv[1:]) or 'nothing'}")
    sys.stdout.write(
        "\n".join(requirements(Path(sys.argv[2] if len(sys.argv) > 2 else "pyproject.toml"), sys.argv[1]))
        + "\n"
    )
