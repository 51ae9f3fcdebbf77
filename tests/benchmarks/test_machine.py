"""Where a measurement was made."""

import re
from pathlib import Path

import pytest

from benchmarks import machine


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx512f avx512_vnni", "VNNI yes, AMX no"),
        ("avx_vnni amx_tile amx_int8", "VNNI yes, AMX yes"),
        ("fpu avx2 amx_tile", "VNNI no, AMX no"),
    ],
)
def test_description_says_which_int8_instructions_the_processor_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, expected: str
) -> None:
    known = f"processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: {flags}\n\nprocessor\t: 1\nflags\t\t: none\n"
    (tmp_path / "cpuinfo").write_text(known)
    monkeypatch.setattr(machine, "_CPU_INFO", tmp_path / "cpuinfo")
    described = machine.describe(machine.Cores(0, 1))
    assert described["int8 instructions"] == expected
    assert described["CPU"] == "Some CPU"


def test_description_is_of_this_machine() -> None:
    found = machine.describe(machine.choose_cores())["int8 instructions"]
    assert re.fullmatch(r"VNNI (yes|no), AMX (yes|no)", found)
