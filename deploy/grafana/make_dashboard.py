"""dashboard.json, written from panels.py: `python deploy/grafana/make_dashboard.py`, or `make docs`. Another
file may be named.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from panels import ROWS, SERVER, Panel, Row

_PAGE: Final = Path(__file__).with_name("dashboard.json")
_WIDTH: Final = 24
_DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


def dashboard() -> dict[str, Any]:
    """The whole dashboard as Grafana 10.4 and newer read it."""
    return {
        "uid": "seqserve",
        "title": "seqserve",
        "tags": ["seqserve"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": [_restarts()]},
        "templating": {"list": list(_variables())},
        "panels": list(_panels(ROWS)),
    }


def page() -> str:
    """The file's text."""
    return json.dumps(dashboard(), indent=1) + "\n"


def _panels(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    number = y = 0
    for row in rows:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": y, "w": _WIDTH, "h": 1},
        }
        y += 1
        x = height = 0
        for panel in row.panels:
            if x + panel.width > _WIDTH:
                x, y = 0, y + height
            number += 1
            yield _panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": panel.height})
            x, height = x + panel.width, panel.height
        y += height


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    is_level = panel.kind != "timeseries"
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": _DATASOURCE,
        "gridPos": place,
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _DATASOURCE,
                "editorMode": "code",
                "expr": query.expr,
                "legendFormat": query.legend,
                "range": not is_level,
                "instant": is_level,
                **({"format": "table"} if panel.kind == "table" else {}),
            }
            for index, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        **_OPTIONS[panel.kind],
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    colours = ("green", "orange", "red")
    steps = [
        {"color": colour, "value": value}
        for colour, value in zip(colours, (None, *panel.steps), strict=False)
    ]
    found: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "timeseries":
        found["min"] = 0
        found["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 20 if panel.is_stacked else 0,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.is_stacked else "none", "group": "A"},
        }
    if panel.most is not None:
        found["max"] = panel.most
    return found


_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "timeseries": {
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    },
    "stat": {
        "options": {
            "colorMode": "value",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "textMode": "value",
        }
    },
    "table": {
        "options": {"showHeader": True, "cellHeight": "sm"},
        "transformations": [{"id": "organize", "options": {"excludeByName": {"Time": True}}}],
    },
}


def _variables() -> Iterator[dict[str, Any]]:
    yield {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "hide": 0,
        "current": {},
    }
    # The targets' own metric, which stands there even when nothing is served.
    yield _variable("job", "Job", 'label_values(up{job=~".*seqserve.*"}, job)')
    yield _variable("instance", "Replica", 'label_values(up{job=~"$job"}, instance)')
    yield _variable("model", "Model", 'label_values(seqserve_model_info{job=~"$job"}, model)')


def _variable(name: str, label: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": f"{name}-values"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def _restarts() -> dict[str, Any]:
    return {
        "name": "Starts",
        "datasource": _DATASOURCE,
        "enable": True,
        "iconColor": "blue",
        "expr": f"changes(process_start_time_seconds{{{SERVER}}}[2m]) > 0",
        "titleFormat": "{{instance}} started",
    }


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else _PAGE).write_text(page())
