"""The servers that are measured: how each is started, on a free port, and stopped."""

import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = ROOT / "target" / "release"
PEERS = ROOT / "bench" / "peers"

#: name -> (protocol of the generator, what it is)
TARGETS = {
    "tickring": ("tickring", "tickring serve --cores 1, otherwise the default configuration"),
    "nats": ("nats", "nats-server with bench/peers/nats.conf"),
    "redis": ("redis", "redis-server with bench/peers/redis.conf"),
    "floor": ("floor", "tickring-floor: sends what arrives together in one send"),
    "floor-each": ("floor", "tickring-floor --each-message: a send for each message"),
}


class Broken(Exception):
    """A run that could not be done; the text says why."""


def build():
    """Builds what is measured, so that a run never measures an older build."""
    command = ["cargo", "build", "--release", "-p", "tickring", "-p", "tickring-loadgen", "-p", "tickring-floor"]
    subprocess.run(command, cwd=ROOT, check=True)


def install_peers(names):
    """Installs the peers that are missing, from Debian's packages."""
    packages = {"nats": ("nats-server", "nats-server"), "redis": ("redis-server", "redis-server")}
    missing = [packages[n][1] for n in names if n in packages and not shutil.which(packages[n][0])]
    if not missing:
        return
    print("installing", " ".join(missing), flush=True)
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # Installing must not start them as services: they would take their share of the machine.
    command = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *missing]
    subprocess.run(command, env={**environment, "RUNLEVEL": "1"}, check=True, stdout=subprocess.DEVNULL)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def processors():
    return sorted(os.sched_getaffinity(0))


class Server:
    """A running server. Use with `with`: it is stopped at the end, whatever happens."""

    def __init__(self, name, arguments=(), environment=None, cpus=None):
        self.name = name
        self.process = None
        self.address = None
        self._start(list(arguments), environment or {}, cpus)

    def _start(self, arguments, environment, cpus):
        if self.name == "tickring":
            cores = [] if "--cores" in arguments else ["--cores", "1"]
            command = [str(BIN / "tickring"), "serve", "--listen", "127.0.0.1:0", *cores]
        elif self.name in ("floor", "floor-each"):
            command = [str(BIN / "tickring-floor")] + ["--each-message"] * (self.name == "floor-each")
        elif self.name == "nats":
            port = free_port()
            command = ["nats-server", "-c", str(PEERS / "nats.conf"), "-p", str(port)]
        elif self.name == "redis":
            port = free_port()
            command = ["redis-server", str(PEERS / "redis.conf"), "--port", str(port)]
        else:
            raise Broken(f"no target is called {self.name}")
        ours = self.name in ("tickring", "floor", "floor-each")
        self.process = subprocess.Popen(
            command + arguments,
            stdout=subprocess.PIPE if ours else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environment},
            preexec_fn=(lambda: os.sched_setaffinity(0, cpus)) if cpus else None,
            text=True,
        )
        try:
            self.address = self._said() if ours else self._answers(port)
        except Broken:
            self.stop()
            raise

    def _said(self):
        found = re.match(r"listening on (\S+)", self.process.stdout.readline())
        if not found:
            raise Broken(f"{self.name} did not start: {' '.join(self.process.args)}")
        return found.group(1)

    def _answers(self, port):
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return f"127.0.0.1:{port}"
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        raise Broken(f"{self.name} did not start: {' '.join(self.process.args)}")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def versions():
    """What is measured, on what."""

    def said(*command):
        try:
            return subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.strip().splitlines()[0]
        except (OSError, IndexError):
            return "not there"

    def first(path, key):
        for line in Path(path).read_text().splitlines():
            if line.startswith(key):
                return line.split(":", 1)[1].strip()
        return "unknown"

    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": said("git", "log", "-1", "--format=%h %cs"),
        "kernel": said("uname", "-r"),
        "processor": first("/proc/cpuinfo", "model name"),
        "processors": len(processors()),
        "memory": first("/proc/meminfo", "MemTotal"),
        "hypervisor": "yes" if " hypervisor" in Path("/proc/cpuinfo").read_text() else "no",
        "rustc": said("rustc", "--version"),
        "nats": said("nats-server", "--version"),
        "redis": said("redis-server", "--version"),
    }
