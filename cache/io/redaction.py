"""Secrets in addresses and settings, which are left out of every file that is shared.

A path may be an address with a password in it, and an argument of a network a token of a hub. Manifests, run folders,
reports and exports are made to be passed on, so they get `***` in its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"

_NAMED = r"[\w.-]*(?:token|secret|passw(?:or)?d|signature|credential|api[_-]?key|access[_-]?key)[\w.-]*"
# Parts that may repeat are bounded, or end where the next begins: a text of 100,000 characters takes no longer for it.
_PATTERNS = (
    (r"(?P<kept>://)(?:AKIA|ASIA)[A-Z0-9]{16}:[^\s@]{1,200}(?=@)", re.ASCII),  # its secret may hold slashes
    (r"(?P<kept>[A-Za-z][A-Za-z0-9+.-]{0,40}://)(?:[^\s/?#:]*:[^\s/?#]*|[^\s/?#:]{16,})(?=@)", re.ASCII),
    (rf"(?P<kept>[?&;#](?=[\w.-]{{1,200}}=)(?:{_NAMED}|sig|key|pwd|auth)=)[^&#;\s\"']+", re.IGNORECASE),
    (r"(?P<kept>\b(?:passw(?:or)?d|pwd|secret|token|api_key|access_token)=)[^\s&;,\"']{8,}", re.IGNORECASE),
    (
        r"(?P<kept>)(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{16,}|(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{20,}"
        r"|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}|sk-[\w-]{20,}|AIza[\w-]{30,}"
        r"|eyJ[\w-]{10,400}\.[\w-]{10,}\.[\w-]+)",
        re.ASCII,
    ),
    (r"(?P<kept>)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
)
_COMPILED = tuple(re.compile(pattern, flags) for pattern, flags in _PATTERNS)
_SECRET_NAMES = re.compile(
    r"(?:.*_)?(?:passw(?:or)?d|passphrase|secret|secret_key|api_?key|access_key|access_token|auth_token|hf_token"
    r"|private_key|credentials?)",
    re.IGNORECASE,
)
_TOKEN_LENGTH = 20  # of a value that is called `token`; shorter ones are words, such as cls


def redacted(text: str) -> str:
    """Text with `***` for passwords and tokens: in addresses, behind names such as `token=`, or known by their form.

    >>> redacted("https://me:pass@host/images?size=2&X-Amz-Signature=0f3a")
    'https://***@host/images?size=2&X-Amz-Signature=***'
    >>> redacted("photos/hf_2024")
    'photos/hf_2024'
    """
    for pattern in _COMPILED:
        text = pattern.sub(rf"\g<kept>{HIDDEN}", text)
    return text


def without_secrets(content: Any) -> Any:
    """The same JSON with every text `redacted`, also where its name says that it is a secret.

    >>> without_secrets({"network": {"name": "mine:net", "api_key": "0f3a"}, "width": 8})
    {'network': {'name': 'mine:net', 'api_key': '***'}, 'width': 8}
    """
    match content:
        case str():
            return redacted(content)
        case Mapping():
            return {name: _of_name(name, value) for name, value in content.items()}
        case list() | tuple():
            return type(content)(map(without_secrets, content)) if type(content) in (list, tuple) else content
    return content


def _of_name(name: Any, value: Any) -> Any:
    if not isinstance(name, str) or not isinstance(value, str) or not value:
        return without_secrets(value)
    if _SECRET_NAMES.fullmatch(name) or (name.lower() == "token" and len(value) >= _TOKEN_LENGTH):
        return HIDDEN
    return redacted(value)
