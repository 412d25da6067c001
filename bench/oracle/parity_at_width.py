"""Holds a running cluster against the published implementation at real widths.

parity_at_width.py draw BASE OUT [--layers N] [--blocks N] [--set KEY=JSON ...]
    writes to OUT a checkpoint of BASE's config (assets/shape-7b) with so many language layers and
    blocks of the tower, every eighth and the last of which see whole frames; drawn by transformers,
    norms and biases too. --set changes the config: hidden_size=2048,
    vision_config.out_hidden_size=2048
parity_at_width.py compare MODEL HTTP GRPC PROTOS
    asks the cluster that serves MODEL about text, a picture and four pictures of odd sizes: 8
    greedy tokens each with 20 log probabilities. Teaches the same tokens to transformers in float32
    and in bfloat16 and prints the root mean square error of both against float32.

PROTOS is what `protoc --descriptor_set_out=PROTOS --include_imports` made of inference.proto. Needs
torch, transformers, safetensors, grpcio and Pillow.
"""

import argparse
import base64
import inspect
import io
import json
import shutil
import sys
import urllib.request

TOKENS = 8
CASES = {"text": [], "one picture": [(1024, 1024)],
         "four pictures": [(101, 333), (57, 57), (777, 421), (640, 480)]}


def draw(arguments):
    import torch
    from transformers import AutoConfig, Qwen2_5_VLForConditionalGeneration

    shutil.copytree(arguments.base, arguments.out, ignore=shutil.ignore_patterns("*.safetensors*"))
    with open(arguments.out + "/config.json", encoding="utf-8") as file:
        config = json.load(file)
    config["num_hidden_layers"] = arguments.layers
    vision = config["vision_config"]
    vision["depth"] = arguments.blocks
    vision["fullatt_block_indexes"] = sorted({*range(7, arguments.blocks, 8), arguments.blocks - 1})
    for change in arguments.set:
        key, value = change.split("=", 1)
        section = vision if key.startswith("vision_config.") else config
        section[key.removeprefix("vision_config.")] = json.loads(value)
    with open(arguments.out + "/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    torch.manual_seed(7)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device), torch.no_grad():
        model = Qwen2_5_VLForConditionalGeneration(AutoConfig.from_pretrained(arguments.out))
        model = model.to(torch.bfloat16)
        for name, value in model.named_parameters():
            if "norm" in name:
                value.normal_(1, 0.1)
            else:
                value.normal_(0, 0.1 if name.endswith("bias") else 0.02)
    model.save_pretrained(arguments.out + "/drawn", max_shard_size="2GB")
    # The weights alone: the config stays as it was published, whatever this version writes.
    import glob
    import os
    for file in glob.glob(arguments.out + "/drawn/*.safetensors*"):
        shutil.move(file, arguments.out + "/" + os.path.basename(file))
    shutil.rmtree(arguments.out + "/drawn")


def picture(size, seed):
    import random
    from PIL import Image
    draws = random.Random(seed)
    small = Image.new("RGB", (9, 7))
    small.putdata([tuple(draws.randrange(256) for _ in range(3)) for _ in range(63)])
    return small.resize(size, Image.BILINEAR)


def png(image):
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def prompt_ids(http, pictures, text):
    content = [{"type": "image_url", "image_url":
                {"url": "data:image/png;base64," + base64.b64encode(png(one)).decode()}}
               for one in pictures] + [{"type": "text", "text": text}]
    body = json.dumps({"messages": [{"role": "user", "content": content}]}).encode()
    request = urllib.request.Request(http + "/tokenize", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["tokens"]


class Client:
    def __init__(self, address, protos):
        import grpc
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
        pool = descriptor_pool.DescriptorPool()
        with open(protos, "rb") as file:
            for one in descriptor_pb2.FileDescriptorSet.FromString(file.read()).file:
                pool.Add(one)
        self.request, response = (
            message_factory.GetMessageClass(pool.FindMessageTypeByName("triptych.v1." + name))
            for name in ("GenerateRequest", "GenerateResponse"))
        channel = grpc.insecure_channel(address, [("grpc.max_send_message_length", 1 << 26)])
        self.generate = channel.unary_stream("/triptych.v1.Inference/Generate",
                                             self.request.SerializeToString, response.FromString)

    def answer(self, pictures, text):
        """The sampled tokens: (id, [(id, log probability)])."""
        request = self.request(max_tokens=TOKENS, ignore_eos=True)
        request.sampling.top_logprobs = 20
        message = request.messages.add(role="user")
        for one in pictures:
            message.content.add().image.data = png(one)
        message.content.add().text = text
        return [(token.token, [(top.token, top.logprob) for top in token.top])
                for part in self.generate(request, timeout=120) for token in part.tokens]


def teach(model, processor, ids, pictures):
    """Log probabilities [tokens, vocabulary] of the last TOKENS positions."""
    import torch
    inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids)).long()}
    image_token = model.config.image_token_id
    if "mm_token_type_ids" in inspect.signature(model.forward).parameters:
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == image_token).long()
    if pictures:
        seen = processor(images=pictures, return_tensors="pt")
        inputs["pixel_values"] = seen["pixel_values"]
        inputs["image_grid_thw"] = seen["image_grid_thw"]
    inputs = {name: value.to(model.device) for name, value in inputs.items()}
    if pictures:
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    with torch.inference_mode():
        logits = model(**inputs).logits[0, -TOKENS - 1:-1]
    return torch.log_softmax(logits.double(), -1).cpu()


def compare(arguments):
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration
    try:  # The processor that resizes as Pillow does has a name of its own since transformers 5.
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
            Qwen2VLImageProcessorPil as Qwen2VLImageProcessor)
    except ImportError:
        from transformers import Qwen2VLImageProcessor

    torch.backends.cuda.matmul.allow_tf32 = False
    client = Client(arguments.grpc, arguments.protos)
    text = " ".join(["is"] * 100)
    asked = {}
    for name, sizes in CASES.items():
        pictures = [picture(size, seed) for seed, size in enumerate(sizes)]
        ours = client.answer(pictures, text)
        ids = prompt_ids(arguments.http, pictures, text) + [token for token, _ in ours]
        asked[name] = (pictures, ids, ours)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        arguments.model, torch_dtype=torch.float32).eval().to(device)
    processor = Qwen2VLImageProcessor.from_pretrained(arguments.model)
    exact = {name: teach(model, processor, ids, pictures)
             for name, (pictures, ids, _) in asked.items()}
    model = model.to(torch.bfloat16)
    print(json.dumps({name: errors(exact[name], teach(model, processor, ids, pictures), ours)
                      for name, (pictures, ids, ours) in asked.items()}, indent=1))


def errors(exact, rounded, ours):
    import torch
    mine, theirs, firsts = [], [], 0
    for position, (token, tops) in enumerate(ours):
        for index, logprob in tops:
            mine.append(logprob - float(exact[position, index]))
            theirs.append(float(rounded[position, index] - exact[position, index]))
        firsts += int(token == int(exact[position].argmax()))
    rms = lambda values: float(torch.tensor(values).square().mean().sqrt())
    return {"ours": rms(mine), "transformers_bf16": rms(theirs),
            "ratio": rms(mine) / rms(theirs), "same_token_as_float32": f"{firsts} of {len(ours)}"}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("draw")
    one.add_argument("base")
    one.add_argument("out")
    one.add_argument("--layers", type=int, default=4)
    one.add_argument("--blocks", type=int, default=4)
    one.add_argument("--set", action="append", default=[])
    one.set_defaults(run=draw)
    one = commands.add_parser("compare")
    for name in ("model", "http", "grpc", "protos"):
        one.add_argument(name)
    one.set_defaults(run=compare)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
