"""Loads a cluster with pictures and text for a while, a third of whose readers leave, and holds
what is left against what was there before.

soak.py BASE SECONDS ADMIN...
    ADMIN: the workers' admin addresses (http://127.0.0.1:PORT). Prints JSON: requests, leavers,
    errors; the device's memory each ten seconds; what the workers still hold one second after the
    end. Ends with 1 where anything is held, failed, or grew. Needs numpy, Pillow, nvidia-smi.
"""

import json
import random
import subprocess
import sys
import threading
import time
import urllib.request

from through_gateway import WORDS, body_of, jpeg, picture_part, post, text_part

READERS = 48


def device_mib():
    out = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"],
                         capture_output=True, text=True, check=False).stdout
    return int(out.split()[0])


def held(admins):
    """The gauges of what workers hold that are not 0."""
    left = {}
    for admin in admins:
        with urllib.request.urlopen(admin + "/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("triptych_held_") and float(line.rsplit(" ", 1)[1]) != 0:
                    left[admin + " " + line.split(" ")[0]] = line.rsplit(" ", 1)[1]
    return left


class Soak:
    def __init__(self, base, end):
        self.base, self.end = base, end
        with urllib.request.urlopen(base + "/v1/models") as answer:
            self.model = json.load(answer)["data"][0]["id"]
        self.shots = [jpeg(seed) for seed in range(16)]
        self.lock = threading.Lock()
        self.seen = {"requests": 0, "left": 0, "errors": {}}

    def count(self, name):
        with self.lock:
            self.seen[name] += 1

    def read(self, draws):
        parts = [text_part(f"{WORDS} {draws.random()}")]
        for _ in range(draws.choice([0, 1, 1, 2])):
            parts.insert(0, picture_part(draws.choice(self.shots), "jpeg"))
        body = body_of(self.model, parts, draws.choice([1, 16, 64, 256]), True)
        leaves_after = draws.randrange(12) if draws.random() < 1 / 3 else None
        with post(self.base, body) as answer:
            for number, line in enumerate(answer):
                if number == leaves_after:
                    return self.count("left")
                if line.startswith(b"data: {") and b'"error"' in line:
                    raise RuntimeError(line[:200])
        return self.count("requests")

    def reader(self, seed):
        draws = random.Random(seed)
        while time.time() < self.end:
            try:
                self.read(draws)
            except Exception as error:  # pylint: disable=broad-except
                with self.lock:
                    name = repr(error)[:160]
                    self.seen["errors"][name] = self.seen["errors"].get(name, 0) + 1


def main():
    base, seconds, admins = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
    soak = Soak(base, time.time() + seconds)
    readers = [threading.Thread(target=soak.reader, args=(seed,)) for seed in range(READERS)]
    for reader in readers:
        reader.start()
    memory = []
    while any(reader.is_alive() for reader in readers):
        memory.append(device_mib())
        time.sleep(min(10, seconds / 10))
    time.sleep(1)
    left = held(admins)
    # The first readings are of a process that still makes its buffers.
    grown = memory[-1] - memory[len(memory) // 3]
    print(json.dumps({**soak.seen, "device_mib": memory, "grown_mib": grown, "held": left}))
    return 1 if left or soak.seen["errors"] or grown > 64 else 0


if __name__ == "__main__":
    sys.exit(main())
