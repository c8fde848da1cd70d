"""Submits a workflow and follows it, with the client that is generated from openapi.json:

openapi-python-client generate --path docs/openapi.json --output-path client
pip install ./client
KNOCKEM_URL=http://127.0.0.1:3001 KNOCKEM_TOKEN=knockem_... python docs/clients/python/example.py
"""

import os
import time
from pathlib import Path

from knockem_dagster_client import AuthenticatedClient
from knockem_dagster_client.api.workflows import create_workflow, get_workflow, list_jobs
from knockem_dagster_client.models import JobSpec, WorkflowSpec

client = AuthenticatedClient(
    base_url=os.environ["KNOCKEM_URL"], token=os.environ["KNOCKEM_TOKEN"], raise_on_unexpected_status=True
)
jobs = [
    JobSpec(name="prepare", command="echo 7 > seed.txt"),
    JobSpec(name="use", command="cat seed.txt", depends_on=["prepare"]),
]
made = create_workflow.sync(client=client, body=WorkflowSpec(name="from Python", jobs=jobs), folder=str(Path.cwd()))
seen = made
while seen.state == "running":
    time.sleep(0.5)
    seen = get_workflow.sync(made.id, client=client)
print(seen.state, seen.jobs.to_dict())
for each in list_jobs.sync(made.id, client=client).items:
    print(each.job.name, each.state, each.result.exit_code)
