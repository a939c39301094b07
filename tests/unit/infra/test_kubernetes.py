"""The manifests: valid by Kubernetes' schemas, closed by default, true to the compose file."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests import containers
from tests.containers import KUBERNETES, SECRET

VERSION = "1.33"
KEYS = {*containers.secret_names(), "DXAI_REPOSITORY", "DXAI_ALERTS"}
KUSTOMIZATION = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
Object = dict[str, Any]


def templates(objects: list[Object]) -> Iterator[Object]:
    """Return every pod template by the name of its app."""
    for item in objects:
        spec = item.get("spec", {})
        if item["kind"] == "RayCluster":
            yield spec["headGroupSpec"]["template"]
            yield from (group["template"] for group in spec["workerGroupSpecs"])
        elif "template" in spec:
            yield spec["template"]


def app(template: Object) -> str:
    return str(template["metadata"]["labels"]["app"])


def invalid(objects: list[Object]) -> list[str]:
    """List the errors of Kubernetes' schemas; for a RayCluster those of its pods."""
    pods = [{"apiVersion": "v1", "kind": "Pod", **template} for template in templates(objects)]
    found = []
    for item in [*(item for item in objects if item["kind"] != "RayCluster"), *pods]:
        try:
            kubernetes_validate.validate(item, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{item['kind']}: {error.message}")
    return found


def unsafe(objects: list[Object]) -> list[str]:
    """List pods with needless rights, without probes or limits, or with a secret inside."""
    found = [f"{item['kind']} has content" for item in objects if item["kind"] == "Secret"]
    for template in templates(objects):
        spec, name = template["spec"], app(template)
        user = spec.get("securityContext", {})
        checks = {
            "runs as root": user.get("runAsNonRoot") is True and user.get("runAsUser", 0) > 0,
            "is not confined": user.get("seccompProfile") == {"type": "RuntimeDefault"},
            # The autoscaler beside Ray's head makes pods.
            "has a token": spec.get("automountServiceAccountToken") is (name == "ray-head"),
            "shares the host": not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
            and not any("hostPath" in volume for volume in spec.get("volumes", [])),
        }
        for container in spec["containers"] + spec.get("initContainers", []):
            own, resources = container.get("securityContext", {}), container.get("resources", {})
            checks |= {
                "may gain privileges": own.get("allowPrivilegeEscalation") is False,
                "writes to its root": own.get("readOnlyRootFilesystem") is True,
                "has capabilities": own.get("capabilities") == {"drop": ["ALL"]},
                "has no probes": {"livenessProbe", "readinessProbe"} <= container.keys(),
                "has no requests": resources.get("requests", {}).keys() == {"cpu", "memory"},
                "has no limits": resources.get("limits", {}).keys() == {"cpu", "memory"},
            }
            for variable in container.get("env", []):
                value, source = variable.get("value", ""), variable.get("valueFrom", {})
                plain = re.sub(r"\$\(\w+\)", "", value).replace("dxai:", "").strip('",')
                if SECRET.search(variable["name"]) and plain:
                    found.append(f"{name} has a value for {variable['name']}")
                reference = source.get("secretKeyRef", {"name": "dxai", "key": "S3_ACCESS_KEY"})
                if reference["name"] != "dxai" or reference["key"] not in KEYS:
                    found.append(f"{name} wants {reference['key']}, which nobody is told to make")
        found += [f"{name} {text}" for text, right in checks.items() if not right]
    return found


def admits(rule: Object, labels: dict[str, str], port: int | None) -> bool:
    """Return whether an ingress rule admits a pod with these labels."""
    ports = [entry["port"] for entry in rule.get("ports", [])]
    return (not ports or port in ports) and any(
        selects(peer["podSelector"], labels) for peer in rule["from"]
    )


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Return whether a label selector matches."""
    equal = selector.get("matchLabels", {}).items() <= labels.items()
    expressions = selector.get("matchExpressions", [])
    assert all(expression["operator"] == "In" for expression in expressions)
    return equal and all(labels.get(e["key"]) in e["values"] for e in expressions)


def unreachable(objects: list[Object]) -> list[str]:
    """Addresses in a pod's settings that no service has, or to which its way is barred."""
    settings = next(c for c in KUSTOMIZATION["configMapGenerator"] if c["name"] == "settings")
    services = {o["metadata"]["name"]: o["spec"] for o in objects if o["kind"] == "Service"}
    services["dxai-head-svc"] = {"selector": {"app": "ray-head"}, "ports": [{"port": 6379}]}
    pods = {app(template): template for template in templates(objects)}
    policies = [item["spec"] for item in objects if item["kind"] == "NetworkPolicy"]
    if not any(p["podSelector"] == {} and "Ingress" in p["policyTypes"] for p in policies):
        return ["everything is open"]
    found, asked = [], 0
    for name, template in pods.items():
        for container in template["spec"]["containers"]:
            values = [v.get("value", "") for v in container.get("env", [])]
            values += container.get("command", [])
            values += settings["literals"] if "envFrom" in container else []
            for value in values:
                for host, number in re.findall(r"(?:://|@|^)([a-z][\w-]*):(\d+)(?:/|$)", value):
                    asked += 1
                    service, port = services.get(host), int(number)
                    if service is None or port not in [p["port"] for p in service["ports"]]:
                        found.append(f"{name} looks for {host}:{port}, which is no service")
                        continue
                    target = pods[service["selector"]["app"]]
                    (server,) = target["spec"]["containers"]
                    if port not in [p["containerPort"] for p in server["ports"]]:
                        found.append(f"{host} does not listen on {port}")
                    labels = template["metadata"]["labels"]
                    rules = [
                        rule
                        for policy in policies
                        if selects(policy["podSelector"], target["metadata"]["labels"])
                        for rule in policy.get("ingress", [])
                    ]
                    if not any(admits(rule, labels, port) for rule in rules):
                        found.append(f"{name} may not reach {host}:{port}")
    assert asked > 5
    found += [
        f"service {name} is open to the outside"
        for name, spec in services.items()
        if spec.get("type", "ClusterIP") != "ClusterIP"
    ]
    return found


def test_they_are_valid() -> None:
    assert invalid(containers.kubernetes()) == []


def test_they_are_safe() -> None:
    assert unsafe(containers.kubernetes()) == []


def test_who_needs_whom_may_reach_it() -> None:
    assert unreachable(containers.kubernetes()) == []


def pick(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = (o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)
    return found


def container(objects: list[Object], name: str) -> Object:
    (found,) = (t for t in templates(objects) if app(t) == name)
    return found["spec"]["containers"][0]


def pod(objects: list[Object], name: str) -> Object:
    (found,) = (t for t in templates(objects) if app(t) == name)
    return found["spec"]


BROKEN: dict[str, tuple[Callable[..., list[str]], Callable[[list[Object]], Any]]] = {
    "imag": (invalid, lambda o: container(o, "ray-worker").update(imag="x")),
    "'4200'": (
        invalid,
        lambda o: container(o, "prefect")["ports"].append({"containerPort": "4200"}),
    ),
    "replica": (invalid, lambda o: pick(o, "Deployment", "worker")["spec"].update(replica=2)),
    "Secret has content": (unsafe, lambda o: o.append({"kind": "Secret"})),
    "worker runs as root": (
        unsafe,
        lambda o: pod(o, "worker")["securityContext"].update(runAsUser=0),
    ),
    "s3 is not confined": (unsafe, lambda o: pod(o, "s3")["securityContext"].pop("seccompProfile")),
    "s3 has a token": (unsafe, lambda o: pod(o, "s3").pop("automountServiceAccountToken")),
    "s3 shares the host": (unsafe, lambda o: pod(o, "s3").update(hostNetwork=True)),
    "mlflow may gain": (unsafe, lambda o: container(o, "mlflow").pop("securityContext")),
    "prefect has no probes": (unsafe, lambda o: container(o, "prefect").pop("livenessProbe")),
    "ray-head has no limits": (
        unsafe,
        lambda o: container(o, "ray-head")["resources"].pop("limits"),
    ),
    "has no requests": (unsafe, lambda o: container(o, "ray-worker").pop("resources")),
    "a value for RAY_AUTH_TOKEN": (
        unsafe,
        lambda o: container(o, "worker")["env"].append({"name": "RAY_AUTH_TOKEN", "value": "x"}),
    ),
    "wants OTHER": (
        unsafe,
        lambda o: container(o, "s3")["env"].append(
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": "dxai", "key": "OTHER"}}}
        ),
    ),
    "everything is open": (unreachable, lambda o: o.remove(pick(o, "NetworkPolicy", "default"))),
    "mlflow may not reach postgres": (
        unreachable,
        lambda o: o.remove(pick(o, "NetworkPolicy", "postgres")),
    ),
    "ray-worker may not reach s3": (
        unreachable,
        lambda o: o.remove(pick(o, "NetworkPolicy", "s3")),
    ),
    "worker may not reach dxai-head-svc": (
        unreachable,
        lambda o: o.remove(pick(o, "NetworkPolicy", "ray")),
    ),
    "prefect:4200, which is no service": (
        unreachable,
        lambda o: o.remove(pick(o, "Service", "prefect")),
    ),
    "mlflow does not listen": (unreachable, lambda o: container(o, "mlflow")["ports"].clear()),
    "open to the outside": (
        unreachable,
        lambda o: pick(o, "Service", "mlflow")["spec"].update(type="NodePort"),
    ),
}


@pytest.mark.parametrize("expected", BROKEN)
def test_what_is_broken_is_found(expected: str) -> None:
    objects = copy.deepcopy(containers.kubernetes())
    check, change = BROKEN[expected]
    change(objects)
    assert any(expected in problem for problem in check(objects))


def test_every_file_and_every_generated_map_is_used() -> None:
    files = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(KUSTOMIZATION["resources"]) == files
    maps = {entry["name"]: entry for entry in KUSTOMIZATION["configMapGenerator"]}
    given = [file for entry in maps.values() for file in entry.get("files", [])]
    assert given and all((KUBERNETES / file).exists() for file in given)
    text = "".join((KUBERNETES / file).read_text() for file in files)
    assert set(re.findall(r"configMap(?:Ref)?: \{name: ([\w-]+)\}", text)) == maps.keys()
    assert not any(
        SECRET.search(line) and "MODE" not in line for line in maps["settings"]["literals"]
    )


def test_commands_are_those_of_the_compose_file() -> None:
    """tests/integration/test_containers.py runs the compose file's commands."""
    services = containers.compose()["services"]
    objects = containers.kubernetes()
    for name in ("prefect", "mlflow", "worker"):
        assert container(objects, name)["command"] == services[name]["command"]
    store = services["s3"]
    words = [*store["entrypoint"], *(word.replace("$$", "$") for word in store["command"])]
    assert container(objects, "s3")["command"] == words
    assert container(objects, "s3")["image"] == store["image"]
    cluster = pick(objects, "RayCluster", "dxai")["spec"]
    head, (training,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    for name, group in (("ray-head", head), ("ray-worker", training)):
        given = {f"--{key}={value}" for key, value in group["rayStartParams"].items()}
        # KubeRay says itself how a node finds the head, that it blocks, and how many cores it has.
        own = {"ray", "start", "--head", "--block", "--port=6379", "--address=ray-head:6379"}
        own |= {"--num-cpus=2"}
        assert given == set(services[name]["command"]) - own
    for name in ("postgres", "ray-head"):
        test = services[name]["healthcheck"]["test"][1:]
        assert container(objects, name)["readinessProbe"]["exec"]["command"] == test
    for name in ("prefect", "mlflow", "worker"):
        probe = container(objects, name)["readinessProbe"]["httpGet"]
        assert (
            f"127.0.0.1:{probe['port']}{probe['path']}'"
            in services[name]["healthcheck"]["test"][-1]
        )


def test_ray_is_what_the_lock_file_has() -> None:
    cluster = pick(containers.kubernetes(), "RayCluster", "dxai")["spec"]
    assert f"\nray=={cluster['rayVersion']}\n" in (containers.ROOT / "constraints.txt").read_text()
    scaling = {"enableInTreeAutoscaling", "autoscalerOptions"}
    assert cluster.keys() == {"rayVersion", "headGroupSpec", "workerGroupSpecs", *scaling}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    allowed = {"rayStartParams", "template", "groupName", "replicas", "minReplicas", "maxReplicas"}
    assert all(group.keys() <= allowed for group in groups)


def test_ray_s_workers_come_and_go_and_trainings_know_how_many_there_can_be() -> None:
    objects = containers.kubernetes()
    cluster = pick(objects, "RayCluster", "dxai")["spec"]
    (group,) = cluster["workerGroupSpecs"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert group["replicas"] == group["minReplicas"] == 0 < group["maxReplicas"]
    each = int(container(objects, "ray-worker")["resources"]["limits"]["cpu"])
    settings = {entry["name"]: entry.get("value") for entry in container(objects, "worker")["env"]}
    assert settings["DXAI_RAY_LIMIT"] == f"CPU={each * group['maxReplicas']}"
    # The operator adds the autoscaler's container with these; it uses the head's volumes.
    options = cluster["autoscalerOptions"]
    added = {"name": "autoscaler", "image": "dxai", **options}
    added = {k: v for k, v in added.items() if k not in ("version", "idleTimeoutSeconds")}
    head = copy.deepcopy(pod(objects, "ray-head"))
    head["containers"].append(added)
    as_pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "head"}, "spec": head}
    kubernetes_validate.validate(as_pod, VERSION, strict=True)
    assert {mount["name"] for mount in options["volumeMounts"]} <= {
        volume["name"] for volume in head["volumes"]
    }


def test_behind_an_ingress_each_server_knows_its_host_and_is_reached() -> None:
    folder = KUBERNETES.with_name("kubernetes-tls")
    overlay = yaml.safe_load((folder / "kustomization.yaml").read_text())
    base, file = overlay["resources"]
    assert (folder / base).resolve() == KUBERNETES
    ingress, policy = yaml.safe_load_all((folder / file).read_text())
    for item in (ingress, policy):
        kubernetes_validate.validate(item, VERSION, strict=True)
    objects = containers.kubernetes()
    (tls,) = ingress["spec"]["tls"]
    admitted = [entry["port"] for entry in policy["spec"]["ingress"][0]["ports"]]
    patches = [yaml.safe_load(entry["patch"]) for entry in overlay["patches"]]
    assert len(patches) == len(ingress["spec"]["rules"]) == len(tls["hosts"])
    for patch, rule in zip(patches, ingress["spec"]["rules"], strict=True):
        name = patch["metadata"]["name"]
        (path,) = rule["http"]["paths"]
        target = path["backend"]["service"]
        assert target["name"] == name and rule["host"] in tls["hosts"]
        ports = pick(objects, "Service", name)["spec"]["ports"]
        assert target["port"]["number"] in [port["port"] for port in ports]
        assert target["port"]["number"] in admitted
        assert selects(policy["spec"]["podSelector"], {"app": name})
        (changed,) = patch["spec"]["template"]["spec"]["containers"]
        (setting,) = changed["env"]
        before = {entry["name"] for entry in container(objects, name)["env"]}
        assert setting["name"] in before and rule["host"] in setting["value"]
