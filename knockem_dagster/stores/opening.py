"""Opening the stores that the settings name, each in its own environment."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from knockem_dagster.settings import Settings
from knockem_dagster.stores.documents import Collection, Documents
from knockem_dagster.stores.mongo_documents import MongoDocuments
from knockem_dagster.stores.objects import Objects, local_objects, s3_objects
from knockem_dagster.stores.sqlite_documents import SqliteDocuments

DATABASE = "knockem"


def open_documents(settings: Settings, collections: Sequence[Collection]) -> Documents:
    """Open MongoDB where documents_url names one, else SQLite; StoreError if it cannot be used."""
    if settings.documents_url is None:
        return SqliteDocuments(settings.folder / "documents.sqlite", collections)
    database = urlsplit(settings.documents_url).path.strip("/") or DATABASE
    return MongoDocuments(settings.documents_url, settings.name_in_environment(database, "_"), collections)


def open_objects(settings: Settings) -> Objects:
    """Open S3 where objects_url names a bucket, else a folder; StoreError if it cannot be used."""
    if settings.objects_url is None:
        return local_objects(settings.folder / "objects")
    location = urlsplit(settings.objects_url)
    bucket = settings.name_in_environment(location.netloc, "-")
    return s3_objects(bucket, prefix=location.path, endpoint=settings.s3_endpoint)
