"""docs/kubernetes.md against what it is about."""

import re

import pytest

from service.settings import PREFIX
from tests.deploy.render import KUBERNETES, ROOT, environment, kustomize, pod_of

PAGE = (ROOT / "docs" / "kubernetes.md").read_text()


@pytest.mark.parametrize("kind", ["overlays", "components"])
def test_page_names_every_overlay_and_component(kind: str) -> None:
    rows = re.findall(r"^\| `(?:overlays/)?([a-z-]+)` \|", PAGE, re.MULTILINE)
    folders = {folder.parent.name for folder in (KUBERNETES / kind).glob("*/kustomization.yaml")}
    assert folders <= set(rows)
    assert {row for row in rows if f"`{kind}/{row}`" in PAGE} <= folders


def test_page_names_files_that_there_are() -> None:
    for path in re.findall(r"(?<![\w./-])(?:\.\./seqserve/)?((?:deploy|tests)/[\w./-]*[\w-])", PAGE):
        assert (ROOT / path).exists(), path


def test_page_tells_the_times_of_an_end_as_they_are() -> None:
    manifests = kustomize(KUBERNETES / "overlays" / "cpu")
    times = environment(manifests)
    grace, drain = (int(times[f"{PREFIX}{name}_SECONDS"]) for name in ("GRACE", "DRAIN"))
    kill = pod_of(manifests)["terminationGracePeriodSeconds"]
    text = " ".join(PAGE.split())
    assert f"{grace} s of grace, {drain} s of drain, and SIGKILL after {kill} s" in text
    assert f"`SEQSERVE_CONNECTION_AGE_SECONDS` to {times[f'{PREFIX}CONNECTION_AGE_SECONDS']}" in text
