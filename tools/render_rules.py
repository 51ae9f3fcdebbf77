"""Copy the Prometheus rules into the monitoring component: `python -m tools.render_rules`, or `make docs`.

Kustomize cannot put a file into a custom resource, so the component's rules.yaml, a PrometheusRule, holds a
copy of deploy/prometheus/rules.yaml.
"""

import textwrap
from pathlib import Path
from typing import Final

_DEPLOY: Final = Path(__file__).parents[1] / "deploy"
RULES: Final = _DEPLOY / "prometheus" / "rules.yaml"
EMBEDDED_RULES: Final = _DEPLOY / "kubernetes" / "components" / "monitoring" / "rules.yaml"

_HEAD: Final = """# Made from deploy/prometheus/rules.yaml by `make docs`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: seqserve
  labels:
    app.kubernetes.io/name: seqserve
spec:
"""


def rules_manifest() -> str:
    """Return the PrometheusRule as text."""
    return _HEAD + textwrap.indent(RULES.read_text(), "  ")


if __name__ == "__main__":
    EMBEDDED_RULES.write_text(rules_manifest())
