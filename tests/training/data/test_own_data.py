"""From files in the forms that people have them to models that the real server serves, by the commands
alone.
"""

import asyncio
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.integration.process import ROOT, ServerProcess
from tests.training.conftest import Command, random_walk

SMALL = ("--repository", "models", "--hidden", "8", "--epochs", "1", "--no-int8")
COMMAND = (sys.executable, "-c", "from seqserve.cli import main; main()")
CALL = re.compile(r"^call it: seqserve (.*)$", re.MULTILINE)
CALL_LIMIT_S = 60


def _text(folder: Path) -> tuple[str, ...]:
    (folder / "tale.txt").write_bytes(
        ("Der Bär saß müde am Fluß.\r\nEr fing 3 Äpfel.\r\n" * 60).encode("cp1252")
    )
    return ("charlm", "--text", "tale.txt", "--encoding", "cp1252", "--name", "tale", "--layers", "1")


def _mails(folder: Path) -> tuple[str, ...]:
    rows = "".join(
        f'{index};"Please {word},\n""now"" or at {index}";{label}\n'
        for index in range(20)
        for label, word in (("in", "buy"), ("out", "sell"))
    )
    (folder / "mails.csv").write_text("number;body;kind\n\n" + rows, encoding="utf-8-sig")
    return (
        "sentiment",
        "--csv",
        "mails.csv",
        "--text-column",
        "body",
        "--label-column",
        "kind",
        "--name",
        "mails",
    )


def _sales(folder: Path) -> tuple[str, ...]:
    days = (np.datetime64("2020-01-01") + np.arange(130)).tolist()
    cells = [
        [f"{day:%d.%m.%Y}", *map(repr, row)]
        for day, row in zip(days, random_walk(130)[:, [3, 4]].tolist(), strict=True)
    ]
    cells[40][2] = ""
    (folder / "sales.csv").write_text(
        "Day\tprice\tsold\n" + "\n".join("\t".join(row) for row in reversed(cells))
    )
    columns = ("--columns", "price,sold", "--target", "price", "--date-column", "Day", "--gaps", "forward")
    return ("stock", "--csv", "sales.csv", *columns, "--held-out-from", "2020-04-01", "--name", "sales")


async def _run(*arguments: str, folder: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *arguments,
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(CALL_LIMIT_S):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_files_become_models_that_are_called_as_the_last_line_says(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained in this process, since each start of torch takes seconds; tests/docs runs the commands of
    docs/training.md as programs.
    """
    shown = []
    for make in (_text, _mails, _sales):
        assert command(*make(tmp_path), *SMALL) == 0
        shown.append(capsys.readouterr().out)
    assert all("serve it: SEQSERVE_REPOSITORY=models make serve" in one for one in shown)
    assert "mails.csv: 40 different texts: in 20, out 20" in shown[1]
    assert "sales.csv: rows are not in the order of Day: sorted" in shown[2]
    assert (
        "sales.csv: 1 missing cells filled with the value before (sold 1), the first in line 91" in shown[2]
    )
    assert "held out 2020-04-01 to 2020-05-09" in shown[2]
    calls = [CALL.findall(one)[0] for one in shown]
    async with ServerProcess(tmp_path / "models") as server:
        text, label, forecast = [
            await _run(*COMMAND, "--server", server.address, *shlex.split(call), folder=tmp_path)
            for call in calls
        ]
    assert text
    assert re.search(r"^(in|out)\s+0\.\d+\s+a text of yours$", label, re.MULTILINE)
    assert [line.split()[0] for line in forecast.splitlines()] == ["ahead", "1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("charlm", "--encoding", "cp1252"), "--encoding: expected with --text alone"),
        (("stock", "--delimiter", ";"), "--encoding and --delimiter: expected with --csv alone"),
        (
            ("sentiment", "--csv", "mails.csv", "--delimiter", "::"),
            "--delimiter: expected one character or tab, found '::'",
        ),
        (
            ("sentiment", "--csv", "mails.csv"),
            "mails.csv: line 1: expected a column text, found no such column among number, body, kind",
        ),
        (
            ("sentiment", "--csv", "mails.csv", "--text-column", "body", "--label-column", "body"),
            "column body: expected labels of two or more texts",
        ),
        (
            ("charlm", "--text", "tale.txt"),
            (
                "tale.txt: line 1, byte 5: expected UTF-8 text, "
                "found byte 0xe4; if the file is in cp1252, say --encoding"
            ),
        ),
        (
            ("stock", "--csv", "sales.csv", "--date-column", "Day"),
            "sales.csv: line 1: expected a column open, found no such column among Day, price",
        ),
        (
            ("stock", "--date-column", "", "--held-out-from", "2012-01-01"),
            "expected with a --date-column alone",
        ),
        (("stock", "--gaps", "linear"), "'linear' is not one of 'refuse', 'forward', 'drop'"),
    ],
)
def test_what_does_not_fit_is_one_line(
    command: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    for make in (_text, _mails, _sales):
        make(tmp_path)
    assert command(*arguments) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert message in shown.err


def test_first_label_of_a_text_counts_and_few_texts_are_said(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        *(f"text {index},yes" for index in range(25)),
        *(f"other {index},no" for index in range(8)),
        "text 3,no",
    ]
    (tmp_path / "own.csv").write_text("text,label\n" + "\n".join(rows))
    assert command("sentiment", "--csv", "own.csv", *SMALL) == 0
    shown = capsys.readouterr().out
    assert "own.csv: 33 different texts: yes 25, no 8" in shown
    assert (
        "own.csv: 1 texts come again with another label, the first in line 35: the first label counts"
        in shown
    )
    assert "own.csv: fewer than 10 texts of no: expect little of them" in shown


def test_call_goes_on_from_a_line_of_the_text(
    command: Command, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("charlm", "--text", text_file, *SMALL) == 0
    prompt = shlex.split(CALL.findall(capsys.readouterr().out)[0])[3]
    assert prompt
    assert set(prompt) <= set(text_file.read_text(encoding="utf-8"))
