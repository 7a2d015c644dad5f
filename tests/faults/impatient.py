"""The worker's Celery application with a visibility timeout of a second: every message is soon given to another."""

from oms.celery import app

app.conf.broker_transport_options = app.conf.broker_transport_options | {
    "visibility_timeout": 1,
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
}
__all__ = ["app"]
