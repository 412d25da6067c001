#!/usr/bin/env bash
# Fetches the headers of others that a few CUDA files include (docs/decisions/0012) from PyPI, pinned
# by hash, into build-tools/cuda-sources/. Nothing of them is installed or run. Without them those
# files are left out of the build. Usage: fetch_cuda_sources.sh; does nothing when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly HOME_OF_SOURCES=build-tools/cuda-sources
# The stamp of a complete fetch carries this line.
readonly PIN="flashinfer-python==0.7.2.post1 \
--hash=sha256:bfdc18b9e1e4d8d0730fe4343dc0e284cd0c160086de80f99888bc4867922d49"

if [[ -f $HOME_OF_SOURCES/complete && $(<"$HOME_OF_SOURCES/complete") == "$PIN" ]]; then exit 0; fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fetch() {
  python3 -m venv "$scratch/venv"
  printf '%s\n' "$PIN" >"$scratch/pin.txt"
  "$scratch/venv/bin/pip" --quiet --disable-pip-version-check --retries 1 --timeout 60 download \
    --no-deps --only-binary=:all: --require-hashes -r "$scratch/pin.txt" -d "$scratch/files" </dev/null
}

unpack() {
  local new=$scratch/new data=flashinfer/data
  mkdir -p "$new/flashinfer"
  python3 - "$scratch"/files/flashinfer_python-*.whl "$scratch/wheel" <<'PYTHON'
import sys
import zipfile

KEPT = ("include/", "cccl/libcudacxx/include/", "cccl/cub/cub/", "cccl/thrust/thrust/",
        "cutlass/include/", "cutlass/tools/util/include/")
with zipfile.ZipFile(sys.argv[1]) as wheel:
    for name in wheel.namelist():
        if name.startswith(tuple("flashinfer/data/" + kept for kept in KEPT)) or "LICENSE" in name:
            wheel.extract(name, sys.argv[2])
PYTHON
  mv "$scratch/wheel/$data"/{include,cccl,cutlass} "$new/flashinfer/"
  cp "$scratch"/wheel/*.dist-info/licenses/LICENSE "$new/flashinfer/"
  # What its authors took from elsewhere under other terms; nothing of ours includes it.
  rm -rf "$new/flashinfer/include/flashinfer/trtllm"
  printf '%s\n' "$PIN" >"$new/complete"
  mkdir -p "$(dirname "$HOME_OF_SOURCES")"
  rm -rf "$HOME_OF_SOURCES"
  mv "$new" "$HOME_OF_SOURCES"
}

fetch
unpack
