"""Settings of the whole suite: the testing environment, and hypothesis without deadlines on noisy machines."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

os.environ.setdefault("KNOCKEM_ENVIRONMENT", "testing")
settings.register_profile(
    "knockem", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("knockem")
