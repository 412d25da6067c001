#!/usr/bin/env bash
# Packs built binaries with the shared libraries that they need into one archive, for a machine
# that has a C library and no packages of ours (a GPU image, say). There: unpack, set
# LD_LIBRARY_PATH to its lib/, start what is in bin/.
# usage: deploy/bundle.sh ARCHIVE.tar.xz BINARY...
set -euo pipefail

archive=$(realpath -m "$1")
shift
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/bin" "$scratch/lib"

# What every glibc machine has, and what a GPU machine has of its own driver and toolkit.
readonly LEAVE='^(ld-linux|libc|libm|libdl|librt|libpthread|libresolv|libcuda|libcublas|libcudnn|libnccl)[.-]|^(libcublasLt)[.]'

for binary in "$@"; do
  strip -o "$scratch/bin/$(basename "$binary")" "$binary"
  ldd "$binary" | awk '$3 ~ /^\// {print $3}'
done | sort -u | while read -r library; do
  name=$(basename "$library")
  if [[ ! $name =~ $LEAVE ]]; then strip -o "$scratch/lib/$name" "$library"; fi
done
XZ_OPT='-9 -T2' tar -C "$scratch" -cJf "$archive" bin lib
du -h "$archive" | cut -f1
