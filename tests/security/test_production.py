"""Production settings: what a desk does not start with, and what it does then (reliability 6.5, 6.9, 6.16)."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection

ROOT = Path(__file__).resolve().parents[2]
GOOD = {
    "OMS_ENV": "production",
    "OMS_SECRET_KEY": "kf93jd02mfpqowieurytlaksjdhfgmznxbcv7462918374650abcdEFG",
    "OMS_HOSTS": "desk.example.com",
    "OMS_ORIGINS": "https://desk.example.com",
    "OMS_BROKER_HOSTS": "fix.example.com",
    "DATABASE_URL": "postgresql://oms:pw@db.internal:5432/oms?sslmode=verify-full",
    "REDIS_URL": "rediss://:pw@redis.internal:6379/0",
    "DJANGO_SETTINGS_MODULE": "oms.settings",
    "OMS_SUPERVISED": "1",
}


def run(*command: str, **changed: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in {"PATH": os.environ["PATH"], **GOOD, **changed}.items() if v != "(unset)"}
    return subprocess.run(
        [sys.executable, *command], env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"OMS_SECRET_KEY": "(unset)"}, "OMS_SECRET_KEY"),
        ({"OMS_SECRET_KEY": "short"}, "OMS_SECRET_KEY"),
        ({"OMS_SECRET_KEY": "a" * 60}, "OMS_SECRET_KEY"),
        ({"OMS_SECRET_KEY": "not-secret-only-for-demo-and-tests-on-this-machine"}, "OMS_SECRET_KEY"),
        ({"OMS_HOSTS": "*"}, "OMS_HOSTS"),
        ({"OMS_HOSTS": "desk.example.com,*"}, "OMS_HOSTS"),
        ({"OMS_HOSTS": "(unset)"}, "OMS_HOSTS"),
        ({"OMS_ORIGINS": "http://desk.example.com"}, "OMS_ORIGINS"),
        ({"DATABASE_URL": "postgresql://oms:pw@db.internal:5432/oms"}, "DATABASE_URL"),
        ({"DATABASE_URL": "postgresql://oms:pw@db.internal:5432/oms?sslmode=prefer"}, "DATABASE_URL"),
        ({"REDIS_URL": "redis://:pw@redis.internal:6379/0"}, "REDIS_URL"),
        ({"REDIS_URL": "rediss://redis.internal:6379/0"}, "REDIS_URL"),
        ({"OMS_CRASH": "after_send"}, "OMS_CRASH"),
        ({"OMS_ENV": "prod"}, "OMS_ENV"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_an_unsafe_setting_stops_the_start_and_says_which(changed: dict[str, str], says: str) -> None:
    done = run("-c", "import django; django.setup()", **changed)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "ImproperlyConfigured" in last
    assert says in last
    assert "pw@" not in done.stderr


@pytest.mark.parametrize(
    "changed", [{}, {"DEBUG": "1", "DJANGO_DEBUG": "1", "OMS_DEBUG": "1"}], ids=["good", "debug asked"]
)
def test_the_deployment_check_is_clean_and_the_values_are_safe(changed: dict[str, str]) -> None:
    checked = run(
        "-W", "ignore", "-m", "django", "check", "--deploy", "--tag", "security", "--fail-level", "WARNING", **changed
    )
    assert checked.returncode == 0, checked.stderr
    names = [
        "DEBUG",
        "SESSION_COOKIE_SECURE",
        "CSRF_COOKIE_SECURE",
        "SESSION_COOKIE_HTTPONLY",
        "SESSION_COOKIE_SAMESITE",
        "SESSION_COOKIE_AGE",
        "SESSION_AGE_MAX",
        "SECURE_HSTS_SECONDS",
        "SECURE_SSL_REDIRECT",
        "X_FRAME_OPTIONS",
        "PASSWORD_HASHERS",
    ]
    code = (
        "import json, django; django.setup(); from django.conf import settings as s; from django.contrib.auth.hashers import "
        f"make_password; print(json.dumps([{{n: getattr(s, n) for n in {names!r}}}, s.REST_KNOX['TOKEN_TTL'].days, make_password('x')]))"
    )
    done = run("-c", code, **changed)
    values, token_days, hashed = json.loads(done.stdout)
    assert values == {
        "DEBUG": False, "SESSION_COOKIE_SECURE": True, "CSRF_COOKIE_SECURE": True, "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax", "SESSION_COOKIE_AGE": 1_800, "SESSION_AGE_MAX": 43_200, "SECURE_HSTS_SECONDS": 31_536_000,
        "SECURE_SSL_REDIRECT": True, "X_FRAME_OPTIONS": "DENY", "PASSWORD_HASHERS": ["django.contrib.auth.hashers.Argon2PasswordHasher"],
    }  # fmt: skip
    assert token_days == 90
    assert hashed.startswith("argon2$argon2id$")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "command",
    [
        ("-m", "uvicorn", "oms.asgi:application", "--port", "{port}"),
        ("-m", "celery", "-A", "oms.celery", "worker", "-l", "error", "-P", "solo"),
        ("manage.py", "run_gateway", "NEAR"),
        ("manage.py", "run_pricer"),
    ],
    ids=["web", "worker", "gateway", "pricer"],
)
def test_no_process_starts_while_a_demo_user_can_log_in(command: tuple[str, ...]) -> None:
    User.objects.create_user("trader", password="demo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = os.environ["DATABASE_URL"].rsplit("/", 1)[0] + f"/{connection.settings_dict['NAME']}"
    here: dict[str, Any] = {"DATABASE_URL": url, "REDIS_URL": os.environ["REDIS_URL"]}
    # Hashed as production hashes: the tests' quick hasher is unknown there.
    code = "import django; django.setup(); from django.contrib.auth.hashers import make_password; print(make_password('demo'))"
    User.objects.update(password=run("-c", code).stdout.strip())
    done = run(*(word.format(port=port) for word in command), **here)
    assert done.returncode != 0
    assert "Users of the demo are in this database (trader)" in done.stderr


@pytest.mark.django_db(transaction=True)
def test_a_demo_user_with_another_password_or_switched_off_is_no_demo_user() -> None:
    from oms.runtime.people import demo_people_here

    User.objects.create_user("trader", password="a long one of their own")
    User.objects.create_user("risk", password="demo", is_active=False)
    assert demo_people_here() == []
    User.objects.create_user("ops", password="demo")
    assert demo_people_here() == ["ops"]
