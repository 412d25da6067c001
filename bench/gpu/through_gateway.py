"""Asks a running cluster over its OpenAI API and prints what it saw as JSON.

through_gateway.py BASE questions DIR   the questions of DIR/questions.jsonl, 16 at once: how many
                                        answers equal the reference text
through_gateway.py BASE pictures        drawn JPEGs of 1024 x 1024 and 100 words: first token, time
                                        a token, 32 of one token and 64 of 128 tokens at once
Needs numpy and Pillow for the pictures.
"""

import base64
import io
import json
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

WORDS = " ".join(["is"] * 100)  # 100 tokens of the small tokenizer


def body_of(model, content, max_tokens, stream):
    body = {"model": model, "stream": stream, "max_tokens": max_tokens, "temperature": 0,
            "messages": [{"role": "user", "content": content}]}
    if stream:
        body["stream_options"] = {"include_usage": True}
    return json.dumps(body).encode()


def post(base, body):
    request = urllib.request.Request(base + "/v1/chat/completions", body,
                                     {"Content-Type": "application/json"})
    return urllib.request.urlopen(request, timeout=120)


def seconds(base, body):
    start = time.time()
    with post(base, body) as answer:
        answer.read()
    return time.time() - start


def whole(base, body):
    with post(base, body) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]


def text_part(text):
    return {"type": "text", "text": text}


def picture_part(data, kind):
    url = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def ask_questions(base, model, folder):
    with open(folder + "/questions.jsonl", encoding="utf-8") as file:
        questions = [json.loads(line) for line in file]

    def one(question):
        files = []
        for name in question["files"]:
            with open(f"{folder}/{name}", "rb") as file:
                files.append(file.read())
        if question["kind"] == "video":
            frames = ",".join(base64.b64encode(frame).decode() for frame in files)
            parts = [{"type": "video_url", "fps": 2,
                      "video_url": {"url": "data:video/png;base64," + frames}}]
        else:
            parts = [picture_part(data, "png") for data in files]
        content = parts + [text_part(question["question"])]
        return whole(base, body_of(model, content, 96, False))

    start = time.time()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, questions))
    pairs = list(zip(answers, questions))
    return {"of": len(pairs), "same": sum(a == q["reference_text"] for a, q in pairs),
            "right": sum(a == q["answer"] for a, q in pairs), "seconds": time.time() - start}


def jpeg(seed):
    import numpy
    from PIL import Image
    random = numpy.random.default_rng(seed)
    ramp = numpy.linspace(0, 255, 1024)[None, :, None] * numpy.ones((1024, 1, 3))
    pixels = ramp * (0.5 + 0.5 * random.random(3)) + random.normal(0, 8, (1024, 1024, 3))
    out = io.BytesIO()
    Image.fromarray(numpy.clip(pixels, 0, 255).astype("uint8")).save(out, "JPEG", quality=90)
    return out.getvalue()


def show_pictures(base, model):
    shots = [jpeg(seed) for seed in range(64)]

    def content(index):
        return [picture_part(shots[index], "jpeg"), text_part(f"{WORDS} {index}")]

    for index in range(3):
        seconds(base, body_of(model, content(index), 8, True))
    firsts = sorted(seconds(base, body_of(model, content(10 + i), 1, True)) for i in range(10))
    seen = {"first_token_ms": [round(1e3 * first, 1) for first in firsts], "token_ms": []}
    # What drawn weights answer may be no text: tokens are told by what more of them take.
    for _ in range(3):
        one, many = (seconds(base, body_of(model, [text_part(WORDS)], count, True))
                     for count in (1, 201))
        seen["token_ms"].append(round(1e3 * (many - one) / 200, 3))
    for name, count, tokens in (("pictures_a_second", 32, 1), ("requests_a_second", 64, 128)):
        # Made beforehand: the generator's own work is not the server's.
        bodies = [body_of(model, content(i), tokens, False) for i in range(count)]
        for _ in range(3):
            start = time.time()
            with ThreadPoolExecutor(count) as pool:
                list(pool.map(lambda body: whole(base, body), bodies))
            seen.setdefault(name, []).append(round(count / (time.time() - start), 2))
    return seen


def main():
    base = sys.argv[1]
    with urllib.request.urlopen(base + "/v1/models") as answer:
        model = json.load(answer)["data"][0]["id"]
    if sys.argv[2] == "questions":
        print(json.dumps(ask_questions(base, model, sys.argv[3])))
    else:
        print(json.dumps(show_pictures(base, model)))


if __name__ == "__main__":
    main()
