"""deploy/grafana: the dashboard is what its script writes, and Grafana can show it."""

import itertools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import yaml

from tests.deploy.expressions import DASHBOARD, panels, tool, used_by_dashboard

FOLDER = DASHBOARD.parent
COLUMNS = 24


def test_dashboard_is_what_the_script_writes(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, FOLDER / "make_dashboard.py", tmp_path / "new.json"], check=True, timeout=60
    )
    assert (tmp_path / "new.json").read_text() == DASHBOARD.read_text(), "run 'make docs'"


def test_panels_have_numbers_of_their_own() -> None:
    assert max(Counter(panel["id"] for panel in panels()).values()) == 1


def test_panels_fit_and_do_not_overlap() -> None:
    cells: Counter[tuple[int, int]] = Counter()
    for panel in panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS
        cells.update(
            itertools.product(
                range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
            )
        )
    assert max(cells.values()) == 1


def test_every_panel_asks_the_chosen_source() -> None:
    found = json.loads(DASHBOARD.read_text())
    assert [one["name"] for one in found["templating"]["list"]] == ["datasource", "job", "instance", "model"]
    sources = [panel["datasource"] for panel in panels() if panel["type"] != "row"]
    sources += [target["datasource"] for panel in panels() for target in panel.get("targets", ())]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


def test_every_row_has_panels_and_every_panel_a_query() -> None:
    kinds = [panel["type"] for panel in panels()]
    assert all(following != "row" for kind, following in itertools.pairwise([*kinds, "row"]) if kind == "row")
    assert all(panel["targets"] for panel in panels() if panel["type"] != "row")


def test_prometheus_can_read_every_expression(tmp_path: Path) -> None:
    rules = [
        {"record": f"dashboard:panel:{index}", "expr": used.expr}
        for index, used in enumerate(used_by_dashboard())
    ]
    assert not [rule for rule in rules if "$" in rule["expr"]]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    found = subprocess.run(
        [tool("promtool"), "check", "rules", tmp_path / "rules.yaml"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_provisioning_can_be_read() -> None:
    (source,) = yaml.safe_load((FOLDER / "provisioning" / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    (provider,) = yaml.safe_load((FOLDER / "provisioning" / "dashboards" / "seqserve.yaml").read_text())[
        "providers"
    ]
    assert source["type"] == "prometheus"
    assert provider["type"] == "file"
    assert Path(provider["options"]["path"]).is_absolute()
