"""A small Kubernetes API on loopback for tests: Jobs, Secrets and pods, stored, listed, patched and deleted as the API
does, with its Status errors; a Job that is not suspended gets a pod, and what an object owns goes with it.
"""

from __future__ import annotations

import copy
import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

NAMESPACE = "studies"
TOKEN = "a-bearer-token"
MADE = "2026-01-02T03:04:05Z"
KINDS = {"jobs": "Job", "secrets": "Secret", "pods": "Pod"}
GROUPS = {"jobs": "/apis/batch/v1", "secrets": "/api/v1", "pods": "/api/v1"}


class Refused(Exception):
    """An error of the API: its code, reason and message."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        self.status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }
        super().__init__(message)


class KubernetesApi:
    """What is stored, by kind and name; `done`: what was asked for and permitted, as ("create", "secrets").

    `forbidden`: what may not be done; `broken`: what is answered with an error of the server's, after it was done;
    `options`: how things were deleted; `most_jobs`: a quota.
    """

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        self.forbidden: set[tuple[str, str]] = set()
        self.broken: set[tuple[str, str]] = set()
        self.done: list[tuple[str, str]] = []
        self.options: list[Any] = []
        self.most_jobs = 100
        self.lock = threading.RLock()
        self.url = ""

    def pod_of(self, job: str) -> dict[str, Any]:
        """Return the pod of a Job, to look at or to change."""
        [pod] = [pod for pod in self.objects["pods"].values() if pod["metadata"]["labels"]["job-name"] == job]
        return pod

    def write_kubeconfig(self, path: Path) -> Path:
        """Write a file whose current context leads nowhere, and whose context `studies` leads here."""
        clusters = {"nowhere": "http://127.0.0.1:1", "studies": self.url}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "nowhere",
            "clusters": [{"name": name, "cluster": {"server": url}} for name, url in clusters.items()],
            "contexts": [{"name": name, "context": {"cluster": name, "user": "me"}} for name in clusters],
            "users": [{"name": "me", "user": {"token": TOKEN}}],
        }
        path.write_text(yaml.safe_dump(content))
        return path

    def answer(self, verb: str, kind: str, name: str, body: Any, query: dict[str, list[str]]) -> Any:
        """Do what is asked. Raises Refused."""
        if (verb, kind) in self.forbidden:
            user = "system:serviceaccount:studies:me"
            what = f'{kind} is forbidden: User "{user}" cannot {verb} resource "{kind}" in API group ""'
            raise Refused(403, "Forbidden", what)
        self.done.append((verb, kind))
        found = self.objects[kind]
        if name and name not in found:
            raise Refused(404, "NotFound", f'{kind} "{name}" not found')
        match verb:
            case "create":
                answer = self._create(kind, body)
            case "list":
                label = query["labelSelector"][0]
                items = [each for each in found.values() if label in each["metadata"]["labels"]]
                answer = {"kind": f"{KINDS[kind]}List", "apiVersion": "v1", "metadata": {}, "items": items}
            case "patch":
                _merge(found[name], body)
                self._start(found[name])
                answer = found[name]
            case _:
                self.options.append({**(body or {}), **{key: value for key, [value] in query.items()}})
                answer = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
                self._delete(kind, name)
        if (verb, kind) in self.broken:
            raise Refused(500, "InternalError", "etcdserver: request timed out")
        return copy.deepcopy(answer)

    def _create(self, kind: str, body: Any) -> Any:
        name = body["metadata"]["name"]
        found = self.objects[kind]
        if name in found:
            raise Refused(409, "AlreadyExists", f'{kind} "{name}" already exists')
        if kind == "jobs" and len(found) >= self.most_jobs:
            what = f"exceeded quota: count, requested: count/jobs.batch=1, limited: count/jobs.batch={self.most_jobs}"
            raise Refused(403, "Forbidden", f'jobs.batch "{name}" is forbidden: {what}')
        made = {"uid": str(uuid.uuid4()), "creationTimestamp": MADE, "namespace": NAMESPACE}
        found[name] = {**body, "metadata": {**body["metadata"], **made}}
        if kind == "jobs":
            found[name]["status"] = {}
            self._start(found[name])
        return found[name]

    def _start(self, job: Any) -> None:
        """Make the pod of a Job that is not suspended, as the controller of Jobs does."""
        name = job["metadata"]["name"]
        if job["kind"] != "Job" or job["spec"].get("suspend"):
            return
        template = copy.deepcopy(job["spec"]["template"])
        labels = {**template["metadata"].get("labels", {}), "job-name": name}
        self.objects["pods"][f"{name}-x7k2p"] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{name}-x7k2p",
                "uid": str(uuid.uuid4()),
                "labels": labels,
                "creationTimestamp": MADE,
                "ownerReferences": [
                    {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"]}
                ],
            },
            "spec": template["spec"],
            "status": {"phase": "Pending"},
        }

    def _delete(self, kind: str, name: str) -> None:
        uid = self.objects[kind].pop(name)["metadata"]["uid"]
        for found in self.objects.values():
            for each in [each for each in found.values() if uid in _owners(each)]:
                del found[each["metadata"]["name"]]


@contextmanager
def kubernetes_api() -> Iterator[KubernetesApi]:
    """Give an API that answers to the token of its kubeconfig."""
    api = KubernetesApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _respond(self, verb: str) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            address = urlsplit(self.path)
            try:
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    raise Refused(401, "Unauthorized", "Unauthorized")
                kind, name = _place(address.path)
                with api.lock:
                    answer = api.answer(verb, kind, name, body, parse_qs(address.query))
                code = 201 if verb == "create" else 200
            except Refused as error:
                answer, code = error.status, error.status["code"]
            data = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self._respond("list")

        def do_POST(self) -> None:
            self._respond("create")

        def do_PATCH(self) -> None:
            self._respond("patch")

        def do_DELETE(self) -> None:
            self._respond("delete")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _place(path: str) -> tuple[str, str]:
    """Return the kind and the name that an address means; no name for the whole list."""
    for kind, group in GROUPS.items():
        whole = f"{group}/namespaces/{NAMESPACE}/{kind}"
        if path == whole or path.startswith(f"{whole}/"):
            return kind, path.removeprefix(whole).removeprefix("/")
    raise Refused(404, "NotFound", "the server could not find the requested resource")


def _owners(thing: Any) -> set[str]:
    return {owner["uid"] for owner in thing["metadata"].get("ownerReferences", ())}


def _merge(thing: Any, patch: Any) -> None:
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(thing.get(key), dict):
            _merge(thing[key], value)
        else:
            thing[key] = value
