"""`reg-engine generate --engine ray` on clusters of processes: machines that join, leave and end.

Skipped where Ray is not installed; `make test-ray`.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from generation_cases import tree

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: make test-ray"
)
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
GENERATE = [sys.executable, "-m", "reg_engine", "generate", "--steps", "4", "--batch-size", "4"]
GENERATE += ["--shard-size", "8", "--json"]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
ENV["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # a head on the loopback interface
ENV["RAY_AUTH_MODE"] = "token"  # of the user's own file
ENV.pop("RAY_ADDRESS", None)
JOINED = {**ENV, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}  # else no other machine may join
QUICK = {"RAY_gcs_rpc_server_reconnect_timeout_s": "3"}  # until a lost head ends what asks it


def events(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Standard output, of which every line is JSON."""
    return [json.loads(line) for line in done.stdout.splitlines()]


def run(*words: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*GENERATE, *words], env={**ENV, **QUICK}, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode == 0) == ok, done.stderr
    return done


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one") / "o"
    run("--seeds", "0-159", "--out", str(out))
    return out


def listening(pids: set[int]) -> dict[int, str]:
    """Ports on which these processes listen beyond the loopback interface, with the address."""
    inodes = set()
    for pid in pids:
        try:
            links = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        inodes |= {link[8:-1] for link in links if link.startswith("socket:[")}
    found = {}
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] != "0A" or fields[9] not in inodes:
                continue
            host, port = fields[1].split(":")
            words = [int(host[i : i + 8], 16) for i in range(0, len(host), 8)]
            packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
            address = ipaddress.ip_address(packed)
            inner = getattr(address, "ipv4_mapped", None) or address
            found[int(port, 16)] = "" if inner.is_loopback else str(inner)
    return found


def children(pid: int) -> set[int]:
    """A process and all below it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def test_a_cluster_of_this_machine_alone(tmp_path: Path, wanted: Path) -> None:
    """Loopback only, no dashboard, nothing left; a worker that is killed is replaced; every line
    is JSON; the metrics count."""
    out, metrics = tmp_path / "o", tmp_path / "m.prom"
    command = [*GENERATE, "--seeds", "0-159", "--out", str(out), "--metrics", str(metrics)]
    command += ["--engine", "ray", "--workers", "2"]
    process = subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=-1, text=True)
    assert process.stdout is not None and process.stderr is not None
    lines = [process.stdout.readline(), process.stdout.readline()]
    below = children(process.pid)
    ports = listening(below)
    assert len(ports) >= 5 and set(ports.values()) == {""}, ports
    actors = [
        pid for pid in below if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::Actor")
    ]
    assert len(actors) == 2
    os.kill(actors[0], signal.SIGKILL)
    lines += process.stdout.readlines()
    error = process.stderr.read()
    assert process.wait(60) == 0, error
    found = [json.loads(line) for line in lines]
    assert [each["event"] for each in found] == ["start", *["shard"] * 20, "end"]
    assert sorted(each["number"] for each in found[1:-1]) == list(range(20))
    assert f"process {actors[0]}, was lost with shard" in error
    assert tree(out) == tree(wanted)
    assert "reg_engine_generate_images_total" in metrics.read_text()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in below):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_sigterm_lets_the_shards_in_hand_end(tmp_path: Path, wanted: Path) -> None:
    out = tmp_path / "o"
    command = [*GENERATE, "--seeds", "0-159", "--out", str(out), "--engine", "ray"]
    process = subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    rest = process.stdout.read()
    assert process.wait(60) == 143
    made = len(list((out / "shards").iterdir()))
    assert made == 1 + rest.count('"event": "shard"') < 20
    assert os.listdir(out / "leases") == []
    run("--seeds", "0-159", "--out", str(out))
    assert tree(out) == tree(wanted)


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def head(port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Starts a head by `ray start`, as often as it is called; its processes end with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(cpus: int = 1, joined: bool = False) -> subprocess.Popen[bytes]:
        command = [*RAY, "start", "--head"]
        command += ["--block", f"--port={port}", f"--num-cpus={cpus}", "--include-dashboard=false"]
        command += ["--object-store-memory=80000000"]
        command += [] if joined else ["--node-ip-address=127.0.0.1"]
        process = subprocess.Popen(
            command,
            env={**(JOINED if joined else ENV), **QUICK},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started.append(process)
        deadline = time.monotonic() + 60
        while True:
            with socket.socket() as probe:
                if not probe.connect_ex((own_address() if joined else "127.0.0.1", port)):
                    return process
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)

    yield start
    for process in started:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """A head and all its processes, as a machine that loses its power."""
    for pid in children(process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def test_a_head_that_ends_and_comes_again(
    tmp_path: Path, wanted: Path, port: int, head: Any
) -> None:
    """The run ends with it; the same command then does only what is missing."""
    first, out = head(), tmp_path / "o"
    words = ["--seeds", "0-159", "--out", str(out), "--engine", "ray"]
    words += ["--address", f"127.0.0.1:{port}", "--expiry", "5"]
    process = subprocess.Popen(
        [*GENERATE, *words], env={**ENV, **QUICK}, stdout=subprocess.PIPE, stderr=-1, text=True
    )
    assert process.stdout is not None
    for _ in range(4):
        assert json.loads(process.stdout.readline())
    end(first)
    process.communicate(timeout=120)
    assert process.returncode not in (0, None)
    there = len(list((out / "shards").glob("0*.json")))
    assert 3 <= there < 20
    head()
    again = events(run(*words))
    assert sum(each["event"] == "shard" for each in again) == 20 - there
    assert tree(out) == tree(wanted)


def test_machines_that_join_and_leave(tmp_path: Path, wanted: Path, port: int, head: Any) -> None:
    """A worker on the head alone, then a second one on a machine that joins, until that is lost."""
    head(joined=True)
    address, out = f"{own_address()}:{port}", tmp_path / "o"
    command = [*GENERATE, "--seeds", "0-3999", "--out", str(out), "--engine", "ray"]
    command += ["--address", address, "--workers", "1:2"]
    process = subprocess.Popen(command, env=JOINED, stdout=subprocess.PIPE, stderr=-1, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    first = actors_here()
    joining = [*RAY, "start", "--block", f"--address={address}", "--num-cpus=1"]
    joining += ["--object-store-memory=80000000"]
    second = subprocess.Popen(joining, env=JOINED, stdout=subprocess.DEVNULL)
    made, joined = 0, 0
    try:
        while not joined:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            made += '"event": "shard"' in line
            owners = {owner(lease) for lease in (out / "leases").glob("0*")}
            joined = next(iter(owners - first - {0}), 0)
    finally:
        end(second)
    assert 0 < made < 500, "it began before the machine came, and goes on without it"
    rest = process.stdout.read()
    error = process.stderr.read()
    assert process.wait(300) == 0, error
    assert made + rest.count('"event": "shard"') == 500
    assert f"process {joined}, was lost with shard" in error
    ours = tree(out)
    for name, data in tree(wanted).items():
        if name.endswith(".png"):
            assert ours[name] == data, name


def own_address() -> str:
    """This machine's, as Ray calls it."""
    import ray

    return str(ray.util.get_node_ip_address())


def actors_here() -> set[int]:
    """Processes of this machine that are actors of ours."""
    found = set()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and (entry / "cmdline").read_bytes()[:10] == b"ray::Actor":
                found.add(int(entry.name))
    return found


def owner(lease: Path) -> int:
    """The process that holds a lease; 0 = it is gone, or half written."""
    try:
        return int(json.loads(lease.read_text())["pid"])
    except (OSError, ValueError):
        return 0
