"""Makes one of everything, in the states that routes ask for: `seed.py URL DIRECTORY`.

Writes the ids to DIRECTORY, in the format of Schemathesis' dictionaries.
"""

import json
import pathlib
import sys
import time
import urllib.error
import urllib.request

URL, DIRECTORY = sys.argv[1], pathlib.Path(sys.argv[2])
CARD = "pm_card_ok"
# There may be 16 endpoints, and some are made later.
EACH = 6


def send(method, path, body=None, key=None):
    headers = {"content-type": "application/json", "prefer": "wait=10"}
    if key:
        headers["idempotency-key"] = key
    # As a client does: the same request with the same key, until the cluster is there.
    for attempt in range(10):
        request = urllib.request.Request(URL + path, json.dumps(body or {}).encode(), headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            if error.code not in (429, 503, 504) or attempt == 9:
                sys.exit(f"{method} {path}: {error.code} {error.read().decode()}")
            time.sleep(float(error.headers["retry-after"]))


def order(key):
    line = {"sku": "mug-blue", "quantity": 2, "unit_price": 1999}
    body = {"customer_id": "cus_1", "currency": "USD", "payment_method": CARD, "items": [line]}
    return send("POST", "/v1/orders", body, key)["id"]


def fulfilled_order(key):
    made = order(key)
    send("POST", f"/v1/orders/{made}/fulfillments", key=f"{key}-parcel")
    return made


def payment(key):
    body = {"amount": {"amount": 2000, "currency": "USD"}, "payment_method": CARD}
    return send("POST", "/v1/payments", body, key)["id"]


def captured_payment(key):
    made = payment(key)
    send("POST", f"/v1/payments/{made}/capture", key=f"{key}-capture")
    return made


def reservation(key):
    body = {"items": [{"sku": "mug-blue", "quantity": 1}], "ttl": "24h"}
    return send("POST", "/v1/reservations", body, key)["id"]


def endpoint(key):
    body = {"url": "http://127.0.0.1:9/hooks", "enabled_events": ["order.needs_attention"]}
    return send("POST", "/v1/webhook_endpoints", body, key)["id"]


def keep(name, ids):
    (DIRECTORY / name).write_text("".join(f'"{one}"\n' for one in ids), encoding="utf-8")


skus = ["mug-blue", "cup"]
for sku in skus:
    send("PUT", f"/v1/inventory/{sku}", {"on_hand": 1_000_000})
keep("skus", skus)

# What a route uses up is in a list of its own: it finds some, and takes none from another route.
for name, make in {
    "orders": order,
    "orders-to-cancel": order,
    "orders-to-fulfil": order,
    "orders-to-return": fulfilled_order,
    "payments": payment,
    "payments-to-capture": payment,
    "payments-to-refund": captured_payment,
    "payments-to-void": payment,
    "reservations": reservation,
    "reservations-to-commit": reservation,
    "reservations-to-extend": reservation,
    "reservations-to-release": reservation,
    "endpoints": endpoint,
    "endpoints-to-delete": endpoint,
}.items():
    keep(name, [make(f"seed-{name}-{number}") for number in range(EACH)])
