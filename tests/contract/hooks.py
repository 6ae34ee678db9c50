"""What Schemathesis cannot know of this API.

- A key belongs to the first request that carries it, so a documented example of a key is replaced
  by a fresh one: else every request after the first would be refused for its key alone. The examples of
  a version and of an event are left out: they are another resource's. So is the usual `limit` of a
  page where a stream is asked for.
- No description knows an id that exists. The ones of schemathesis.toml do: the first is put there as an
  example, so that each route is asked once for what it is for, however little time there is.
- For JSON Schema 1.0 is an integer. Here whole numbers are read as digits, and 1.0 is refused
  (`extract::tests` has it); so none is sent.
- Requests go round the nodes of the cluster: any node answers any request.
- A member that leaves takes a node with it, and the cluster is needed as it is: nobody of such a name
  is asked to.
- Some rules cannot be said in a schema. RULES lists them; a request that breaks one of them, and
  nothing else, is refused as documented. docs/decisions/0026-contract-from-outside.md has the reasons.
- A cluster may say 503 or 504, as documented and with `retry-after`. `judge.py` bounds how often.

Everything else that any check finds fails the run.
"""

import atexit
import itertools
import json
import os
import pathlib
import re
import tomllib
from collections import Counter

import schemathesis
from requests.adapters import HTTPAdapter

NODES = os.environ["CONTRACT_NODES"].split(",")
CALLS_FILE = os.environ["CONTRACT_CALLS"]
EXAMPLE_KEY = "6f1f2f0e-5d4e-4b8f-9a54-0f5f6f1d2c3b"
OF_ANOTHER = {"if-match": '"3"', "last-event-id": "evt_6h303vaz912sekgbtnhkqjstc6_2"}
EVENT_STREAM = "text/event-stream"
CONFIG = pathlib.Path(__file__).with_name("schemathesis.toml")
LEAVE = "/admin/v1/members/{name}/leave"

# code -> fields that may be the only ones named in `errors`; None: no field is named
RULES = {
    # The state of the resource and of the key, which no schema knows.
    "version-mismatch": {None},
    "idempotency-key-reused": {None},
    # No bytes that are made up are a backup.
    "damaged-backup": {None},
    # Another resource's id is well-formed, too.
    "invalid-parameter": {"starting_after"},
    "invalid-header": {"last-event-id"},
    "validation-failed": {
        "items",  # the total of an order; a SKU that is not in the order
        "metadata",  # bytes, not characters
        "ttl",  # 1s to 24h, in any of five units
        "amount.currency",  # the payment's own
        "enabled_events",
        "url",  # an address that could be one
        "grace",  # 0s to 7d, in any of five units
    },
}
# What a stream does not take: its parameters are those of a page without these.
NOT_OF_A_STREAM = {"limit", "consistency"}
USUAL_LIMIT = 20
UNAVAILABLE = {503: {"no-quorum"}, 504: {"outcome-unknown"}, 429: {"overloaded"}}

_turn = itertools.cycle(NODES)
_number = itertools.count()
_calls = {}
_send = HTTPAdapter.send


def _send_to_next(adapter, request, **kwargs):
    request.url = request.url.replace(NODES[0], next(_turn), 1)
    return _send(adapter, request, **kwargs)


# Schemathesis knows one address; its hooks cannot choose another.
HTTPAdapter.send = _send_to_next


@schemathesis.hook
def before_load_schema(context, raw_schema):
    config = tomllib.loads(CONFIG.read_text(encoding="utf-8"))
    for operation in config["operations"]:
        for place, value in operation.get("parameters", {}).items():
            ids = (CONFIG.parent / config["dictionaries"][value["dictionary"]]["from-file"]).read_text(encoding="utf-8")
            example = json.loads(ids.splitlines()[0])
            names = operation["include-name"]
            for name in [names] if isinstance(names, str) else names:
                method, path = name.split(" ")
                for parameter in raw_schema["paths"][path][method.lower()]["parameters"]:
                    if f"{parameter['in']}.{parameter['name']}" == place:
                        parameter["example"] = example


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.operation.path == LEAVE and re.fullmatch(r"n\d+", str(case.path_parameters.get("name"))):
        case.path_parameters["name"] = "nobody"
    for name, value in list((case.headers or {}).items()):
        if name.lower() == "idempotency-key" and value == EXAMPLE_KEY:
            case.headers[name] = f"contract-{next(_number)}"
        if value == OF_ANOTHER.get(name.lower()):
            del case.headers[name]
    if _wants_stream(case) and (case.query or {}).get("limit") == USUAL_LIMIT:
        del case.query["limit"]
    if isinstance(case.body, (dict, list)) and repr(whole := _whole(case.body)) != repr(case.body):
        case.body = whole


def _whole(value):
    if isinstance(value, dict):
        return {name: _whole(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@schemathesis.hook
def after_call(context, case, response):
    label = case.operation.label
    if case.method.lower() == case.operation.method.lower():
        _calls.setdefault(label, Counter())[str(response.status_code)] += 1


@schemathesis.hook
def filter_failure(context, failure, case, response):
    kind = type(failure).__name__
    if kind == "RejectedPositiveData":
        return not (_is_by_rule(case, response) or _has_another_tag(case, response))
    if kind == "ServerError":
        return not _is_unavailable(response)
    return True


def _wants_stream(case):
    return EVENT_STREAM in str((case.headers or {}).get("Accept", ""))


def _problem(response):
    try:
        problem = json.loads(response.content)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _is_by_rule(case, response):
    problem = _problem(response)
    # Which events there are is in the documents; one of the list is `enabled_events[3]`.
    names = (error["field"] for error in problem.get("errors", []))
    fields = {"enabled_events" if name.startswith("enabled_events[") else name for name in names} or {None}
    allowed = set(RULES.get(problem.get("code"), ()))
    if _wants_stream(case) and problem.get("code") == "invalid-parameter":
        allowed |= NOT_OF_A_STREAM
    return fields <= allowed


def _has_another_tag(case, response):
    """Data that is called valid, but whose tag is none by the described pattern (seen: `"3`)."""
    problem = _problem(response)
    tags = [value for name, value in (case.headers or {}).items() if name.lower() == "if-match"]
    named = [error["field"] for error in problem.get("errors", [])] == ["if-match"]
    return named and not any(re.fullmatch('"(0|[1-9][0-9]{0,18})"', str(tag)) for tag in tags)


def _is_unavailable(response):
    codes = UNAVAILABLE.get(response.status_code, ())
    return _problem(response).get("code") in codes and "retry-after" in response.headers


@atexit.register
def _write_calls():
    if _calls:
        with open(CALLS_FILE, "w", encoding="utf-8") as file:
            json.dump({"operations": _calls}, file, indent=1, sort_keys=True)
