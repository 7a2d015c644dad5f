"""Settings of the naive desk: what most people would write, tuned by the one setting that matters most."""

import environ

env = environ.Env()
SECRET_KEY = "benchmark"
ALLOWED_HOSTS = ["*"]
DATABASES = {"default": env.db("DATABASE_URL")}
DATABASES["default"]["CONN_MAX_AGE"] = None
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "rest_framework",
    "knox",
    "simple_history",
    "tests.benchmarks.naive",
]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware", "simple_history.middleware.HistoryRequestMiddleware"]
ROOT_URLCONF = "tests.benchmarks.naive.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
MIGRATION_MODULES = {"naive": None}
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["knox.auth.TokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
}
CELERY_BROKER_URL = env("REDIS_URL")
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_DB_REUSE_MAX = 100_000
CELERY_TASK_DEFAULT_QUEUE = "naive"
