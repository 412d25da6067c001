"""Defended: what deploy/ says about the product is true of the product, and its tools accept it.

usage: deploy_test.py CASE --root DIR --bin DIR
Ends with 77 where this machine lacks the tool that the case needs; ctest shows that as skipped.
"""

import argparse
import fnmatch
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

SKIPPED = 77
METRIC = r"\btriptych_[a-z0-9_]+"
PROGRAMS = {"triptych-gateway", "triptych-scheduler", "triptych-worker"}


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


def expect(condition, message):
    if not condition:
        print(f"FAILED: {message}")
        sys.exit(1)


def read(*parts):
    with open(os.path.join(*parts), encoding="utf-8") as file:
        return file.read()


def tool(root, path, name):
    """The program in build-tools (where ./run puts it) or on the PATH; skips without it."""
    found = os.path.join(root, "build-tools", path, name)
    found = found if os.path.exists(found) else shutil.which(name)
    return found or skip(f"{name} is not here; ./run test fetches it")


def parser(root):
    """The YAML parser of this Python or of build-tools; skips without one."""
    try:
        import yaml
        return yaml
    except ImportError:
        python = os.path.join(root, "build-tools", "venv", "bin", "python")
        if os.path.exists(python) and os.path.realpath(sys.prefix) != os.path.realpath(
                os.path.join(root, "build-tools", "venv")):
            os.execv(python, [python, *sys.argv])
        return skip("no YAML parser")


def documents(root):
    """(file name, parsed document) of every Kubernetes manifest of the base."""
    yaml = parser(root)
    for path in sorted(glob.glob(os.path.join(root, "deploy/kubernetes/base/*.yaml"))):
        for document in yaml.safe_load_all(read(path)):
            yield os.path.basename(path), document


def pod_specs(root):
    for file, document in documents(root):
        if document["kind"] == "Deployment":
            yield file, document, document["spec"]["template"]["spec"]


def case_promtool(args):
    promtool = tool(args.root, ".", "promtool")
    for command in (["check", "config", "deploy/prometheus/prometheus.yml"],
                    ["test", "rules", "tests/deploy/alerts_test.yml"]):
        code = subprocess.run([promtool, *command], cwd=args.root, check=False).returncode
        expect(code == 0, f"promtool {' '.join(command)}")
    tests = read(args.root, "tests/deploy/alerts_test.yml")
    fired = re.findall(r"alertname: (\w+)\n\s+exp_alerts:\n", tests)
    for alert in re.findall(r"alert: (\w+)", read(args.root, "deploy/prometheus/alerts.yml")):
        expect(alert in fired, f"no fault is shown to fire {alert}")


def case_schema(args):
    validate = tool(args.root, "venv/bin", "kubernetes-validate")
    files = [f for f in sorted(glob.glob(os.path.join(args.root, "deploy/kubernetes/base/*.yaml")))
             if os.path.basename(f) != "kustomization.yaml"]
    expect(files, "there are manifests")
    code = subprocess.run([validate, "--strict", *files], check=False).returncode
    expect(code == 0, "kubernetes-validate")


def case_kustomization(args):
    listed, present = set(), set()
    for file, document in documents(args.root):
        if file == "kustomization.yaml":
            listed = set(document["resources"])
        else:
            present.add(file)
    expect(listed == present, f"listed {sorted(listed)}, present {sorted(present)}")


def built(root, folder):
    """What kubectl makes of a kustomization; skips without kubectl."""
    if shutil.which("kubectl") is None:
        skip("no kubectl")
    made = subprocess.run(["kubectl", "kustomize", os.path.join(root, folder)],
                          capture_output=True, text=True, check=False, timeout=60)
    expect(made.returncode == 0, f"{folder}: {made.stderr}")
    return list(parser(root).safe_load_all(made.stdout))


def quantity(text, units):
    for unit, factor in units.items():
        if text.endswith(unit):
            return float(text[:-len(unit)]) * factor
    return float(text)


def case_overlays(args):
    """kubectl builds every overlay; kind's fits a small machine, gpu's asks for GPUs."""
    cpus = memory = 0
    for document in built(args.root, "deploy/kubernetes/overlays/kind"):
        if document["kind"] != "Deployment":
            continue
        spec = document["spec"]["template"]["spec"]
        expect("nodeSelector" not in spec, "kind has nodes without labels")
        requests = spec["containers"][0]["resources"]["requests"]
        cpus += document["spec"]["replicas"] * quantity(requests["cpu"], {"m": 0.001})
        memory += document["spec"]["replicas"] * quantity(requests["memory"],
                                                          {"Mi": 1 / 1024, "Gi": 1})
    expect(0 < cpus <= 2 and 0 < memory <= 4, f"kind asks for {cpus} CPUs and {memory} GiB")
    workers = [d for d in built(args.root, "deploy/kubernetes/overlays/gpu")
               if d["kind"] == "Deployment" and d["metadata"]["name"].startswith("worker-")]
    expect(len(workers) == 3, "three pools of GPUs")
    for worker in workers:
        container = worker["spec"]["template"]["spec"]["containers"][0]
        expect(container["resources"]["limits"]["nvidia.com/gpu"] == "1", "one GPU a worker")
        expect(container["args"][-1].startswith("--model=/models/"), "the volume's model")
    with tempfile.TemporaryDirectory(dir=os.path.join(args.root, "deploy/kubernetes")) as scratch:
        components = ["../components/autoscaling", "../components/monitoring"]
        with open(os.path.join(scratch, "kustomization.yaml"), "w", encoding="utf-8") as file:
            json.dump({"resources": ["../base"], "components": components}, file)
        kinds = [d["kind"] for d in built(args.root, os.path.relpath(scratch, args.root))]
    for kind, count in (("HorizontalPodAutoscaler", 3), ("PodMonitor", 1), ("PrometheusRule", 1)):
        expect(kinds.count(kind) == count, f"{kinds.count(kind)} {kind}")


def case_rules(args):
    """Each alert says what to do; the operator's rules are the plain file's."""
    yaml = parser(args.root)
    plain = yaml.safe_load(read(args.root, "deploy/prometheus/alerts.yml"))
    operations = read(args.root, "docs/operations.md")
    for rule in (r for group in plain["groups"] for r in group["rules"] if "alert" in r):
        name = rule["alert"]
        expect(f"### {name}\n" in operations, f"docs/operations.md does not tell of {name}")
        expect(rule["annotations"]["runbook_url"] == f"docs/operations.md#{name.lower()}", name)
    rule = yaml.safe_load(read(args.root,
                               "deploy/kubernetes/components/monitoring/prometheus_rule.yaml"))
    expect(rule["spec"] == plain, "prometheus_rule.yaml and alerts.yml differ; run "
           "tests/deploy/write_prometheus_rule.sh")


def case_compose(args):
    """compose.yaml starts one process of each kind, with flags that exist."""
    services = parser(args.root).safe_load(read(args.root, "compose.yaml"))["services"]
    expect(services.pop("certificates")["command"][:2] == ["triptych", "certificates"], "TLS")
    programs = [s["command"][0] for s in services.values()]
    expect(sorted(set(programs)) == sorted(PROGRAMS), f"{programs}")
    roles = [c.split("=")[1] for s in services.values() for c in s["command"]
             if c.startswith("--roles=")]
    expect(sorted(roles) == ["decode", "encode", "prefill"], f"{roles}")
    for name, service in services.items():
        known = flags_of(args, service["command"][0])
        for flag in service["command"][1:]:
            expect(re.match(r"--([a-z-]+)=", flag).group(1) in known, f"{name}: {flag}")


def case_pods(args):
    """Every pod is unprivileged, bounded, probed, and reachable by the names others dial."""
    services = {d["metadata"]["name"]: d for _, d in documents(args.root)
                if d["kind"] == "Service"}
    selectors = []
    for file, document, spec in pod_specs(args.root):
        container = spec["containers"][0]
        expect(spec["securityContext"]["runAsNonRoot"], f"{file}: runs as root")
        expect(not spec["automountServiceAccountToken"], f"{file}: mounts a token")
        security = container["securityContext"]
        expect(security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
               and security["capabilities"]["drop"] == ["ALL"], f"{file}: privileged")
        expect("memory" in container["resources"]["limits"], f"{file}: memory without a bound")
        expect(container["livenessProbe"]["httpGet"]["path"] == "/healthz", f"{file}: liveness")
        expect(container["readinessProbe"]["httpGet"]["path"] == "/readyz", f"{file}: readiness")
        ports = {p["name"]: p["containerPort"] for p in container["ports"]}
        expect(ports["admin"] == 9090, f"{file}: admin port")
        for argument in container["args"]:
            target = re.match(r"--scheduler=([^:]+):(\d+)$", argument)
            if target:
                service = services.get(target.group(1))
                expect(service, f"{file}: {argument} names no service")
                open_ports = [p["port"] for p in service["spec"]["ports"]]
                expect(int(target.group(2)) in open_ports, f"{file}: {argument}: {open_ports}")
        if "nodeSelector" in spec:
            selectors.append(str(spec["nodeSelector"]))
    expect(len(selectors) == 3 == len(set(selectors)), f"three pools apart: {selectors}")


def case_network(args):
    """Denied by default; only the gateway's client ports take traffic from anywhere."""
    policies = [d for _, d in documents(args.root) if d["kind"] == "NetworkPolicy"]
    deny = next(p for p in policies if p["metadata"]["name"] == "default-deny")
    expect(deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}, "deny all")
    opened = [(p["metadata"]["name"], port["port"]) for p in policies
              for rule in p["spec"].get("ingress", []) if "from" not in rule
              for port in rule["ports"]]
    expect(sorted(opened) == [("gateway", "grpc"), ("gateway", "http")], f"open: {opened}")


def flags_of(args, program):
    """The flags that a program's own help lists; skips where it is not built."""
    if not os.path.exists(os.path.join(args.bin, program)):
        skip(f"not built: {program}")
    shown = subprocess.run([os.path.join(args.bin, program), "--help"], capture_output=True,
                           text=True, check=False, timeout=60).stdout
    return set(re.findall(r"^\s*--([a-z][a-z0-9-]*)", shown, re.M))


def case_flags(args):
    """Every flag in a manifest is one that the program's own help lists."""
    missing = [p for p in PROGRAMS if not os.path.exists(os.path.join(args.bin, p))]
    if missing:
        skip(f"not built: {missing}")
    for file, _, spec in pod_specs(args.root):
        program, *flags = spec["containers"][0]["args"]
        expect(program in PROGRAMS, f"{file}: {program} is no program of ours")
        known = flags_of(args, program)
        for flag in flags:
            name = re.match(r"--([a-z-]+)=", flag)
            expect(name and name.group(1) in known, f"{file}: {program} has no {flag}")


def metrics_in(text):
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(METRIC, text)}


def dashboard_expressions(root):
    dashboard = json.loads(read(root, "deploy/grafana/triptych.json"))
    expect(dashboard["panels"], "the dashboard has panels")
    return "\n".join(t["expr"] for panel in dashboard["panels"] for t in panel["targets"])


def declared_in_code(root):
    """Names that stand as whole string literals in the product's sources."""
    names = set()
    for folder in ("base", "engine", "transport", "services"):
        for suffix in ("*.cc", "*.h"):
            for path in glob.glob(os.path.join(root, folder, "**", suffix), recursive=True):
                names |= set(re.findall(r'"(' + METRIC[2:] + r')"', read(path)))
    return names - {"triptych_"}


def case_metrics(args):
    """Dashboard and alerts use what docs/metrics.md describes; it describes what the code has."""
    described = set(re.findall(r"^\| `(" + METRIC[2:] + ")`", read(args.root, "docs/metrics.md"),
                               re.M))
    used = metrics_in(read(args.root, "deploy/prometheus/alerts.yml"))
    used |= metrics_in(dashboard_expressions(args.root))
    expect(len(used) > 10, "alerts and dashboard use metrics")
    expect(used <= described, f"used but not described: {sorted(used - described)}")
    declared = declared_in_code(args.root)
    expect(declared <= described, f"in code, not described: {sorted(declared - described)}")
    expect(described <= declared, f"described, not in code: {sorted(described - declared)}")


def case_dockerfile(args):
    text = read(args.root, "deploy/Dockerfile")
    stages = re.findall(r"^FROM (\S+)", text, re.M)
    expect(len(stages) == 2 and all(s.startswith("debian:12") for s in stages), f"{stages}")
    user = re.findall(r"^USER (\S+)", text, re.M)
    expect(user and not user[-1].startswith(("0", "root")), "the last USER is not root")
    expect(PROGRAMS <= set(re.findall(r"triptych-\w+", text)), "every program is built")


def case_context(args):
    """The build configures with what the image's build sees of the checkout."""
    ignored = read(args.root, "deploy/Dockerfile.dockerignore").split()
    expect(".git" in ignored and "tests" in ignored, f"{ignored}")
    with tempfile.TemporaryDirectory() as scratch:
        context = os.path.join(scratch, "context")
        shutil.copytree(args.root, context, ignore=lambda folder, names: [
            name for name in names if folder == args.root and
            any(fnmatch.fnmatch(name, pattern) for pattern in ignored)])
        for kept in (p[1:] for p in ignored if p.startswith("!")):
            os.makedirs(os.path.dirname(os.path.join(context, kept)), exist_ok=True)
            shutil.copy(os.path.join(args.root, kept), os.path.join(context, kept))
        result = subprocess.run(["cmake", "-G", "Ninja", "-S", context, "-B", context + "/build"],
                                capture_output=True, text=True, check=False)
        expect(result.returncode == 0, result.stderr)
        expect(os.path.exists(context + "/build/build.ninja"), "there is something to build")


CASES = {name[5:]: function for name, function in globals().items() if name.startswith("case_")}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=sorted(CASES))
    parser.add_argument("--root", required=True)
    parser.add_argument("--bin", required=True)
    args = parser.parse_args()
    CASES[args.case](args)


if __name__ == "__main__":
    main()
