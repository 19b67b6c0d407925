"""Opaque page tokens: where a listing goes on, bound to the filters that it was begun with. Knows no table."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from service.errors import InvalidPageTokenError

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 500
_LONGEST_TOKEN = 1000


def clamp_page_size(asked: int | None) -> int:
    """More than is allowed gets the most that is; 0 and nothing get the default."""
    return min(asked, MAX_PAGE_SIZE) if asked else DEFAULT_PAGE_SIZE


def encode_token(position: Mapping[str, Any], filters: Mapping[str, Any]) -> str:
    """Make a token of JSON values."""
    text = json.dumps([position, filters], separators=(",", ":"), sort_keys=True)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_token(token: str, filters: Mapping[str, Any]) -> dict[str, Any]:
    """Read the position from a token.

    Raises:
        InvalidPageTokenError: it is none of ours, or was made for other filters.
    """
    position, made_for = _read(token)
    if made_for != dict(filters):
        raise InvalidPageTokenError("the token was made for other filters; begin again without it")
    return position


def _read(token: str) -> tuple[dict[str, Any], Any]:
    unknown = InvalidPageTokenError("pass page_token exactly as next_page_token gave it")
    if len(token) > _LONGEST_TOKEN:
        raise unknown
    try:
        text = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        position, filters = json.loads(text)
    except (binascii.Error, ValueError, TypeError, RecursionError):
        raise unknown from None
    if not isinstance(position, dict):
        raise unknown
    return position, filters
