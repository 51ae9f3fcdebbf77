"""What rules and dashboard ask of Prometheus, and what of it the code has to offer."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.service.observability.test_metrics import exposed, used

ROOT: Final = Path(__file__).parents[2]
RULES: Final = ROOT / "deploy" / "prometheus" / "rules.yaml"
DASHBOARD: Final = ROOT / "deploy" / "grafana" / "dashboard.json"
PROTOS: Final = ROOT / "protos"

# Of every process that uses prometheus_client on Linux, of Prometheus itself, and of the kubelet.
COMMON: Final = {
    **{
        f"process_{name}": set[str]()
        for name in (
            "start_time_seconds",
            "cpu_seconds_total",
            "resident_memory_bytes",
            "open_fds",
            "max_fds",
        )
    },
    "up": set[str](),
    "ALERTS": {"alertname", "alertstate", "severity", "model", "version", "reason", "method"},
    **{
        f"container_{name}": {"container", "pod"}
        for name in ("memory_working_set_bytes", "spec_memory_limit_bytes")
    },
}
# Labels that Prometheus adds to what it scrapes.
ADDED: Final = {"job", "instance", "namespace"}
# What $__rate_interval is at the tests' scrape interval of a second.
_VARIABLES: Final = {"$__rate_interval": "10s", "$job": ".+", "$instance": ".+", "$model": ".+"}

_STRING: Final = re.compile(r'"[^"]*"')
_SELECTOR: Final = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
_LABEL: Final = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_GROUPING: Final = re.compile(r"\b(?:by|on|without|group_left|group_right|ignoring)\s*\(([^)]*)\)")
_NAME: Final = re.compile(r"(?<![\w$])[a-zA-Z_:][\w:]*(?!\s*\()(?![\w:])")
_WORDS: Final = {"by", "on", "without", "or", "and", "unless", "offset", "group_left"}


@dataclass(frozen=True)
class Used:
    """An expression and where it stands."""

    place: str
    expr: str

    @property
    def metrics(self) -> set[str]:
        """Metrics that it names."""
        text = re.sub(
            r"\[[^\]]*\]", "", _GROUPING.sub("", re.sub(r"\{[^}]*\}", "", _STRING.sub('""', self.expr)))
        )
        return {
            name
            for name in _NAME.findall(text)
            if name not in _WORDS and not re.fullmatch(r"\d+[smhd]", name)
        }

    @property
    def labels_of(self) -> dict[str, set[str]]:
        """Labels that its selectors ask of each metric."""
        found: dict[str, set[str]] = {}
        for name, selector in _SELECTOR.findall(_STRING.sub('""', self.expr)):
            found.setdefault(name, set()).update(_LABEL.findall(selector))
        return found

    @property
    def grouped(self) -> set[str]:
        """Labels that it groups or matches by."""
        return {
            label.strip()
            for group in _GROUPING.findall(_STRING.sub('""', self.expr))
            for label in group.split(",")
        }

    @property
    def methods(self) -> set[str]:
        """Rpcs that it names in a matcher of the label method, without their services."""
        matchers = re.findall(r'\bmethod\s*(?:=~|!~|!=|=)\s*"([^"]*)"', self.expr)
        return {
            name
            for matcher in matchers
            for group in re.findall(r"/\(([\w|]+)\)", matcher)
            for name in group.split("|")
        }


@cache
def offered() -> dict[str, set[str]]:
    """Metrics that a server shows, and the labels of each, with those of Prometheus' own and of the rules
    that record.
    """
    return {
        **exposed(used()),
        **COMMON,
        **{rule["record"]: labels(rule["expr"]) for rule in rules() if "record" in rule},
    }


def labels(expr: str) -> set[str]:
    """Labels that a recorded expression may have: those it sums by, else those of its metrics but the ones
    that it sums away.
    """
    one = Used("", expr)
    summed = {
        label.strip() for group in re.findall(r"\bby\s*\(([^)]*)\)", expr) for label in group.split(",")
    }
    if summed:
        return summed - {"le"}
    return set().union(*(exposed(used()).get(name, set()) for name in one.metrics)) - {"version"}


def rules() -> list[dict[str, Any]]:
    """Every rule of every group."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def used_by_rules() -> Iterator[Used]:
    """The rules' expressions."""
    return (Used(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules())


def panels() -> list[dict[str, Any]]:
    """The dashboard's panels, rows among them."""
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def used_by_dashboard() -> Iterator[Used]:
    """The dashboard's expressions with its variables filled in."""
    found = json.loads(DASHBOARD.read_text())
    asked = [
        (panel["title"], target["expr"]) for panel in found["panels"] for target in panel.get("targets", ())
    ]
    asked += [(one["name"], one["expr"]) for one in found["annotations"]["list"]]
    return (Used(place, filled(expr)) for place, expr in asked)


def filled(expr: str) -> str:
    """An expression of the dashboard as Grafana sends it when everything is chosen."""
    for variable, value in _VARIABLES.items():
        expr = expr.replace(variable, value)
    return expr


def rpcs() -> dict[str, bool]:
    """Rpcs of the protos, and whether they stream in either direction."""
    texts = [path.read_text() for path in PROTOS.rglob("*.proto")]
    found = re.findall(r"^\s*rpc (\w+)\(([^)]*)\) returns \(([^)]*)\)", "\n".join(texts), re.MULTILINE)
    return {
        name: asked.startswith("stream ") or answered.startswith("stream ") for name, asked, answered in found
    }


def tool(name: str) -> str:
    """Path of one of Prometheus' commands; without it the test is skipped."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is missing: apt-get install prometheus")
    return path
