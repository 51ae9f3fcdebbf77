"""Hypothesis draws new examples at every run, but the same ones in CI: what lands there must not depend on
luck.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "seqserve",
    max_examples=50,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("seqserve")
