"""Test a caller's first steps: register, get a token, predict, find the bill.

Reads AUTH_URL, INFERENCE_URL and BILLING_URL. Unless SAMPLE_MODEL is `true`, it ends before the
first step that needs a model. Accounts cannot be deleted, so every run uses the same one: its name
and password are derived from ACCOUNT_SEED, which is secret.
"""

import hashlib
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

WINE = [14.23, 1.71, 2.43, 15.6, 127, 2.8, 3.06, 0.28, 2.29, 5.64, 1.04, 3.92, 1065]
DEADLINE_S = 120


def call(service, path, *, token=None, form=None, body=None):
    """Return the status and JSON of a response; retry while the service cannot be reached."""
    data, headers = None, {}
    if form is not None:
        data = urllib.parse.urlencode(form).encode()
    elif body is not None:
        data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
    if token:
        headers["Authorization"] = f"Bearer {token}"
    url = os.environ[f"{service.upper()}_URL"] + path
    for _ in range(30):
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, data, headers), timeout=10
            ) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            if error.code != 503:
                return error.code, json.load(error)
        except OSError:
            pass
        time.sleep(2)
    sys.exit(f"error: {service} does not respond")


def expect(expected, response, step):
    """Return a response's JSON if its status is the expected one; exit otherwise."""
    status, document = response
    if status != expected:
        sys.exit(f"error: {step}: got {status}, expected {expected}: {json.dumps(document)}")
    print(f"{step}: {status}")
    return document


def newest_receipt(token):
    """Return the receipt of the caller's last prediction, or None before the first."""
    path = "/usage/events?limit=1"
    return next(iter(expect(200, call("billing", path, token=token), "receipts")["events"]), None)


def main():
    """Run all steps once."""
    seed = hashlib.sha256(b"helm test " + os.environ["ACCOUNT_SEED"].encode()).hexdigest()
    email, password = f"helm-test-{seed[:8]}@tollgate.example", seed[8:]
    status, document = call("auth", "/register", body={"email": email, "password": password})
    if status in (202, 403):
        print("registration is by invitation or mail; skipping the other steps")
        return
    expect(status if status == 409 else 201, (status, document), "register")
    login = {"grant_type": "password", "username": email, "password": password}
    token = expect(200, call("auth", "/token", form=login), "token")["access_token"]
    expect(401, call("inference", "/v1/models"), "models without a token")
    expect(404, call("inference", "/v1/models/no-such-model", token=token), "unknown model")
    if os.environ["SAMPLE_MODEL"] != "true":
        expect(200, call("billing", "/usage", token=token), "usage")
        return
    deadline = time.monotonic() + DEADLINE_S
    while call("inference", "/v1/models/wine", token=token)[0] != 200:
        if time.monotonic() > deadline:
            sys.exit("error: the sample model is not served")
        time.sleep(2)
    before = newest_receipt(token)
    predict = "/v1/models/wine:predict"
    status, document = call("inference", predict, token=token, body={"instances": [WINE]})
    if status == 402:
        print(f"the default plan does not cover this: {document['detail']}")
        return
    expect(200, (status, document), "predict")
    while (receipt := newest_receipt(token)) in (None, before):
        if time.monotonic() > deadline:
            sys.exit("error: the bill does not show the prediction")
        time.sleep(1)
    print(f"bill: {receipt['amount']} {receipt['currency']}")


if __name__ == "__main__":
    main()
