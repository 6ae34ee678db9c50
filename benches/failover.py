#!/usr/bin/env python3
"""Kills the owner of a shard with SIGKILL, again and again, and measures how long it takes until the
next write to that shard is acknowledged through another node.

    cargo build --release && python3 benches/failover.py [--kills 20] [--binary target/release/quorate]

Starts three nodes of its own on loopback, in a temporary directory, and ends them (and only them)."""
import argparse, http.client, json, os, signal, socket, statistics, subprocess, sys, tempfile, time

parser = argparse.ArgumentParser()
parser.add_argument("--kills", type=int, default=20)
parser.add_argument("--binary", default="target/release/quorate")
args = parser.parse_args()


def free_port():
    """A port that is free for TCP and UDP at the moment."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        udp.bind(("127.0.0.1", tcp.getsockname()[1]))
        return tcp.getsockname()[1]


ports = [(free_port(), free_port()) for _ in range(3)]
seeds = ",".join(f"127.0.0.1:{cluster}" for cluster, _ in ports)
work = tempfile.mkdtemp(prefix="quorate-failover-")
nodes = [None] * 3


def start(i):
    cluster, web = ports[i]
    log = open(f"{work}/n{i + 1}.log", "ab")
    nodes[i] = subprocess.Popen(
        [args.binary, "node", "--name", f"n{i + 1}", "--listen", f"127.0.0.1:{cluster}", "--http", f"127.0.0.1:{web}",
         "--data-dir", f"{work}/n{i + 1}", "--seeds", seeds], stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def call(i, method, path, body=None, timeout=5.0):
    connection = http.client.HTTPConnection("127.0.0.1", ports[i][1], timeout=timeout)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None,
                           {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")
    finally:
        connection.close()


def until(reason, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            found = condition()
            if found:
                return found
        except (OSError, http.client.HTTPException, ValueError):
            pass
        time.sleep(0.01)
    sys.exit(f"gave up waiting: {reason} (logs in {work})")


def ready(i):
    return until(f"n{i + 1} is ready", lambda: call(i, "GET", "/readyz")[0] == 200)


gaps = []
try:
    for i in range(3):
        start(i)
    for i in range(3):
        ready(i)
    sku = "failover"
    until("stock", lambda: call(0, "PUT", f"/v1/inventory/{sku}", {"on_hand": 1_000_000})[0] == 200)
    names = {}
    for kill in range(args.kills):
        members = call(0, "GET", "/admin/v1/members")[1]["data"]
        names = {m["node"]: m["name"] for m in members}
        status = until("an owner is known", lambda: call(0, "GET", f"/admin/v1/entities/stock/{sku}")[1])
        owner = int(names[status["owner"]][1:]) - 1
        other = (owner + 1) % 3
        nodes[owner].send_signal(signal.SIGKILL)
        killed = time.monotonic()
        nodes[owner].wait()

        def written():
            path = f"/v1/inventory/{sku}/adjustments"
            return call(other, "POST", path, {"delta": 1, "reason": "failover"}, timeout=3.0)[0] == 200

        until("a write after the kill", written)
        gaps.append(time.monotonic() - killed)
        print(f"kill {kill + 1:2}: n{owner + 1} owned it, {gaps[-1] * 1000:6.0f} ms", flush=True)
        start(owner)
        ready(owner)
        until("every shard has an owner", lambda: all(
            shard["owner"] is not None for i in range(3) for shard in call(i, "GET", "/admin/v1/shards")[1]["data"]))
    gaps.sort()
    p99 = gaps[min(len(gaps) - 1, int(len(gaps) * 0.99))]
    print(f"{len(gaps)} kills: median {statistics.median(gaps) * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms, "
          f"max {gaps[-1] * 1000:.0f} ms")
finally:
    for node in nodes:
        if node and node.poll() is None:
            node.send_signal(signal.SIGTERM)
    for node in nodes:
        if node:
            try:
                node.wait(timeout=20)
            except subprocess.TimeoutExpired:
                node.kill()
