"""Defended: a scheduler that comes back at another address behind its name is found within 3 s, and
no request that runs or waits meanwhile fails.

usage: new_address_test.py --root DIR --bin DIR
Runs in a mount namespace of its own, where /etc/hosts is the test's; ends with 77 where the machine
allows none.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

SKIPPED = 77
NAME = "scheduler.triptych.test"
PROGRAMS = ("triptych", "triptych-scheduler", "triptych-gateway", "triptych-worker")
MODEL = "assets/triptych-16m"
FOUND_WITHIN = 3.0


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


def enter_namespace():
    """Runs this script again where mounts are its own."""
    if os.environ.get("NEW_ADDRESS_TEST") == "inside":
        return
    command = ["unshare", "--mount"] + ([] if os.getuid() == 0 else ["--map-root-user"])
    try:
        allowed = subprocess.run([*command, "true"], check=False, capture_output=True).returncode
    except FileNotFoundError:
        allowed = 1
    if allowed != 0:
        skip("no mount namespaces here")
    done = subprocess.run([*command, sys.executable, *sys.argv], check=False,
                          env={**os.environ, "NEW_ADDRESS_TEST": "inside"})
    sys.exit(done.returncode)


class Cluster:
    def __init__(self, args, hosts, folder):
        self.args, self.hosts, self.folder, self.processes = args, hosts, folder, []
        subprocess.run([os.path.join(args.bin, "triptych"), "certificates", folder], check=True)

    def start(self, program, *flags):
        """The addresses that the process says it listens on."""
        path = os.path.join(self.args.bin, program)
        role = program.removeprefix("triptych-")
        tls = [f"--tls-ca={self.folder}/ca.pem", f"--tls-cert={self.folder}/{role}.pem",
               f"--tls-key={self.folder}/{role}.key"]
        process = subprocess.Popen([path, *flags, *tls], cwd=self.args.root, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL, text=True)
        self.processes.append(process)
        line = process.stdout.readline()
        return process, dict(re.findall(r"(\w+)=(\S+)", line))

    def name_is(self, address):
        # In place: the file is mounted.
        with open(self.hosts, "w", encoding="utf-8") as file:
            file.write(f"127.0.0.1 localhost\n{address} {NAME}\n" if address else
                       "127.0.0.1 localhost\n")

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()


def ready(admin):
    try:
        with urllib.request.urlopen(f"http://{admin}/readyz", timeout=1) as reply:
            return reply.status == 200
    except OSError:
        return False


def wait_ready(admin, seconds):
    begun = time.monotonic()
    while not ready(admin):
        if time.monotonic() - begun > seconds:
            return None
        time.sleep(0.02)
    return time.monotonic() - begun


def ask(http, outcomes):
    body = json.dumps({"messages": [{"role": "user", "content": "Tell a story."}],
                       "max_tokens": 20, "ignore_eos": True}).encode()
    request = urllib.request.Request(f"http://{http}/v1/chat/completions", body,
                                     {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            outcomes.append(reply.status)
    except OSError as error:
        outcomes.append(str(error))


def run(args, hosts, folder):
    cluster = Cluster(args, hosts, folder)
    try:
        cluster.name_is("127.0.0.2")
        scheduler, addresses = cluster.start("triptych-scheduler", "--listen=127.0.0.2:0")
        port = addresses["grpc"].rsplit(":", 1)[1]
        name = f"--scheduler={NAME}:{port}"
        _, gateway = cluster.start("triptych-gateway", name, f"--model={MODEL}")
        cluster.start("triptych-worker", name, f"--model={MODEL}", "--threads=1")
        assert wait_ready(gateway["admin"], 60) is not None, "the cluster does not come up"
        outcomes, askers = [], []

        def ask_one():
            askers.append(threading.Thread(target=ask, args=(gateway["http"], outcomes)))
            askers[-1].start()

        for _ in range(3):
            ask_one()
        scheduler.kill()
        scheduler.wait()
        cluster.name_is(None)
        time.sleep(1)  # of a pod's move: meanwhile there is no such name
        cluster.name_is("127.0.0.3")
        cluster.start("triptych-scheduler", f"--listen=127.0.0.3:{port}")
        ask_one()
        found = wait_ready(gateway["admin"], 60)
        ask_one()
        for asker in askers:
            asker.join()
        print(f"found after {found} s; answers {outcomes}")
        return found is not None and found < FOUND_WITHIN and outcomes == [200] * 5
    finally:
        cluster.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True)
    parser.add_argument("--bin", required=True)
    args = parser.parse_args()
    if not all(os.path.exists(os.path.join(args.bin, p)) for p in PROGRAMS):
        skip("the programs are not built")
    enter_namespace()
    with tempfile.NamedTemporaryFile(suffix="-hosts") as hosts, \
            tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "--bind", hosts.name, "/etc/hosts"], check=True)
        try:
            good = run(args, hosts.name, folder)
        finally:
            subprocess.run(["umount", "/etc/hosts"], check=True)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
