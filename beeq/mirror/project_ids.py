"""In which type the mirror writes ``projectId``, and how a document of another type gets it. Pure.

Payload keeps a relationship in the type of the other collection's ``_id``, and MongoDB compares by type:
by an ObjectId it finds no document that has the same digits as text. Payload's ids are ObjectIds unless
the collection has an ``id`` field of its own, whose values are text or numbers.

* ``auto``: text of 24 hexadecimal digits becomes an ObjectId; everything else stays as the job has it.
* ``objectid``: only ObjectIds. Another project id is left out, and is in ``jobData`` alone: Payload cannot
  read a page of documents if one of them refers to what cannot be an id.
* ``text``: everything stays as the job has it.

Documents that have the other type, from an older version or another setting, get the right one within the
next update of their job, or by ``beeq mirror --repair``. The project stays the same: an editor may have
given the document another one than the job has.
"""

import re
from typing import Any

from beeq.environment import ProjectIdType

_OBJECT_ID = re.compile(r"[0-9a-fA-F]{24}")
_OF_JOB = "$jobData.projectId"


def is_object_id(value: Any) -> bool:
    """Return whether this is the text of an ObjectId."""
    return isinstance(value, str) and _OBJECT_ID.fullmatch(value) is not None


def written_as(value: Any, id_type: ProjectIdType) -> Any:
    """Return a job's ``projectId`` as the mirror writes it."""
    from bson import ObjectId  # noqa: PLC0415 - an extra

    if id_type != "text" and is_object_id(value):
        return ObjectId(value)
    return None if id_type == "objectid" else value


def has_wrong_type(document: dict[str, Any], id_type: ProjectIdType) -> bool:
    """Return whether the ``projectId`` of a stored document is to be converted."""
    from bson import ObjectId  # noqa: PLC0415 - an extra

    value = document.get("projectId")
    if id_type == "text" or isinstance(value, ObjectId):
        return id_type == "text" and isinstance(value, ObjectId)
    if id_type == "objectid" and value is not None and value == _own(document):
        return True
    return is_object_id(value)


def converted(id_type: ProjectIdType) -> dict[str, Any]:
    """Return the expression, for an update pipeline, of a document's ``projectId`` in the right type.

    It never fails: what cannot be converted stays. Text is written as the job has it, capitals included.
    """
    if id_type != "text":
        kept: Any = "$projectId"
        if id_type == "objectid":
            kept = {"$cond": [{"$eq": [kept, _OF_JOB]}, None, kept]}
        return {"$convert": {"input": "$projectId", "to": "objectId", "onError": kept, "onNull": None}}
    text = {"$toString": "$projectId"}
    as_job_has_it = {"$cond": [{"$eq": [{"$type": _OF_JOB}, "string"]}, _OF_JOB, ""]}
    is_jobs_own = {"$eq": [{"$toLower": as_job_has_it}, text]}
    is_object = {"$eq": [{"$type": "$projectId"}, "objectId"]}
    return {"$cond": [is_object, {"$cond": [is_jobs_own, _OF_JOB, text]}, "$projectId"]}


def readable(document: dict[str, Any], id_type: ProjectIdType) -> dict[str, Any]:
    """Return a document as readers get it: text in place of each ObjectId, the project as in ``jobData``."""
    shown = {name: _readable(value) for name, value in document.items()}
    own, project_id = _own(shown), shown.get("projectId")
    is_left_out = id_type == "objectid" and project_id is None and not is_object_id(own)
    if is_left_out or (is_object_id(own) and own.lower() == project_id):
        shown["projectId"] = own
    return shown


def _readable(value: Any) -> Any:
    from bson import ObjectId  # noqa: PLC0415 - an extra

    if isinstance(value, ObjectId):
        return str(value)
    if isinstance(value, dict):
        return {name: _readable(item) for name, item in value.items()}
    return [_readable(item) for item in value] if isinstance(value, list) else value


def _own(document: dict[str, Any]) -> Any:
    """Return the project id in ``jobData``."""
    job_data = document.get("jobData")
    return job_data.get("projectId") if isinstance(job_data, dict) else None
