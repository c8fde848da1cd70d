"""Exit 0 if this container's daemon has given a sign of life lately: in Dagster's storage, since the container started.

`dagster-daemon liveness-check` asks the same, but imports Dagster for it, which takes seconds each time.
"""

import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2

LATELY = timedelta(seconds=90)

connection = psycopg2.connect(
    host=os.environ["DAGSTER_POSTGRES_HOST"],
    user=os.environ["DAGSTER_POSTGRES_USER"],
    password=os.environ["DAGSTER_POSTGRES_PASSWORD"],
    dbname=os.environ["DAGSTER_POSTGRES_DATABASE"],
    connect_timeout=5,
)
started = datetime.fromtimestamp(Path("/proc/1").stat().st_mtime, UTC)
since = max(started, datetime.now(UTC) - LATELY).replace(tzinfo=None)
with connection, connection.cursor() as cursor:
    cursor.execute("SELECT 1 FROM daemon_heartbeats WHERE daemon_type = 'SENSOR' AND timestamp > %s", (since,))
    sys.exit(cursor.fetchone() is None)
