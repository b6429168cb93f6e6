"""pod.py SOCKET HANDLER IMAGE CMD...: has a containerd of any version make a pod with a container, by its CRI, prints what CMD says in that, and the name of the
container's shim, and removes the pod. It needs curl alone, where there is neither a gRPC for Python (cri.py) nor crictl; the pod is in the host's network.
"""
import os, struct, subprocess, sys, tempfile

sys.dont_write_bytecode = True
from shim import message, parse


def call(method, fields):
    request = message(fields)
    with tempfile.NamedTemporaryFile() as headers:
        command = ["curl", "-sS", "--max-time", "120", "--http2-prior-knowledge", "--unix-socket", socket, "-D", headers.name, "-H", "content-type: application/grpc"]
        command += ["-H", "te: trailers", "--data-binary", "@-", f"http://cri/runtime.v1.RuntimeService/{method}"]
        answer = subprocess.run(command, input=b"\0" + struct.pack(">I", len(request)) + request, stdout=subprocess.PIPE).stdout
        said = headers.read().decode()
    if "grpc-status: 0" not in said:
        sys.exit(f"{method}: {said}")
    return parse(answer[5:])


def shim_of(container):
    """The program that the container's process has for a parent."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with open(f"/proc/{pid}/cgroup") as cgroup, open(f"/proc/{pid}/stat") as stat:
            if container in cgroup.read():
                parent = stat.read().rpartition(")")[2].split()[1]
                return os.path.basename(os.readlink(f"/proc/{parent}/exe"))


socket, handler, image, *command = sys.argv[1:]
HOST = 2  # the namespace of the machine
name = {1: "p", 2: "uid", 3: "default"}
sandbox = {1: name, 3: "/tmp", 8: {1: "/pods", 2: {1: {1: HOST}}}}
pod = call("RunPodSandbox", {1: sandbox, 2: handler})[1]
try:
    config = {1: {1: "c"}, 2: {1: image}, 3: ["sleep", "1000"], 11: "c.log", 15: {1: {4: 64 << 20}, 2: {3: {1: HOST, 2: 1}}}}
    container = call("CreateContainer", {1: pod, 2: config, 3: sandbox})[1]
    call("StartContainer", {1: container})
    shim = shim_of(container.decode())
    answer = call("ExecSync", {1: container, 2: command, 3: 30})
    print(answer.get(1, b"").decode().strip(), shim)
finally:
    call("StopPodSandbox", {1: pod})
    call("RemovePodSandbox", {1: pod})
