"""Times the published implementation on the steps of bench/micro, for comparison by hand.

In a virtual environment: pip install torch transformers==4.57.6, then
python bench/oracle/time_transformers.py assets/triptych-16m --threads 2
"""

import argparse
import statistics
import time

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

GRID = [1, 32, 32]  # A 448 x 448 picture.
PROMPT_TOKENS = 290
IMAGE_TOKEN = 1023


def median_ms(step, repeats=9):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        arguments.model, torch_dtype=torch.float32).eval()
    ids = torch.full((1, PROMPT_TOKENS), 5)
    ids[0, 10:266] = IMAGE_TOKEN
    inputs = {"input_ids": ids, "pixel_values": torch.full((1024, 1176), 0.25),
              "image_grid_thw": torch.tensor([GRID])}
    with torch.inference_mode():
        print("encode + prefill", median_ms(lambda: model(**inputs, use_cache=True)), "ms")
        cache = model(**inputs, use_cache=True).past_key_values

        def decode():
            model(input_ids=torch.tensor([[5]]), past_key_values=cache, use_cache=True)
            cache.crop(PROMPT_TOKENS)

        print("decode step", median_ms(decode), "ms")


if __name__ == "__main__":
    main()
