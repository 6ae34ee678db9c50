"""Whether a run of Schemathesis showed anything: `judge.py OPENAPI CALLS`.

Every operation must have been called and must have succeeded, or nothing was learned about its
answers; and the cluster must not have hidden behind 503 and 504.
"""

import json
import sys

UNAVAILABLE_SHARE_MAX = 0.02
# Nothing in the shop is given up by the sandbox gateway, so there is no letter to read or resolve;
# tests/it/http/tasks.rs has some.
NEVER_SUCCEED = {
    "GET /admin/v1/dead-letters/{id}",
    "POST /admin/v1/dead-letters/{id}/retry",
    "POST /admin/v1/dead-letters/{id}/discard",
    # The cluster is needed as it is; tests/cluster/members.rs has nodes leave.
    "POST /admin/v1/members/{name}/leave",
    # It holds data, and nothing that is made up is a backup; tests/it/http/backup.rs has some that are.
    "POST /admin/v1/restore",
    # The nodes are not started for faults; tests/it/http/faults.rs has one that is.
    "GET /admin/v1/faults",
    "POST /admin/v1/faults",
    "DELETE /admin/v1/faults/{id}",
}


def main():
    openapi, calls = (json.load(open(path, encoding="utf-8")) for path in sys.argv[1:3])
    calls = calls["operations"]
    described = {f"{method.upper()} {path}" for path, methods in openapi["paths"].items() for method in methods}
    # What the run began with; Schemathesis does not ask for it again.
    described.discard("GET /openapi.json")
    wrong = [f"{name}: never called" for name in sorted(described - calls.keys())]
    for name in sorted(described & calls.keys()):
        if not any(status[0] in "23" for status in calls[name]) and name not in NEVER_SUCCEED:
            wrong.append(f"{name}: never succeeded, only {dict(calls[name])}")
    total = sum(sum(statuses.values()) for statuses in calls.values())
    away = sum(statuses.get("503", 0) + statuses.get("504", 0) for statuses in calls.values())
    if away > total * UNAVAILABLE_SHARE_MAX:
        wrong.append(f"{away} of {total} calls were answered 503 or 504")
    print("\n".join(wrong) or f"{total} calls of {len(calls)} operations; {away} were answered 503 or 504")
    return 1 if wrong else 0


sys.exit(main())
