#!/bin/sh
# formatted.sh CLANG_FORMAT: fails when a tracked source is not as ./run check would leave it.
case $("$1" --version 2>/dev/null) in
  *"version 14."*) ;;
  *) echo "no clang-format 14: skipped" && exit 77 ;;
esac
git rev-parse --git-dir >/dev/null 2>&1 || { echo "not a git checkout: skipped" && exit 77; }
git ls-files -z '*.h' '*.cc' '*.cu' '*.cuh' | xargs -0 "$1" --dry-run --Werror
