"""The one table: who may include whom, how long things may be, and which words stay out.

tidy.py enforces it. To change a rule, change this file and say why in the commit.
"""

import re

# --- Sizes -----------------------------------------------------------------------------------

MAX_COLUMNS = 100
MAX_FILE_LINES = 600
MAX_TEST_FILE_LINES = 800
MAX_FUNCTION_LINES = 70
MAX_MAIN_LINES = 30
# Device code and its reference on the CPU; more needs a `// LONG:` line that says why.
MAX_KERNEL_LINES = 150
KERNEL_FILES = re.compile(r"\.(cu|cuh)$|^kernels/.*_cpu(_\w+)?\.(cc|h)$")

CPP_SUFFIXES = (".h", ".cc", ".cu", ".cuh")
HEADER_SUFFIXES = (".h", ".cuh")
SIZED_SUFFIXES = CPP_SUFFIXES + (".proto", ".py")
TEXT_SUFFIXES = SIZED_SUFFIXES + (".md", ".txt", ".cmake", ".yaml", ".yml", ".sh", ".json", "run")

# --- Libraries -------------------------------------------------------------------------------

# What an include path belongs to. A path that matches nothing is the standard library or POSIX.
LIBRARIES = {
    "absl": r"^absl/",
    "prometheus": r"^prometheus/",
    "json": r"^nlohmann/",
    "grpc": r"^(grpc|grpcpp)/",
    "proto": r"\.pb\.h$|^google/protobuf/",
    "boost": r"^boost/",
    "cuda": r"^(cuda|cublas|cub/|cooperative_groups|cutlass/|cute/|mma|nvtx|nvml|driver_types)",
    # Fetched for CUDA files alone: docs/decisions/0012.
    "flashinfer": r"^flashinfer/",
    "nccl": r"^nccl",
    "openssl": r"^openssl/",
    "pictures": r"^(jpeglib|jerror|png|webp/|setjmp)",
    "utf8proc": r"^utf8proc",
    "catch2": r"^catch2/",
    "benchmark": r"^benchmark/",
    "threads": r"^(thread|mutex|shared_mutex|condition_variable|atomic|future|semaphore|latch"
    r"|barrier|stop_token|pthread\.h)$",
    "sockets": r"^(sys/socket\.h|sys/un\.h|netinet/|arpa/|netdb\.h|poll\.h|sys/epoll\.h)",
    "system": r"^(unistd\.h|fcntl\.h|signal\.h|csignal|ctime|time\.h|sys/(?!types|cdefs).*|random"
    r"|fstream|filesystem|iostream|dlfcn\.h|sched\.h|spawn\.h)$",
}

HOST = ["threads", "sockets", "system"]  # What any code that is not pure may use.

# --- Who may include whom --------------------------------------------------------------------

# path prefix: (project prefixes it may include, libraries it may include). The longest prefix of a
# file's path is its row. A prefix without a slash at its end also matches file names
# ("base/metrics" is base/metrics.h and base/metrics.cc).
LAYERS = {
    "base/": (["base/"], ["absl", *HOST]),
    "base/metrics": (["base/"], ["absl", "prometheus"]),
    "base/log": (["base/"], ["absl", "json", *HOST]),
    "base/rpc": (["base/"], ["absl", "grpc", "proto", *HOST]),
    "base/certificates": (["base/"], ["absl", "openssl", *HOST]),
    "base/sha256": (["base/"], ["absl", "openssl"]),
    "base/tls_server": (["base/"], ["absl", "openssl", *HOST]),
    "base/cuda": (["base/"], ["absl", "cuda", *HOST]),
    "scheduler/": (["base/", "scheduler/"], ["absl"]),
    "media/": (["base/", "media/"], ["absl", "pictures", *HOST]),
    "kernels/": (["base/", "kernels/"], ["absl", "cuda", "flashinfer", *HOST]),
    "models/": (["base/", "kernels/", "models/"], ["absl", *HOST]),
    "models/weights/": (["base/", "models/", "kernels/thread_pool.h"], ["absl", "json", *HOST]),
    "models/config/": (["base/", "models/"], ["absl", "json", *HOST]),
    "models/tokenizer/": (["base/", "models/"], ["absl", "json", "utf8proc", *HOST]),
    # The processor asks ResolveLayout, the only place that computes 3-D positions.
    "models/processor/": (
        ["base/", "models/", "kernels/", "scheduler/request/layout.h", "scheduler/plan/"],
        ["absl", "json", *HOST],
    ),
    "transport/": (["base/", "scheduler/plan/", "transport/"], ["absl", *HOST]),
    "transport/grpc/": (["base/", "scheduler/plan/", "transport/"],
                        ["absl", "grpc", "proto", *HOST]),
    "transport/cuda_ipc/": (["base/", "scheduler/plan/", "transport/"], ["absl", "cuda", *HOST]),
    "transport/nccl/": (["base/", "scheduler/plan/", "transport/"],
                        ["absl", "cuda", "nccl", *HOST]),
    "engine/": (["base/", "kernels/", "models/", "scheduler/plan/", "engine/"],
                ["absl", *HOST]),
    "engine/gpu/": (["base/", "kernels/", "models/", "scheduler/plan/", "engine/"],
                    ["absl", "cuda", *HOST]),
    "services/": (["base/", "scheduler/", "media/", "models/", "transport/", "engine/",
                   "services/"],
                  ["absl", "grpc", "proto", "boost", *HOST]),
    "services/gateway/": (["base/", "scheduler/", "media/", "models/", "services/"],
                          ["absl", "grpc", "proto", "boost", "json", *HOST]),
    "services/cli/": (["base/", "scheduler/", "media/", "models/", "transport/", "engine/",
                       "services/"],
                      ["absl", "grpc", "proto", "boost", "json", *HOST]),
    "tests/": ([""], ["absl", "json", "grpc", "proto", "boost", "cuda", "nccl", "openssl",
                      "pictures", "utf8proc", "catch2", *HOST]),
    "bench/": ([""], ["absl", "json", "grpc", "proto", "boost", "cuda", "nccl", "benchmark",
                     *HOST]),
}

# (including prefix, included prefix, why not). Checked after the table above.
FORBIDDEN_INCLUDES = [
    ("scheduler/", "base/cuda", "decisions know no device"),
    ("scheduler/", "base/rpc", "decisions know no messages' carrier"),
    ("scheduler/", "base/metrics", "decisions return plain data; services count"),
    ("scheduler/", "base/mutex", "one thread owns a scheduler"),
    ("scheduler/", "base/bounded_queue", "one thread owns a scheduler"),
    ("scheduler/", "base/config", "services pass plain options"),
    ("scheduler/plan/", "scheduler/cluster/", "the plan is the narrow waist"),
    ("scheduler/plan/", "scheduler/stage/", "the plan is the narrow waist"),
    ("scheduler/stage/", "scheduler/cluster/", "two schedulers, joined only by plan/"),
    ("scheduler/cluster/", "scheduler/stage/", "two schedulers, joined only by plan/"),
    ("media/", "base/rpc", "gRPC settings are for services and transport/grpc"),
    ("kernels/", "base/rpc", "gRPC settings are for services and transport/grpc"),
    ("models/", "base/rpc", "gRPC settings are for services and transport/grpc"),
    ("engine/", "base/rpc", "gRPC settings are for services and transport/grpc"),
    ("engine/", "transport/", "the engine knows no transport"),
    ("kernels/", "base/metrics", "kernels return values; services count"),
    ("models/", "base/metrics", "models return values; services count"),
]

# --- Words -----------------------------------------------------------------------------------

# (rule, pattern, where it holds, {path prefix: reason it may}). Matched against code without its
# comments and strings.
CODE_WORDS = [
    ("sleep",
     r"\b(sleep|usleep|nanosleep|sleep_for|sleep_until|SleepFor)\s*\(",
     "",
     {}),
    ("clock",
     r"\b(steady_clock|system_clock|high_resolution_clock)::now\b|\babsl::Now\s*\("
     r"|\b(clock_gettime|gettimeofday)\s*\(|(?<![\w.>])time\s*\((nullptr|NULL|0|&)",
     "",
     {"base/clock.h": "the injected clock itself",
      "base/log.cc": "wall time exists in log lines alone",
      "base/rpc.cc": "gRPC takes a deadline as wall-clock time",
      "services/runtime/": "gRPC takes a deadline as wall-clock time",
      "services/scheduler/cluster_service": "a gRPC alarm takes wall-clock time",
      "bench/decisions/": "measures the time that its thread had the core"}),
    ("random",
     r"\b(rand|srand|rand_r|drand48|getrandom)\s*\(|\brandom_device\b"
     r"|\bRandomBits64\s*\(",
     "",
     {"base/random.h": "the two sources of random bits",
      "services/": "incarnations and request ids are drawn by services",
      "tests/base/": "tests the source itself"}),
    ("pure",
     r"\bRealClock\b|\bstd::(thread|jthread|mutex|atomic|async|condition_variable)\b|\bMutexLock\b"
     r"|\b(socket|fork|pthread_create)\s*\(|\bstd::(cout|cerr|mt19937)",
     "scheduler/",
     {}),
    ("environment", r"\bgetenv\s*\(|\bsetenv\s*\(", "",
     {"base/config.cc": "flags may be set by variables, read in the one place that reads flags",
      "services/cli/": "finds its own binaries and the terminal's width",
      "tests/": "tests find their inputs"}),
    ("throw", r"\bthrow\b", "", {}),
    ("bare-check", r"(?<![\w_])CHECK\s*\(", "",
     {"tests/": "Catch2's macro", "bench/": "not compiled into the product"}),
]

# Matched against the whole text, comments included. Written in halves so that this file passes.
TEXT_WORDS = [
    ("todo", r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b"),
    ("workplace",
     r"\b(Clau" r"de|Anthro" r"pic|Chat" r"GPT|Copi" r"lot|sub-?ag" r"ents?|A" r"I)\b"
     r"|/wor" r"k/(main|shared)|\bissue #\d|\btmp/br" r"ief"),
    ("shared-folder", r"\.\./sha" r"red\b"),
]
# Tests may look for reference material beside the checkout, guarded by its existence.
TEXT_WORD_EXCEPTIONS = {"shared-folder": ("tests/", "bench/", ".gitignore")}

# A type is named for what it is.
FORBIDDEN_NAME_WORDS = {"Manager", "Helper", "Helpers", "Util", "Utils", "Handler", "Data"}
FORBIDDEN_FOLDERS = {"util", "utils", "common", "helpers", "misc"}
