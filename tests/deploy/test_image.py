"""The image of the served deployment."""

from __future__ import annotations

import re
from pathlib import Path

DOCKERFILE = (Path(__file__).parents[2] / "deploy" / "Dockerfile").read_text()


def test_its_user_is_a_number_so_that_kubernetes_knows_that_it_is_not_root():
    [user] = re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE)
    assert int(user) > 0
    assert f"--uid {user} " in DOCKERFILE
