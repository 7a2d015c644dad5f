"""The naive desk behind the same server as ours."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.benchmarks.naive.settings")
from django.core.asgi import get_asgi_application

application = get_asgi_application()
