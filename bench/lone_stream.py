#!/usr/bin/env python3
"""Asks a server the same question again and again, alone, and counts the tokens of each chunk.

A server that gives a token to its client when it is made sends one a chunk:

    build/bin/triptych up --model assets/triptych-16m &
    bench/lone_stream.py 127.0.0.1:8080
"""

import argparse
import base64
import collections
import http.client
import json
import pathlib

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "assets" / "examples"


def read_chunks(server, body):
    """Yields the number of tokens in each chunk of one streamed answer."""
    connection = http.client.HTTPConnection(server, timeout=60)
    connection.request("POST", "/v1/chat/completions", json.dumps(body),
                       {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise SystemExit(f"{response.status}: {response.read().decode()}")
    for line in response:
        line = line.strip()
        if not line.startswith(b"data: ") or line == b"data: [DONE]":
            continue
        for choice in json.loads(line[len(b"data: "):]).get("choices", []):
            tokens = (choice.get("logprobs") or {}).get("content") or []
            if tokens:
                yield len(tokens)
    connection.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("server", help="host:port of the OpenAI API")
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--text", default="Transcribe the receipt.")
    parser.add_argument("--picture", default=EXAMPLES / "receipt.png", type=pathlib.Path)
    options = parser.parse_args()

    connection = http.client.HTTPConnection(options.server, timeout=60)
    connection.request("GET", "/v1/models")
    model = json.load(connection.getresponse())["data"][0]["id"]
    url = "data:image/png;base64," + base64.b64encode(options.picture.read_bytes()).decode()
    body = {
        "model": model,
        "stream": True,
        "logprobs": True,
        "temperature": 0,
        "max_tokens": options.max_tokens,
        "messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": options.text},
        ]}],
    }
    sizes = collections.Counter()
    for _ in range(options.requests):
        sizes.update(read_chunks(options.server, body))
    chunks = sum(sizes.values())
    several = chunks - sizes[1]
    print(f"{chunks} chunks, {100 * several / max(1, chunks):.2f} % with more than one token; "
          f"by number of tokens: {dict(sorted(sizes.items()))}")


if __name__ == "__main__":
    main()
