"""Second factors and the terms of tokens. No secret stands here in clear: codes are made from sealed keys, tokens are hashes."""

from django.conf import settings
from django.db import models


class SecondFactor(models.Model):
    """The key that a person's device makes codes from, six digits every half minute (RFC 6238)."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True)
    sealed = models.TextField()  # the key, encrypted; see `oms.runtime.sealing`
    confirmed_at = models.DateTimeField(null=True)  # when the first code proved that the device has it
    last_step = models.BigIntegerField(default=-1)  # the half minute of the last code taken: none is taken twice
    recovery = models.JSONField(default=list)  # hashes of codes for who lost the device, each good once

    def __str__(self) -> str:
        return f"second factor of {self.user_id}"


class TokenTerms(models.Model):
    """What a token may do, of all that its user may. A token without terms may do all of it."""

    digest = models.CharField(max_length=128, primary_key=True)  # the token's
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, db_index=False)
    name = models.CharField(max_length=64, blank=True)
    scopes = models.JSONField()
    created_at = models.DateTimeField()
    replaces = models.CharField(max_length=32, blank=True)  # the first characters of the one that it takes the place of

    class Meta:
        verbose_name_plural = "token terms"

    def __str__(self) -> str:
        return f"{self.name or 'token'} of {self.user_id}"
