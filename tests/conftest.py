"""Hypothesis draws new examples at every run, but the same ones in CI: what lands there must not depend on luck."""

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")
