"""Defended: clients and load tools of the field work unmodified, each against a local cluster.

usage: ecosystem_test.py CASE --root DIR --bin DIR
Runs in build-tools/ecosystem, which `./run ecosystem` fills with the versions of requirements.txt.
Ends with 77 where that or the binaries are missing; ctest shows that as skipped.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request

SKIPPED = 77
MODEL = "triptych-16m"


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


def expect(condition, message):
    if not condition:
        print(f"FAILED: {message}")
        sys.exit(1)


def enter_environment(root):
    home = os.path.join(root, "build-tools", "ecosystem")
    python = os.path.join(home, "bin", "python")
    if not os.path.exists(python):
        skip("build-tools/ecosystem is not here; ./run ecosystem makes it")
    if os.path.realpath(sys.prefix) != os.path.realpath(home):
        os.execv(python, [python, *sys.argv])


@contextlib.contextmanager
def cluster(args, *flags):
    """A cluster of its own on free ports; gives its HTTP address."""
    program = os.path.join(args.bin, "triptych")
    if not os.path.exists(program):
        skip("triptych is not built")
    process = subprocess.Popen(
        [program, "up", f"--model={args.root}/assets/{MODEL}", "--http=127.0.0.1:0",
         "--grpc=127.0.0.1:0", *flags], stdout=subprocess.PIPE, text=True)
    try:
        ready = next((line for line in process.stdout if line.startswith("ready")), "")
        expect(ready, "the cluster did not start")
        yield re.search(r"http=(\S+)", ready).group(1)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def picture(args, name="shapes"):
    with open(os.path.join(args.root, f"assets/examples/{name}.png"), "rb") as file:
        return "data:image/png;base64," + base64.b64encode(file.read()).decode()


def question(args, text="What is in this picture?"):
    return [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": picture(args)}},
        {"type": "text", "text": text}]}]


def post(address, path, body):
    request = urllib.request.Request(f"http://{address}{path}", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=60))


def case_openai(args):
    """Chat, completions, async, streams, retrieve, and the Azure client with its api-version."""
    import openai
    with cluster(args, "--gateway-flags=--served-model-name=triptych-16m,gpt-4o") as address:
        client = openai.OpenAI(base_url=f"http://{address}/v1", api_key="none")
        expect([m.id for m in client.models.list()] == [MODEL, "gpt-4o"], "models")
        expect(client.models.retrieve("gpt-4o").id == "gpt-4o", "retrieve")
        whole = client.chat.completions.create(model="gpt-4o", messages=question(args))
        text = whole.choices[0].message.content
        expect(text and whole.usage.prompt_tokens_details.image_tokens > 0, f"{whole}")
        stream = client.chat.completions.create(
            model=MODEL, messages=question(args), stream=True,
            stream_options={"include_usage": True})
        parts = list(stream)
        streamed = "".join(p.choices[0].delta.content or "" for p in parts if p.choices)
        expect(streamed == text and parts[-1].usage.completion_tokens > 0, f"{streamed}")
        again = question(args) + [whole.choices[0].message,
                                  {"role": "user", "content": "And now?"}]
        expect(client.chat.completions.create(model=MODEL, messages=again).choices, "sent back")
        many = client.chat.completions.create(model=MODEL, messages=question(args), n=3,
                                              temperature=1, max_tokens=4096, logprobs=True,
                                              top_logprobs=2, seed=1)
        expect(len(many.choices) == 3 and many.choices[2].logprobs.content, "n")
        forced = client.chat.completions.create(
            model=MODEL, messages=question(args), max_tokens=40,
            extra_body={"ignore_eos": True, "min_tokens": 40})
        expect(forced.usage.completion_tokens == 40, "ignore_eos")
        plain = client.chat.completions.create(
            model=MODEL, messages=question(args), logprobs=True, max_tokens=8)
        first = post(address, "/tokenize", {"prompt": plain.choices[0].logprobs.content[0].token})
        biased = client.chat.completions.create(
            model=MODEL, messages=question(args), max_tokens=8, frequency_penalty=0.5,
            presence_penalty=0.5, logit_bias={str(first["tokens"][0]): -100},
            extra_body={"bad_words": ["the"], "min_p": 0.1, "repetition_penalty": 1.1})
        expect(biased.choices[0].message.content != plain.choices[0].message.content, "logit_bias")
        old = client.completions.create(model=MODEL, prompt=["Once upon", "A time"], max_tokens=5,
                                        logprobs=2, extra_body={"ignore_eos": True})
        expect(len(old.choices) == 2 and len(old.choices[0].logprobs.tokens) == 5, "completions")
        for refused in ({"tools": [{"type": "function", "function": {"name": "f"}}]},
                        {"response_format": {"type": "json_object"}}):
            try:
                client.chat.completions.create(model=MODEL, messages=question(args), **refused)
                expect(False, f"{refused} is not refused")
            except openai.BadRequestError as error:
                expect(error.param in refused, f"{error}")
        azure = openai.AzureOpenAI(base_url=f"http://{address}/v1", api_key="none",
                                   api_version="2024-10-21")
        expect(azure.chat.completions.create(model=MODEL, messages=question(args)).choices, "Azure")
        asyncio.run(parallel(address, args))


async def parallel(address, args):
    import openai
    client = openai.AsyncOpenAI(base_url=f"http://{address}/v1", api_key="none",
                                default_headers={"X-Request-Id": "one-for-all"})
    answers = await asyncio.gather(*[
        client.chat.completions.with_raw_response.create(model=MODEL, messages=question(args))
        for _ in range(5)])
    expect(all(a.headers["x-request-id"] == "one-for-all" for a in answers), "the name comes back")
    expect(len({a.parse().id for a in answers}) == 5, "each answer has its own id")


def case_litellm(args):
    import litellm
    with cluster(args) as address:
        for provider in ("openai", "hosted_vllm"):
            answer = litellm.completion(model=f"{provider}/{MODEL}", messages=question(args),
                                        api_base=f"http://{address}/v1", api_key="none")
            expect(answer.choices[0].message.content, provider)
            parts = litellm.completion(model=f"{provider}/{MODEL}", messages=question(args),
                                       api_base=f"http://{address}/v1", api_key="none",
                                       stream=True)
            expect("".join(p.choices[0].delta.content or "" for p in parts), f"{provider} stream")
        old = litellm.text_completion(model=f"text-completion-openai/{MODEL}", prompt="Once upon",
                                      api_base=f"http://{address}/v1", api_key="none",
                                      max_tokens=5)
        expect(old.choices, "text completion")


def case_langchain(args):
    from langchain_core.messages import HumanMessage
    from langchain_openai import ChatOpenAI
    with cluster(args) as address:
        chat = ChatOpenAI(base_url=f"http://{address}/v1", api_key="none", model=MODEL)
        message = HumanMessage(content=question(args)[0]["content"])
        text = chat.invoke([message]).content
        expect(text, "invoke")
        expect("".join(p.content for p in chat.stream([message])) == text, "stream")
        expect(len(chat.batch([[message], [message]])) == 2, "batch")


def tool(args, name, *arguments, **environment):
    program = os.path.join(args.root, "build-tools", "ecosystem", "bin", name)
    if not os.path.exists(program):
        skip(f"{name} is not installed")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False,
                          timeout=540, env={**os.environ, **environment})
    output = done.stdout + done.stderr
    expect(done.returncode == 0, f"{name} {' '.join(arguments)}\n{output[-4000:]}")
    return output


def completion_lengths(address):
    """How many answers there were and of how many tokens in all, by the client port's metrics."""
    text = urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read().decode()
    count = re.search(r"^triptych_output_tokens_count (\S+)", text, re.M)
    total = re.search(r"^triptych_output_tokens_sum (\S+)", text, re.M)
    return float(count.group(1)), float(total.group(1))


def case_aiperf(args):
    with cluster(args) as address, tempfile.TemporaryDirectory() as scratch:
        tool(args, "aiperf", "profile", "--model", MODEL, "--url", f"http://{address}",
             "--endpoint-type", "chat", "--streaming", "--request-count", "8", "--concurrency", "2",
             "--image-width-mean", "112", "--image-height-mean", "112",
             "--synthetic-input-tokens-mean", "20", "--tokenizer", f"{args.root}/assets/{MODEL}",
             "--extra-inputs", "ignore_eos:true", "--extra-inputs", "min_tokens:32",
             "--extra-inputs", "max_completion_tokens:32", "--output-artifact-dir", scratch,
             "--ui-type", "none")
        count, total = completion_lengths(address)
        expect(count >= 8 and total == 32 * count, f"{count} answers of {total} tokens")


def case_guidellm(args):
    """Texts and pictures, with its own health check; the lengths that it asks for are kept."""
    for data in ("kind=synthetic_text,prompt_tokens=16",
                 "kind=synthetic_image,width=112,height=112"):
        with cluster(args) as address, tempfile.TemporaryDirectory() as scratch:
            tool(args, "guidellm", "run", "--backend",
                 f"kind=openai_http,target=http://{address},model={MODEL}", "--profile",
                 "kind=synchronous", "--constraint", "kind=max_requests,count=4", "--tokenizer",
                 f"kind=huggingface_auto,model={args.root}/assets/{MODEL}", "--data",
                 f"{data},output_tokens=24", "--output",
                 f"kind=json,path={scratch}/report.json", "--disable-console-interactive")
            count, total = completion_lengths(address)
            expect(count >= 4 and total == 24 * count, f"{count} answers of {total} tokens")


def case_schemathesis(args):
    with cluster(args) as address:
        tool(args, "schemathesis", "run", f"http://{address}/openapi.json",
             "--url", f"http://{address}", "--checks",
             "not_a_server_error,status_code_conformance,content_type_conformance",
             "--max-examples", "40", "--seed", "7", "--request-timeout", "60",
             "--suppress-health-check", "all")


CASES = {name[5:]: function for name, function in globals().items() if name.startswith("case_")}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=sorted(CASES))
    parser.add_argument("--root", required=True)
    parser.add_argument("--bin", required=True)
    args = parser.parse_args()
    args.root, args.bin = os.path.abspath(args.root), os.path.abspath(args.bin)
    enter_environment(args.root)
    CASES[args.case](args)


if __name__ == "__main__":
    main()
