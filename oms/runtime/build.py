"""Which build of the code this process runs: fixed when it began, whatever lies on the disk by now."""

from functools import cache
from hashlib import sha256
from pathlib import Path

from django.conf import settings

PACKAGES = ("analytics", "brokers", "oms", "orders", "portfolio", "risk", "routing")


@cache
def build_id() -> str:
    """Return OMS_BUILD, or a hash of the code where nobody named it."""
    return settings.BUILD or hash_of(settings.BASE_DIR)


def hash_of(root: Path) -> str:
    """Return a hash of the code that lies in a checkout."""
    made = sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            made.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return made.hexdigest()[:32]
