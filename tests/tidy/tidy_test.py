"""Defended: every rule of tidy can fail, and does not fail on good code.

One table of bad snippets, each with the rule that must name it, and one of good ones. A rule that
no bad snippet proves is itself a failure.
"""

import os
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import rules  # noqa: E402
import source  # noqa: E402
import tidy  # noqa: E402

LONG_BODY = "  f();\n" * 80
VERY_LONG_BODY = "  f();\n" * 160

# (the rule that must fire, path, text)
BAD = [
    ("layer", "scheduler/a.cc", '#include "transport/transport.h"\n'),
    ("layer", "scheduler/a.cc", '#include "base/metrics.h"\n'),
    ("layer", "scheduler/a.cc", '#include "base/rpc.h"\n'),
    ("layer", "scheduler/a.cc", '#include "base/cuda/stream.h"\n'),
    ("layer", "scheduler/a.cc", "#include <thread>\n"),
    ("layer", "scheduler/a.cc", "#include <sys/socket.h>\n"),
    ("layer", "scheduler/a.cc", "#include <unistd.h>\n"),
    ("layer", "scheduler/a.cc", "#include <random>\n"),
    ("layer", "scheduler/a.cc", "#include <grpcpp/grpcpp.h>\n"),
    ("layer", "scheduler/a.cc", '#include "triptych/v1/common.pb.h"\n'),
    ("layer", "scheduler/stage/a.cc", '#include "scheduler/cluster/b.h"\n'),
    ("layer", "engine/a.cc", '#include "scheduler/stage/b.h"\n'),
    ("layer", "engine/a.cc", '#include "transport/transport.h"\n'),
    ("layer", "engine/cpu/a.cc", "#include <cuda_runtime.h>\n"),
    ("layer", "kernels/a.cc", '#include "models/b.h"\n'),
    ("layer", "models/layers/a.cc", "#include <nlohmann/json.hpp>\n"),
    ("layer", "models/config/a.h", "#pragma once\n#include <nlohmann/json.hpp>\n"),
    ("layer", "models/decoder/a.cc", '#include "scheduler/request/layout.h"\n'),
    ("layer", "transport/loopback/a.cc", '#include "triptych/v1/data.pb.h"\n'),
    ("layer", "transport/grpc/a.cc", "#include <nccl.h>\n"),
    ("layer", "services/worker/a.cc", "#include <nlohmann/json.hpp>\n"),
    ("layer", "services/worker/a.cc", "#include <prometheus/counter.h>\n"),
    ("layer", "services/worker/a.cc", '#include "kernels/gemm.h"\n'),
    ("layer", "base/log.cc", "#include <prometheus/counter.h>\n"),
    ("layer", "base/status.h", '#pragma once\n#include "scheduler/plan/ids.h"\n'),
    ("layer", "newfolder/a.cc", "int x;\n"),
    ("include-root", "base/a.cc", '#include "clock.h"\n'),
    ("file-size", "base/a.cc", "\n" * 601),
    ("file-size", "tests/base/a.cc", "\n" * 801),
    ("columns", "base/a.cc", "// " + "x" * 100 + "\n"),
    ("function-size", "base/a.cc", "void F() {\n" + LONG_BODY + "}\n"),
    ("function-size", "base/a.cc", "namespace a {\nclass B {\n int F() const {\n" + LONG_BODY
     + "}\n};\n}\n"),
    ("function-size", "base/a.cc", "A::A(int x) : x_(x), y_{2} {\n" + LONG_BODY + "}\n"),
    ("function-size", "base/a.cc", "template <class T>\nT F(T x = {}) {\n" + LONG_BODY + "}\n"),
    ("function-size", "base/a.cc", "bool operator==(A a, A b) {\n" + LONG_BODY + "}\n"),
    ("function-size", "base/a.cc", "const auto f = [](int x) {\n" + LONG_BODY + "};\n"),
    ("function-size", "base/a.cc", "struct S F() {\n" + LONG_BODY + "}\n"),
    ("function-size", "base/a.cc", 'void F() {\n  g("}", \'}\'); // }\n' + LONG_BODY + "}\n"),
    ("function-size", "base/a.cc", 'void F() {\n  g(R"(})");\n' + LONG_BODY + "}\n"),
    ("function-size", "tests/base/a.cc", 'TEST_CASE("a") {\n' + LONG_BODY + "}\n"),
    ("function-size", "kernels/gemm.cc", "void F() {\n" + LONG_BODY + "}\n"),
    ("function-size", "kernels/gemm.cu", "__global__ void F() {\n" + VERY_LONG_BODY + "}\n"),
    ("function-size", "services/worker/main.cc", "int main() {\n" + "  f();\n" * 31 + "}\n"),
    ("pragma-once", "base/a.h", "// A header.\n#pragma once\n"),
    ("pragma-once", "base/a.h", "#ifndef A_H\n#define A_H\n#endif\n"),
    ("type-name", "base/a.cc", "class BlockManager {\n};\n"),
    ("type-name", "base/a.cc", "struct StringUtil final {\n};\n"),
    ("type-name", "base/a.cc", "using RequestData = int;\n"),
    ("type-name", "base/a.cc", "class ABSL_LOCKABLE LockHelper : public Lock {\n};\n"),
    ("type-name", "proto/a.proto", "service TokenHandler {\n}\n"),
    ("folder-name", "base/utils/a.cc", "int x;\n"),
    ("sleep", "services/worker/a.cc", "void F() { std::this_thread::sleep_for(x); }\n"),
    ("sleep", "tests/base/a.cc", "void F() { usleep(5); }\n"),
    ("clock", "engine/a.cc", "auto t = std::chrono::steady_clock::now();\n"),
    ("clock", "services/worker/a.cc", "auto t = time(nullptr);\n"),
    ("clock", "media/a.cc", "auto t = absl::Now();\n"),
    ("random", "models/a.cc", "int x = rand();\n"),
    ("random", "tests/base2/a.cc", "std::random_device device;\n"),
    ("random", "scheduler/a.cc", "auto x = base::RandomBits64();\n"),
    ("pure", "scheduler/a.cc", "base::RealClock clock;\n"),
    ("pure", "scheduler/a.cc", "std::thread thread;\n"),
    ("environment", "engine/a.cc", 'auto x = std::getenv("X");\n'),
    ("throw", "media/a.cc", "void F() { throw 1; }\n"),
    ("bare-check", "engine/a.cc", "void F() { CHECK(x); }\n"),
    ("todo", "base/a.cc", "// TO" + "DO: later\n"),
    ("todo", "docs/a.md", "FIX" + "ME\n"),
    ("workplace", "docs/a.md", "as in /wor" + "k/main\n"),
    ("workplace", "base/a.cc", "// see issue #" + "12\n"),
    ("shared-folder", "base/a.cc", "// see ../sha" + "red/design.md\n"),
]

# (path, text) without a finding.
GOOD = [
    ("scheduler/a.cc", '#include <vector>\n#include "base/clock.h"\n'
     '#include "scheduler/plan/ids.h"\n#include "absl/types/span.h"\n'),
    ("scheduler/a.cc", "// A std::thread would rand() here; the clock's ::now() too.\n"),
    ("scheduler/a.cc", 'const char* kText = "throw CHECK(x) sleep(1) rand()";\n'),
    ("scheduler/a.cc", "// #include <thread>\n"),
    ("models/processor/a.cc", '#include "scheduler/request/layout.h"\n'),
    ("services/gateway/a.cc", "#include <nlohmann/json.hpp>\n"),
    ("services/worker/a.cc", '#include "triptych/v1/common.pb.h"\n#include <grpcpp/grpcpp.h>\n'),
    ("transport/nccl/a.cc", "#include <nccl.h>\n#include <cuda_runtime.h>\n"),
    ("tests/scheduler/a.cc", "#include <catch2/catch.hpp>\n#include <thread>\n"),
    ("base/a.h", "\n#pragma once\nnamespace a {\n" + "int F();\n" * 100 + "}\n"),
    ("base/a.cc", "class A {\n" + " public:\n  int F() { return 1; }\n" * 60 + "};\n"),
    ("base/a.cc", "const int kTable[] = {\n" + "  1,\n" * 100 + "};\n"),
    ("base/a.cc", "enum class Kind {\n" + "  kA,\n" * 100 + "};\n"),
    ("base/a.cc", 'extern "C" {\n' + "void F();\n" * 100 + "}\n"),
    ("kernels/gemm_cpu.cc", "void F() {\n" + LONG_BODY + "}\n"),
    ("kernels/gemm.cu", "// LONG: one pipeline, split it and it spills.\n"
     "__global__ void F() {\n" + VERY_LONG_BODY + "}\n"),
    ("tests/base/a.cc", "\n" * 700),
    ("base/a.cc", "struct Metadata {\n  int data;\n};\nclass Database;\n"),
    ("base/a.cc", "// https://example.org/" + "x" * 100 + "\n"),
    ("base/a.cc", "constexpr int kMany = 1'000'000; const char c = '\\''; int d = '\"';\n"),
]


class TidyTest(unittest.TestCase):
    def test_each_bad_snippet_is_named_by_its_rule(self):
        for rule, path, text in BAD:
            with self.subTest(rule=rule, path=path, text=text[:60]):
                fired = [finding[1] for finding in tidy.check_file(path, text)]
                self.assertIn(rule, fired)

    def test_good_snippets_have_no_finding(self):
        for path, text in GOOD:
            with self.subTest(path=path, text=text[:60]):
                self.assertEqual([], tidy.check_file(path, text))

    def test_each_rule_is_proved_by_a_bad_snippet(self):
        named = {"layer", "include-root", "file-size", "columns", "function-size", "pragma-once",
                 "type-name", "folder-name"}
        named |= {row[0] for row in rules.CODE_WORDS} | {row[0] for row in rules.TEXT_WORDS}
        self.assertEqual(named, {rule for rule, _, _ in BAD})

    def test_functions_are_found_and_measured(self):
        text = ("namespace a {\n"
                "class B {\n"
                " public:\n"
                "  int Get() const { return 1; }\n"
                "};\n"
                "int F(int x = 2,\n"
                "      std::vector<int> y = {1, 2}) {\n"
                "  const auto g = [&](int z) {\n"
                "    if (z) {\n"
                "    }\n"
                "  };\n"
                "  return g(x);\n"
                "}\n"
                "}  // namespace a\n")
        found = {f.name: f.lines for f in source.functions(text)}
        self.assertEqual({"Get": 1, "F": 8}, found)

    def test_a_bad_tree_ends_with_one_and_a_good_one_with_zero(self):
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tidy.py")
        for text, code in (("int x;\n", 0), ("#include <prometheus/counter.h>\n", 1)):
            with tempfile.TemporaryDirectory() as root:
                os.mkdir(os.path.join(root, "base"))
                with open(os.path.join(root, "base", "a.cc"), "w", encoding="utf-8") as file:
                    file.write(text)
                run = subprocess.run([sys.executable, program, "--root", root],
                                     capture_output=True, check=False)
                self.assertEqual(code, run.returncode, run.stdout)


if __name__ == "__main__":
    unittest.main()
