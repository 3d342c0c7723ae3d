"""Hooks for schemathesis: every request that it makes up is signed, and some name calls and agents that there are.

    SCHEMATHESIS_HOOKS=fuzz  AION_TENANT=…  AION_SECRET=…  AION_TOKEN=…  AION_AGENT_ID=…  AION_CALLS=a.b,c.d  schemathesis run …
"""

import hashlib
import hmac
import os
import random

import requests
import schemathesis

SECRET = os.environ["AION_SECRET"].encode()
CALLS = os.environ["AION_CALLS"].split(",")


class Signed(requests.auth.AuthBase):
    """Signs what is sent, to the byte. The doors that take a token find one; each door looks at its own alone."""

    def __call__(self, request):
        body = request.body or b""
        body = body.encode() if isinstance(body, str) else body
        if not isinstance(body, bytes):
            # What comes in pieces (a form's file) is signed as if it were nothing, and refused.
            body = b""
        for name in ("X-Timestamp", "X-Nonce"):
            # Made up, they would be part of what is signed.
            request.headers.pop(name, None)
        request.headers["X-Tenant-Id"] = os.environ["AION_TENANT"]
        request.headers["X-Sig-HMAC"] = hmac.new(SECRET, body, hashlib.sha256).hexdigest()
        request.headers["Authorization"] = "Bearer " + os.environ["AION_TOKEN"]
        return request


schemathesis.auth.set_from_requests(Signed())


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    if path_parameters and "name" in path_parameters and random.random() < 0.7:
        path_parameters["name"] = random.choice(CALLS)
    return path_parameters


@schemathesis.hook
def map_body(context, body):
    """Bodies that get past the first check: of an agent that is there, and without a name that differs from the path's."""
    if isinstance(body, dict) and "agent_id" in body and random.random() < 0.7:
        body["agent_id"] = os.environ["AION_AGENT_ID"]
        body.pop("syscall", None)
    return body
