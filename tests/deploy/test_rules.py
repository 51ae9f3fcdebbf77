"""deploy/prometheus: the rules hold what they promise, and name nothing that the code does not have."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.expressions import (
    ADDED,
    ROOT,
    RULES,
    Used,
    offered,
    rpcs,
    rules,
    tool,
    used_by_dashboard,
    used_by_rules,
)

PAGE = ROOT / "docs" / "observability.md"
ALERTS = [rule for rule in rules() if "alert" in rule]
CONFIGURATIONS = [
    yaml.safe_load(text)
    for text in re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
]
EXPRESSIONS = [*used_by_rules(), *used_by_dashboard()]


def names(one: Any) -> str:
    return str(one["alert"] if isinstance(one, dict) else one.place)


def promtool(*arguments: str | Path) -> None:
    found = subprocess.run(
        [tool("promtool"), *arguments],
        cwd=RULES.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_promtool_accepts_the_rules() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", RULES.name)


def test_rules_give_what_their_cases_expect() -> None:
    promtool("test", "rules", "rules_test.yaml")


def test_every_rule_has_a_case() -> None:
    cases = yaml.safe_load((RULES.parent / "rules_test.yaml").read_text())["tests"]
    alerts = [one for case in cases for one in case.get("alert_rule_test", ())]
    fires = {one["alertname"] for one in alerts if one.get("exp_alerts")}
    is_silent = {one["alertname"] for one in alerts if not one.get("exp_alerts")}
    asked = " ".join(one["expr"] for case in cases for one in case.get("promql_expr_test", ()))
    assert fires == is_silent == {alert["alert"] for alert in ALERTS}
    assert not [rule["record"] for rule in rules() if "record" in rule and rule["record"] not in asked]


@pytest.mark.parametrize("used", EXPRESSIONS, ids=names)
def test_expression_names_what_the_server_shows(used: Used) -> None:
    known = offered()
    assert used.metrics
    assert used.metrics <= set(known)
    for metric, labels in used.labels_of.items():
        assert labels <= known[metric] | ADDED, metric
    assert used.grouped <= set().union(*(known[metric] for metric in used.metrics)) | ADDED


@pytest.mark.parametrize("used", [one for one in EXPRESSIONS if one.methods], ids=names)
def test_calls_that_may_last_are_the_streams_and_those_that_wait_for_a_model(used: Used) -> None:
    assert used.methods == {name for name, is_stream in rpcs().items() if is_stream} | {"Load", "Unload"}
    assert {"Load", "Unload"} <= set(rpcs())


@pytest.mark.parametrize("alert", ALERTS, ids=names)
def test_alert_says_how_bad_it_is_and_where_to_read_on(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    page, _, anchor = alert["annotations"]["runbook"].partition("#")
    assert ROOT / page == PAGE
    assert anchor == alert["alert"].lower()
    assert f'<a id="{anchor}"></a>`{alert["alert"]}`' in PAGE.read_text()


def test_page_tells_of_every_metric_and_of_none_that_is_not() -> None:
    told = set(re.findall(r"`(seqserve_[a-z_]+)", PAGE.read_text()))
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in offered() if name.startswith("seqserve_")}
    assert told == shown


def test_page_tells_of_every_rule_and_severity() -> None:
    text = PAGE.read_text()
    rows = dict(re.findall(r"</a>`(\w+)` \| (\w+) \|", text))
    assert rows == {alert["alert"]: alert["labels"]["severity"] for alert in ALERTS}
    assert not [rule["record"] for rule in rules() if "record" in rule and f"`{rule['record']}`" not in text]


@pytest.mark.parametrize("number", range(len(CONFIGURATIONS)))
def test_promtool_accepts_the_page_s_configurations(number: int, tmp_path: Path) -> None:
    # Debian's Prometheus is built without Kubernetes.
    jobs = [
        {key: value for key, value in job.items() if key != "kubernetes_sd_configs"}
        for job in CONFIGURATIONS[number]["scrape_configs"]
    ]
    (tmp_path / "prometheus.yml").write_text(
        yaml.safe_dump(CONFIGURATIONS[number] | {"scrape_configs": jobs})
    )
    promtool("check", "config", "--syntax-only", tmp_path / "prometheus.yml")


def test_page_s_configurations_give_targets_the_job_that_the_rules_look_for() -> None:
    jobs = [one["job_name"] for found in CONFIGURATIONS for one in found["scrape_configs"]]
    asked = set(re.findall(r'\bjob=~"([^"]*)"', RULES.read_text()))
    assert jobs
    assert all(re.fullmatch(pattern, job) for pattern in asked for job in jobs)
