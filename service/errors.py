"""Business errors, each with the HTTP status it becomes, and the RFC 9457 problem documents that they are shown as.

Knows no framework: workers store the same documents in rows of failed searches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from search_spaces.faults import Fault

MEDIA_TYPE = "application/problem+json"


class ProblemError(Exception):
    """Something that the client is told as a problem document.

    Attributes:
        slug: the stable name of the kind of problem; `type` is made from it.
        faults: what is wrong with which part of the request, by JSON pointer.
        extra: further members of the document.
        headers: of the response.
    """

    status = HTTPStatus.BAD_REQUEST
    slug = "bad-request"
    title = "The request makes no sense"

    def __init__(
        self,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = tuple(faults)
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})

    def document(self) -> dict[str, Any]:
        return problem_document(self.status, self.slug, self.title, self.detail, self.faults) | self.extra


class MalformedBodyError(ProblemError):
    slug = "malformed-body"
    title = "The body cannot be read"


class InvalidPageTokenError(ProblemError):
    slug = "invalid-page-token"
    title = "The page token is of no use here"


class InvalidSpecError(ProblemError):
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    slug = "invalid-spec"
    title = "The spec cannot be searched"


class InvalidRequestError(ProblemError):
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    slug = "invalid-request"
    title = "The request has faults"


class IdempotencyKeyReusedError(ProblemError):
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    slug = "idempotency-key-reused"
    title = "This Idempotency-Key was used for another body"


class NotFoundError(ProblemError):
    status = HTTPStatus.NOT_FOUND
    slug = "not-found"
    title = "There is no such thing"


class StateConflictError(ProblemError):
    status = HTTPStatus.CONFLICT
    slug = "state-conflict"
    title = "This is not possible in the present state"


class NameTakenError(ProblemError):
    status = HTTPStatus.CONFLICT
    slug = "name-taken"
    title = "This name is taken"


class BodyTooLargeError(ProblemError):
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    slug = "body-too-large"
    title = "The body is too large"


class CrossSiteError(ProblemError):
    status = HTTPStatus.FORBIDDEN
    slug = "cross-site"
    title = "This was sent by another site"


class UnsupportedMediaTypeError(ProblemError):
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    slug = "unsupported-media-type"
    title = "The body's media type is not understood"


class NotReadyError(ProblemError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    slug = "not-ready"
    title = "The service is not ready"


def problem_document(
    status: HTTPStatus, slug: str, title: str, detail: str, faults: Sequence[Fault] = ()
) -> dict[str, Any]:
    """Build a problem document; `errors` is there only when there are faults to point at."""
    document: dict[str, Any] = {
        "type": f"urn:espalier:problem:{slug}",
        "title": title,
        "status": int(status),
        "detail": detail,
    }
    if faults:
        document["errors"] = [{"pointer": fault.pointer, "detail": fault.message} for fault in faults]
    return document
