"""A caller's first minutes: register, get a token, predict, find the bill.

Reads AUTH_URL, INFERENCE_URL and BILLING_URL. Where the sample model is not served, it checks the token
and that an unknown model is refused instead.
"""

import json
import os
import secrets
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

WINE = [14.23, 1.71, 2.43, 15.6, 127, 2.8, 3.06, 0.28, 2.29, 5.64, 1.04, 3.92, 1065]
DEADLINE_S = 120


def call(service, path, *, token=None, form=None, body=None):
    """The status and JSON of an answer; no connection is tried again for a while."""
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
            ) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 503:
                return error.code, json.load(error)
        except OSError:
            pass
        time.sleep(2)
    sys.exit(f"error: {service} does not answer")


def expect(wanted, got, what):
    """Go on only if an answer has the status it should have."""
    status, answer = got
    if status != wanted:
        sys.exit(f"error: {what}: {status} instead of {wanted}: {json.dumps(answer)}")
    print(f"{what}: {status}")
    return answer


def main():
    """Walk the way once."""
    who = {"email": f"helm-test-{secrets.token_hex(6)}@tollgate.example"}
    password = secrets.token_urlsafe(18)
    status, answer = call("auth", "/register", body={**who, "password": password})
    if status == 403:
        print("registration is by invitation: nothing more can be tried from here")
        return
    expect(201, (status, answer), "register")
    login = {"grant_type": "password", "username": who["email"], "password": password}
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
    predict = "/v1/models/wine:predict"
    expect(200, call("inference", predict, token=token, body={"instances": [WINE]}), "predict")
    while True:
        bill = expect(200, call("billing", "/usage", token=token), "usage")["total"]
        if bill["requests"] == 1:
            print(f"bill: {bill['amount']} {bill['currency']}")
            return
        if time.monotonic() > deadline:
            sys.exit(f"error: the bill does not show the prediction: {bill}")
        time.sleep(1)


if __name__ == "__main__":
    main()
