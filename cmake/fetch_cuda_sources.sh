#!/usr/bin/env bash
# Fetches the sources of others that a few CUDA files include (docs/decisions/0012) from PyPI, pinned
# by hash, into build-tools/cuda-sources/. Nothing of them is installed or run. Without them those
# files are left out of the build. Usage: fetch_cuda_sources.sh; does nothing when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly HOME_OF_SOURCES=build-tools/cuda-sources
# A new line here is a new version: the stamp carries the text of this list.
readonly PINS="flashinfer-python==0.7.2.post1 \
--hash=sha256:bfdc18b9e1e4d8d0730fe4343dc0e284cd0c160086de80f99888bc4867922d49
flash-attn==2.8.3.post2 \
--hash=sha256:d0f9f0b08a986cdeadbffcf5ec8b3a8f514366c68ad1853d3ab061bc83cc340b"

if [[ -f $HOME_OF_SOURCES/complete && $(<"$HOME_OF_SOURCES/complete") == "$PINS" ]]; then exit 0; fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# pip asks a source package for its metadata, and this one's script imports torch for it. It gets
# names that do nothing: it is to say its version, not to build.
write_torch_names() {
  mkdir -p "$scratch/names/torch/utils"
  cat >"$scratch/names/torch/__init__.py" <<'PYTHON'
__version__ = "2.0.0"


class _C:
    _GLIBCXX_USE_CXX11_ABI = True


class version:
    cuda = hip = None
PYTHON
  touch "$scratch/names/torch/utils/__init__.py"
  cat >"$scratch/names/torch/utils/cpp_extension.py" <<'PYTHON'
CUDA_HOME = ROCM_HOME = None
IS_HIP_EXTENSION = False
BuildExtension = CppExtension = CUDAExtension = object
PYTHON
}

pip_quietly() {
  "$scratch/venv/bin/pip" --quiet --disable-pip-version-check --retries 1 --timeout 60 "$@" </dev/null
}

# download PIN FLAG...: one package's file into $scratch/files, its hash checked.
download() {
  local pin=$1
  shift
  printf '%s\n' "$pin" >"$scratch/pin.txt"
  pip_quietly download --no-deps --require-hashes -r "$scratch/pin.txt" -d "$scratch/files" "$@"
}

fetch() {
  python3 -m venv "$scratch/venv"
  pip_quietly install packaging setuptools wheel
  write_torch_names
  local pins
  mapfile -t pins <<<"$PINS"
  download "${pins[0]}" --only-binary=:all:
  PYTHONPATH=$scratch/names FLASH_ATTENTION_SKIP_CUDA_BUILD=TRUE \
    download "${pins[1]}" --no-binary=:all: --no-build-isolation
}

unpack() {
  local new=$scratch/new data=flashinfer/data
  mkdir -p "$new/flashinfer" "$new/flash-attn"
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
  tar -xzf "$scratch"/files/flash_attn-*.tar.gz -C "$scratch"
  mv "$scratch"/flash_attn-*/csrc/flash_attn/src "$scratch"/flash_attn-*/LICENSE "$new/flash-attn/"
  printf '%s\n' "$PINS" >"$new/complete"
  mkdir -p "$(dirname "$HOME_OF_SOURCES")"
  rm -rf "$HOME_OF_SOURCES"
  mv "$new" "$HOME_OF_SOURCES"
}

fetch
unpack
