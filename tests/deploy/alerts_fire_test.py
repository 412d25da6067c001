"""Defended: alerts fire by their faults, from a cold start, in a real Prometheus that scrapes a
real cluster. Faults that nobody can cause from outside are promtool's, in alerts_test.yml.

usage: alerts_fire_test.py --root DIR --bin DIR
Time is shortened: rates over 15 s, nothing has to last. Ends with 77 where Prometheus is not here.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

SKIPPED = 77
PATIENCE = 120.0
WORKERS = "encode+prefill=1,decode=1"


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


def expect(condition, message):
    if not condition:
        print(f"FAILED: {message}")
        sys.exit(1)


def get(address, path):
    with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as reply:
        return json.load(reply)


def wait(what, condition):
    until = time.monotonic() + PATIENCE
    while not condition():
        expect(time.monotonic() < until, f"{what}: not within {PATIENCE} s")
        time.sleep(0.2)


class Cluster:
    """`triptych up`, its processes by name, and clients that nobody waits for."""

    def __init__(self, args):
        self.program = os.path.join(args.bin, "triptych")
        self.process = subprocess.Popen(
            [self.program, "up", f"--model={args.root}/assets/triptych-16m", f"--workers={WORKERS}",
             "--http=127.0.0.1:0", "--grpc=127.0.0.1:0", "--scheduler-flags=--role-grace=300s",
             "--gateway-flags=--max-requests=16"],
            stdout=subprocess.PIPE, text=True)
        ready = next((line for line in self.process.stdout if line.startswith("ready")), "")
        expect(ready, "the cluster did not start")
        self.http = re.search(r"http=(\S+)", ready).group(1)
        self.grpc = re.search(r"grpc=(\S+)", ready).group(1)

    def processes(self):
        text = subprocess.run([self.program, "status", "--json", f"--server={self.grpc}"],
                              check=True, capture_output=True, text=True).stdout
        return {process["name"]: process for process in json.loads(text)["processes"]}

    def signal(self, name, number):
        os.kill(self.processes()[name]["pid"], number)

    @contextlib.contextmanager
    def stopped(self, name):
        pid = self.processes()[name]["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def ask(self, count, **more):
        # Ends at no first token, so it needs every stage.
        body = json.dumps({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4,
                           "ignore_eos": True, **more}).encode()

        def one():
            request = urllib.request.Request(f"http://{self.http}/v1/chat/completions", body,
                                             {"Content-Type": "application/json"})
            with contextlib.suppress(urllib.error.URLError, OSError):
                urllib.request.urlopen(request, timeout=PATIENCE).read()

        for _ in range(count):
            threading.Thread(target=one, daemon=True).start()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def configuration(root, folder, cluster):
    with open(os.path.join(root, "deploy/prometheus/alerts.yml"), encoding="utf-8") as file:
        rules = file.read()
    rules = re.sub(r"for: \w+", "for: 0s", rules).replace("[5m]", "[15s]").replace("[10m]", "[1m]")
    with open(f"{folder}/alerts.yml", "w", encoding="utf-8") as file:
        file.write(rules)
    groups = []
    for process in cluster.processes().values():
        kind = process["roles"] if process["roles"] in ("scheduler", "gateway") else "worker"
        groups.append({"targets": [process["admin"]], "labels": {"process": kind}})
    with open(f"{folder}/prometheus.yml", "w", encoding="utf-8") as file:
        json.dump({"global": {"scrape_interval": "1s", "scrape_timeout": "1s",
                              "evaluation_interval": "1s"},
                   "rule_files": ["alerts.yml"],
                   "scrape_configs": [{"job_name": "triptych", "static_configs": groups}]}, file)


@contextlib.contextmanager
def prometheus(program, folder):
    """Its address. The port is chosen by the kernel, and read from the log."""
    log = f"{folder}/log"
    with open(log, "w", encoding="utf-8") as out:
        process = subprocess.Popen(
            [program, f"--config.file={folder}/prometheus.yml",
             f"--storage.tsdb.path={folder}/data", "--web.listen-address=127.0.0.1:0"],
            stdout=out, stderr=out)
    try:
        def listening():
            with open(log, encoding="utf-8") as file:
                return re.search(r"Listening on.*address=(127\.0\.0\.1:\d+)", file.read())
        wait("Prometheus listens", listening)
        yield listening().group(1)
    finally:
        process.terminate()
        process.wait(30)


def run(args, program, folder):
    cluster = Cluster(args)
    try:
        configuration(args.root, folder, cluster)
        with prometheus(program, folder) as address:
            faults(cluster, lambda: {alert["labels"]["alertname"] for alert in
                                     get(address, "/api/v1/alerts")["data"]["alerts"]})
    finally:
        cluster.stop()


def faults(cluster, firing):
    def fires(*alerts):
        missing = set(alerts)

        def none_is_missing():
            missing.difference_update(firing())
            return not missing

        wait(f"{', '.join(alerts)} fire", none_is_missing)
        print("fired:", *alerts)

    # Before the first scrape a scheduler is missing.
    time.sleep(3)
    wait("at rest nothing fires", lambda: not firing())
    with cluster.stopped("encode+prefill-0"):
        cluster.ask(4)
        time.sleep(7)
    fires("TriptychTtftSlow")
    with cluster.stopped("decode-0"):
        fires("TriptychProcessDown", "TriptychStageWithoutWorkers")
        cluster.ask(8, timeout_ms=15000)
        fires("TriptychQueueOld", "TriptychDeadlinesMissed")
        cluster.ask(100, timeout_ms=15000)
        fires("TriptychRefusing")
    with cluster.stopped("scheduler"):
        fires("TriptychNoScheduler")
    killed = set()

    def kill_a_new_one():
        """A status is of a moment ago: the process that it names may be gone, or killed already."""
        process = cluster.processes()["decode-0"]
        if process["state"] != "ready" or process["pid"] in killed:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(process["pid"], signal.SIGKILL)
            killed.add(process["pid"])
        return process["pid"] in killed

    for _ in range(5):
        wait("decode-0 is there, to be killed", kill_a_new_one)
    fires("TriptychWorkersLost")
    gateway = cluster.processes()["gateway"]["pid"]
    opened = len(os.listdir(f"/proc/{gateway}/fd"))
    subprocess.run(["prlimit", f"--pid={gateway}", f"--nofile={opened + 4}:{opened + 4}"],
                   check=True)
    fires("TriptychDescriptorsShort")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True)
    parser.add_argument("--bin", required=True)
    args = parser.parse_args()
    args.root, args.bin = os.path.abspath(args.root), os.path.abspath(args.bin)
    program = os.path.join(args.root, "build-tools", "prometheus")
    if not os.path.exists(program):
        program = shutil.which("prometheus")
    if not program:
        skip("no prometheus here")
    if not os.path.exists(os.path.join(args.bin, "triptych")):
        skip("triptych is not built")
    with tempfile.TemporaryDirectory() as folder:
        run(args, program, folder)


if __name__ == "__main__":
    main()
