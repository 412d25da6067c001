"""Times the published implementation at the 7B widths on a GPU, in bfloat16 with drawn weights: a
decode step behind 1,024 tokens, a prefill of 4,096, the tower over 32 pictures of 1024 x 1024.

time_at_width.py assets/shape-7b: prints JSON, milliseconds, medians. Needs torch and transformers.
"""

import json
import statistics
import sys
import time

import torch
from transformers import AutoConfig, DynamicCache, Qwen2_5_VLForConditionalGeneration


def median_ms(step, repeats):
    times = []
    for repeat in range(repeats + 2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        if repeat >= 2:
            times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def main():
    torch.set_default_dtype(torch.bfloat16)
    config = AutoConfig.from_pretrained(sys.argv[1])
    with torch.device("cuda"), torch.no_grad():
        model = Qwen2_5_VLForConditionalGeneration(config).to(torch.bfloat16).eval()
        for value in model.parameters():
            value.normal_(0, 0.02)
    language, tower = model.model.language_model, model.model.visual

    def forward(tokens, cache):
        ids = torch.full((1, tokens), 5, device="cuda")
        hidden = language(input_ids=ids, past_key_values=cache, use_cache=True).last_hidden_state
        return model.lm_head(hidden[:, -1:]).argmax(-1)

    with torch.inference_mode():
        cache = DynamicCache()
        forward(1024, cache)
        seen = {"decode_1x1k_ms": median_ms(lambda: forward(1, cache), 20)}
        seen["prefill_4k_ms"] = median_ms(lambda: forward(4096, DynamicCache()), 5)
        grid = torch.tensor([[1, 74, 74]] * 32, device="cuda")
        patches = torch.randn(32 * 74 * 74, 1176, device="cuda", dtype=torch.bfloat16)
        seen["encode_32_ms"] = median_ms(lambda: tower(patches, grid_thw=grid), 2)
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
