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


def payment(key):
    body = {"amount": {"amount": 2000, "currency": "USD"}, "payment_method": CARD}
    return send("POST", "/v1/payments", body, key)["id"]


def reservation(key):
    body = {"items": [{"sku": "mug-blue", "quantity": 1}], "ttl": "24h"}
    return send("POST", "/v1/reservations", body, key)["id"]


def keep(name, ids):
    (DIRECTORY / name).write_text("".join(f'"{one}"\n' for one in ids), encoding="utf-8")


for sku in ("mug-blue", "cup"):
    send("PUT", f"/v1/inventory/{sku}", {"on_hand": 1_000_000})
fulfilled = order("seed-fulfilled")
send("POST", f"/v1/orders/{fulfilled}/fulfillments", key="seed-parcel")
captured = payment("seed-captured")
send("POST", f"/v1/payments/{captured}/capture", key="seed-capture")
keep("orders", [fulfilled, *(order(f"seed-order-{number}") for number in range(12))])
keep("payments", [captured, *(payment(f"seed-payment-{number}") for number in range(12))])
keep("reservations", [reservation(f"seed-reservation-{number}") for number in range(60)])
keep("skus", ["mug-blue", "cup"])
hook = {"url": "http://127.0.0.1:9/hooks", "enabled_events": ["order.needs_attention"]}
keep("endpoints", [send("POST", "/v1/webhook_endpoints", hook, f"seed-hook-{number}")["id"] for number in range(8)])
