"""Settings for every process. What is missing or unsafe stops the start, with a sentence that says what to set."""

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

from oms.runtime.logs import configure as configure_logs
from oms.runtime.transport import require_safe_servers

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()

ENVIRONMENT = env("OMS_ENV", default="demo")
if ENVIRONMENT not in ("demo", "test", "production"):
    raise ImproperlyConfigured(f"OMS_ENV is {ENVIRONMENT!r}; use demo, test or production.")
PRODUCTION = ENVIRONMENT == "production"
DEMO = ENVIRONMENT == "demo"

KNOWN_KEY = "not-secret-only-for-demo-and-tests-on-this-machine"
SECRET_KEY = env("OMS_SECRET_KEY", default="" if PRODUCTION else KNOWN_KEY)
if PRODUCTION and (len(SECRET_KEY) < 50 or len(set(SECRET_KEY)) < 10 or SECRET_KEY == KNOWN_KEY):
    raise ImproperlyConfigured("OMS_SECRET_KEY must hold at least 50 random characters in production.")
DEBUG = False
ALLOWED_HOSTS = env.list("OMS_HOSTS", default=[] if PRODUCTION else ["127.0.0.1", "localhost", "[::1]", "testserver"])
if PRODUCTION and (not ALLOWED_HOSTS or "*" in ALLOWED_HOSTS):
    raise ImproperlyConfigured("OMS_HOSTS must list the host names that the desk serves; a star is refused.")
CSRF_TRUSTED_ORIGINS = env.list("OMS_ORIGINS", default=[])
if PRODUCTION and not all(origin.startswith("https://") for origin in CSRF_TRUSTED_ORIGINS):
    raise ImproperlyConfigured("OMS_ORIGINS must name https origins in production.")

if "DATABASE_URL" not in os.environ and not {"makemigrations", "check"} & set(sys.argv):
    raise ImproperlyConfigured("DATABASE_URL is not set; start through manage.py, or point it at a PostgreSQL.")
DATABASES = {"default": env.db("DATABASE_URL", default="postgresql://oms@127.0.0.1:1/oms")}
SERVING = "uvicorn" in sys.argv[0]
"""The web process: its connections come from a pool and return to it with each request; other processes keep their own."""
DATABASES["default"].update(
    ENGINE="django.db.backends.postgresql",
    CONN_MAX_AGE=0 if SERVING else None,
    CONN_HEALTH_CHECKS=True,
)
DATABASES["default"]["OPTIONS"] = {
    **DATABASES["default"].get("OPTIONS", {}),
    "prepare_threshold": 3,
    **({"pool": {"min_size": 1, "max_size": 16, "timeout": 3}} if SERVING else {}),
    "options": "-c lock_timeout=5s -c statement_timeout=60s -c idle_in_transaction_session_timeout=10s -c timezone=UTC"
    + (" -c oms.tests_may_truncate=on" if ENVIRONMENT == "test" else ""),
}
REDIS_URL = env("REDIS_URL", default="redis://127.0.0.1:1/0")
if PRODUCTION:
    require_safe_servers(DATABASES["default"], REDIS_URL)

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "unfold.contrib.simple_history",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "knox",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "simple_history",
    "django_htmx",
    "oms",
    "oms.journal",
    "oms.access",
    "brokers",
    "routing",
    "portfolio",
    "risk",
    "orders",
    "analytics",
]
MIDDLEWARE = [
    "oms.runtime.http.SecurityHeaders",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "oms.runtime.sessions.SessionLimits",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "simple_history.middleware.HistoryRequestMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]
ROOT_URLCONF = "oms.urls"
ASGI_APPLICATION = "oms.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SILENCED_SYSTEM_CHECKS: list[str] = []

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
FORMAT_MODULE_PATH = ["oms.formats"]

PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher"
    if ENVIRONMENT != "test"
    else "django.contrib.auth.hashers.MD5PasswordHasher",
]
AUTHENTICATION_BACKENDS = ["oms.runtime.signin.PatientBackend"]
CSRF_FAILURE_VIEW = "oms.runtime.http.forged"
LOGIN_URL = "/login/"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/login/"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 30 * 60
"""Seconds without a request after which a log-in ends."""
SESSION_AGE_MAX = 12 * 3600
"""Seconds after which it ends however busy it is."""
SECOND_FACTOR = frozenset(
    env.list("OMS_SECOND_FACTOR", default=["trader", "risk", "ops", "auditor", "admin"] if PRODUCTION else [])
)
"""Roles whose people log in with a code of their device besides the password."""
PROOF_SECONDS = env.int("OMS_PROOF_SECONDS", default=300 if PRODUCTION else 0)
"""How old a person's last proof of who they are may be for what is dangerous; 0 asks for none."""
SEAL_KEYS = env.list("OMS_SEAL_KEYS", default=[])
if PRODUCTION and any(len(k) < 32 for k in SEAL_KEYS):
    raise ImproperlyConfigured("Each of OMS_SEAL_KEYS must hold at least 32 random characters.")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PRODUCTION
SECURE_SSL_REDIRECT = PRODUCTION and env.bool("OMS_SSL_REDIRECT", default=True)
SECURE_HSTS_SECONDS = 31_536_000 if PRODUCTION else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = PRODUCTION
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if PRODUCTION else None
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 1_048_576

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "templates" / "static"]
STATIC_ROOT = env("OMS_STATIC_ROOT", default=str(BASE_DIR / "var" / "static") if PRODUCTION else None)
WHITENOISE_USE_FINDERS = not PRODUCTION
WHITENOISE_AUTOREFRESH = DEMO  # an edited script is served as it is now

UNFOLD = {
    "SITE_TITLE": "Desk admin",
    "SITE_HEADER": "Desk admin",
    "SITE_SUBHEADER": "back to the blotter",
    "SITE_URL": "/",
    "SITE_SYMBOL": "monitoring",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "/static/desk/icon.svg"}],
    "DASHBOARD_CALLBACK": "oms.pages.overview.dashboard",
    "SIDEBAR": {"show_search": True},
    "COLORS": {
        "primary": {
            shade: f"oklch({lightness}% {chroma} 258)"
            for shade, lightness, chroma in (
                ("50", 97, 0.015),
                ("100", 93, 0.035),
                ("200", 88, 0.06),
                ("300", 81, 0.1),
                ("400", 72, 0.15),
                ("500", 63, 0.19),
                ("600", 54, 0.2),
                ("700", 47, 0.19),
                ("800", 41, 0.16),
                ("900", 36, 0.12),
                ("950", 27, 0.08),
            )
        }
    },
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "oms.runtime.signin.Tokens",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["oms.runtime.roles.Denied"],
    "DEFAULT_RENDERER_CLASSES": ["oms.runtime.wire.Renderer"],
    "DEFAULT_PARSER_CLASSES": ["oms.runtime.wire.Parser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "oms.runtime.problems.problem_from",
    "UNAUTHENTICATED_USER": None,
    "URL_FORMAT_OVERRIDE": None,
}
REST_KNOX = {
    "TOKEN_TTL": None if not PRODUCTION else __import__("datetime").timedelta(days=90),
    "TOKEN_PREFIX": "",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Order management",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["oms.runtime.roles.SignedIn"],
    "ENUM_NAME_OVERRIDES": {
        "OrderStatusEnum": "orders.serializers.STATUSES",
        "LimitKindEnum": "risk.models.Limit.Kind",
        "LimitStatusEnum": "risk.models.Limit.Status",
        "HaltModeEnum": "risk.models.Halt.Mode",
    },
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
}

CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 120,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    "socket_timeout": 10,
    "socket_connect_timeout": 2,
    "socket_keepalive": True,
}
CELERY_TASK_TIME_LIMIT = 90
CELERY_TASK_SOFT_TIME_LIMIT = 80
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_SERIALIZER = "json"
CELERY_DB_REUSE_MAX = 100_000  # without it every task opens a connection of its own
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
RECONCILE_SECONDS = env.float("OMS_RECONCILE_SECONDS", default=900.0)
"""How often every broker is asked what we hold, own, did and have working there."""
CELERY_BEAT_SCHEDULE = {
    "sweep": {"task": "orders.sweep", "schedule": 1.0, "options": {"expires": 5}},
    "settle": {"task": "portfolio.settle", "schedule": 3600.0, "options": {"expires": 1800}},
    "reconcile": {
        "task": "orders.reconcile",
        "schedule": RECONCILE_SECONDS,
        "options": {"expires": RECONCILE_SECONDS / 2},
    },
    "measure": {"task": "analytics.measure", "schedule": 30.0, "options": {"expires": 25}},
    "watch-costs": {"task": "analytics.watch", "schedule": 3600.0, "options": {"expires": 1800}},
    "snapshot": {"task": "portfolio.snapshot", "schedule": 300.0, "options": {"expires": 200}},
    "rebalance": {"task": "orders.rebalance", "schedule": 300.0, "options": {"expires": 200}},
    "checkpoint": {"task": "journal.checkpoint", "schedule": 60.0, "options": {"expires": 30}},
}

BROKER_HOSTS = env.list("OMS_BROKER_HOSTS", default=[] if PRODUCTION else ["127.0.0.1", "localhost", "::1"])
"""Where brokers may be: the desk connects to no other host, whatever a broker's settings say."""
CHECKPOINTS = env("OMS_CHECKPOINTS", default=str(Path(env("OMS_DATA", default=str(BASE_DIR / "var"))) / "checkpoints"))
"""Where the heads of the audit chains are exported to; best a folder that the database's people can't write."""
LEASE_SECONDS = 10
"""How long a worker may hold a claimed submission; a call to a broker must end well inside."""
ORDER_ENTRY = env("OMS_ENTRY", default="thin")
"""`thin`: POST orders and orders/batch are served ahead of Django; `views`: by the REST views."""
if PRODUCTION and "OMS_CRASH" in os.environ:
    raise ImproperlyConfigured("OMS_CRASH is for fault tests; unset it.")
SESSIONS = env.bool("OMS_SESSIONS", default=PRODUCTION)  # instruments keep the hours of their exchange
BUILD = env("OMS_BUILD", default="")

METRICS_TOKEN = env("OMS_METRICS_TOKEN", default="")
"""What a scraper sends as a bearer token; without one set, only officers and, in a demo, this machine may read /metrics."""

configure_logs(
    json_lines=PRODUCTION,
    secrets=[
        "" if SECRET_KEY == KNOWN_KEY else SECRET_KEY,
        METRICS_TOKEN,
        *SEAL_KEYS,
        str(DATABASES["default"].get("PASSWORD") or ""),
        urlsplit(REDIS_URL).password or "",
    ],
)
LOGGING_CONFIG = None
