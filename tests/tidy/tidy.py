#!/usr/bin/env python3
"""Enforces the table in rules.py over the repository. Standard library only.

usage: tidy.py --root DIR
Prints `path:line: rule: what is wrong` for each finding; ends with 1 when there is one.
"""

import argparse
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import rules  # noqa: E402
import source  # noqa: E402

PROJECT_FOLDERS = sorted({prefix.split("/")[0] for prefix in rules.LAYERS})


def list_files(root):
    """Paths of the files of the project: what git knows or would add, else a walk."""
    listed = subprocess.run(
        ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        paths = listed.stdout.decode().split("\0")
    else:
        paths = []
        for folder, subfolders, names in os.walk(root):
            subfolders[:] = [s for s in subfolders if not re.match(r"build|\.git$|\.venv$|__py", s)]
            paths += [os.path.relpath(os.path.join(folder, name), root) for name in names]
    return sorted({p for p in paths if p and os.path.isfile(os.path.join(root, p))})


def longest_row(path):
    matching = [prefix for prefix in rules.LAYERS if path.startswith(prefix)]
    return max(matching, key=len) if matching else None


def library_of(include):
    for name, pattern in rules.LIBRARIES.items():
        if re.search(pattern, include):
            return name
    return None


def check_include(path, row, include):
    """What is wrong with one include, or None."""
    allowed_projects, allowed_libraries = rules.LAYERS[row]
    library = library_of(include)
    if library is not None:
        if library not in allowed_libraries:
            return f"{include}: {row} must not use {library}"
        if library == "json" and path.endswith(rules.HEADER_SUFFIXES) \
                and not include.endswith("json_fwd.hpp") and not path.startswith("tests/"):
            return f"{include}: a header of ours includes no JSON library"
        return None
    if include.split("/")[0] not in PROJECT_FOLDERS or "/" not in include:
        return None  # The standard library.
    if not any(include.startswith(prefix) for prefix in allowed_projects):
        return f"{include}: {row} may include only {', '.join(allowed_projects)}"
    for source_prefix, target_prefix, reason in rules.FORBIDDEN_INCLUDES:
        if path.startswith(source_prefix) and include.startswith(target_prefix):
            return f"{include}: not from {source_prefix}: {reason}"
    return None


def check_includes(path, text):
    row = longest_row(path)
    if row is None:
        yield 1, "layer", f"no row of rules.LAYERS holds this file's folder"
        return
    for line, include in source.includes(text):
        problem = check_include(path, row, include)
        if problem:
            yield line, "layer", problem
    for line, content in enumerate(source.strip_comments_only(text).split("\n"), 1):
        match = re.match(r'\s*#\s*include\s*"([^"/]+)"', content)
        if match:
            yield line, "include-root", f"{match.group(1)}: write the path from the root"


def function_limit(path, function, lines):
    """(the most lines this function may have, a name for the limit)"""
    if rules.KERNEL_FILES.search(path):
        above = lines[max(0, function.first_line - 6):function.last_line]
        long_reason = any(re.search(r"//\s*LONG:\s*\S+", line) for line in above)
        return (10**6 if long_reason else rules.MAX_KERNEL_LINES), "a kernel without // LONG:"
    if function.name == "main" and path.startswith("services/"):
        return rules.MAX_MAIN_LINES, "a main"
    return rules.MAX_FUNCTION_LINES, "a function"


def check_sizes(path, text):
    lines = text.split("\n")
    count = len(lines) - (1 if lines[-1] == "" else 0)
    limit = rules.MAX_TEST_FILE_LINES if path.startswith("tests/") else rules.MAX_FILE_LINES
    if count > limit:
        yield limit + 1, "file-size", f"{count} lines, at most {limit}"
    for number, line in enumerate(lines, 1):
        if len(line) > rules.MAX_COLUMNS and "://" not in line and "#include" not in line:
            yield number, "columns", f"{len(line)} columns, at most {rules.MAX_COLUMNS}"
    if not path.endswith(rules.CPP_SUFFIXES):
        return
    for function in source.functions(text):
        limit, what = function_limit(path, function, lines)
        if function.lines > limit:
            yield (function.first_line, "function-size",
                   f"{function.name}: {function.lines} lines, {what} has at most {limit}")


def check_pragma(path, text):
    first = next((line for line in text.split("\n") if line.strip()), "")
    if path.endswith(rules.HEADER_SUFFIXES) and first.strip() != "#pragma once":
        yield 1, "pragma-once", "a header begins with #pragma once"


def forbidden_word(name):
    words = re.findall(r"[A-Z][a-z0-9]*", name)
    return next((word for word in words if word in rules.FORBIDDEN_NAME_WORDS), None)


def check_names(path, text):
    code = source.strip(text)
    pattern = r"\b(?:class|struct|union|enum(?:\s+class)?|using|message|service)\s+" \
              r"(?:ABSL_\w+\s+)?(\w+)\s*(?==|:|\{|final|\n|$)"
    for number, line in enumerate(code.split("\n"), 1):
        for name in re.findall(pattern, line):
            word = forbidden_word(name)
            if word:
                yield number, "type-name", f"{name}: say what it is, not {word}"
    for folder in path.split("/")[:-1]:
        if folder in rules.FORBIDDEN_FOLDERS:
            yield 1, "folder-name", f"{folder}/ says nothing about what is in it"


def check_code_words(path, text):
    code = source.strip(text)
    for rule, pattern, scope, exceptions in rules.CODE_WORDS:
        if not path.startswith(scope) or any(path.startswith(p) for p in exceptions):
            continue
        for match in re.finditer(pattern, code):
            yield code.count("\n", 0, match.start()) + 1, rule, f"`{match.group(0).strip()}`"


def check_text_words(path, text):
    for rule, pattern in rules.TEXT_WORDS:
        if path.startswith(rules.TEXT_WORD_EXCEPTIONS.get(rule, ())):
            continue
        for match in re.finditer(pattern, text):
            yield text.count("\n", 0, match.start()) + 1, rule, f"`{match.group(0)}`"


def check_file(path, text):
    """Every finding in one file as (line, rule, message)."""
    findings = []
    if path.endswith(rules.CPP_SUFFIXES):
        for check in (check_includes, check_pragma, check_code_words):
            findings += check(path, text)
    if path.endswith(rules.CPP_SUFFIXES + (".proto",)):
        findings += check_names(path, text)
    if path.endswith(rules.SIZED_SUFFIXES):
        findings += check_sizes(path, text)
    if path.endswith(rules.TEXT_SUFFIXES) and not path.startswith("tests/golden/"):
        findings += check_text_words(path, text)
    return findings


def check_tree(root):
    """Every finding in the tree as (path, line, rule, message)."""
    findings = []
    for path in list_files(root):
        if path.endswith(rules.TEXT_SUFFIXES) and not path.startswith("assets/"):
            with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
                findings += [(path, *finding) for finding in check_file(path, file.read())]
    return findings


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default=".")
    findings = check_tree(parser.parse_args().root)
    for path, line, rule, message in findings:
        print(f"{path}:{line}: {rule}: {message}")
    print(f"tidy: {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
