"""shim.py VERB BOX SHIM [RUNTIME]: speaks to a shim as containerd does, without one, over containers whose root is the directory BOX

  methods      calls each method of the task service and prints what is answered, and last the events; RUNTIME: the runtime's binary
  created      deletes a container that was created and never started
  waits        has several clients wait for one end
  streams      has nobody read a container's output, or a reader leave early and another one come; and loggers, one of a terminal
  leaks N      makes, starts, executes in, ends and deletes N containers of a pod, with fifos, terminals and loggers, and compares what the shim holds
               before and after
  edges        what goes wrong: calls that cross each other, hooks and loggers that hang, a shim that is short of descriptors or killed
  memory PODS  prints KiB of RAM for 1, 10 … pods of one container each, and for each further container of a pod
  light PODS   the same, and fails if a shim is more than 3 MB, or a further container more than 1.2 MB

Environment: SHIM_OLD=1 speaks as containerd before 2.3.
"""
import atexit, json, os, resource, select, shutil, socket, struct, subprocess, sys, tempfile, threading, time


def varint(n):
    out = b""
    n &= (1 << 64) - 1
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def message(fields):
    """{number: int, text, bytes, a message's fields, or a list of them}; what is empty is left out, as in proto3."""
    out = b""
    pairs = ((n, v) for n, of_n in fields.items() for v in (of_n if isinstance(of_n, list) else [of_n]))
    for number, value in pairs:
        if isinstance(value, dict):
            value = message(value)
        if isinstance(value, str):
            value = value.encode()
        if isinstance(value, bytes):
            out += varint(number << 3 | 2) + varint(len(value)) + value if value else b""
        elif value:
            out += varint(number << 3) + varint(value)
    return out


def parse(data):
    """The last value of each field, by its number."""
    fields, at = {}, 0

    def number():
        nonlocal at
        n = shift = 0
        while True:
            n |= (data[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 128:
                return n

    while at < len(data):
        tag = number()
        if tag & 7 == 0:
            fields[tag >> 3] = number()
        elif tag & 7 == 2:
            n = number()
            fields[tag >> 3] = data[at : at + n]
            at += n
        else:
            at += {1: 8, 5: 4}[tag & 7]
    return fields


def exactly(connection, n):
    out = b""
    while len(out) < n:
        got = connection.recv(n - len(out))
        if not got:
            raise EOFError
        out += got
    return out


def receive(connection):
    length, stream, _, _ = struct.unpack(">IIBB", exactly(connection, 10))
    return stream, exactly(connection, length)


def send(connection, stream, kind, payload):
    connection.sendall(struct.pack(">IIBB", len(payload), stream, kind, 0) + payload)


class Events:
    """containerd's end of what it is told unasked."""

    def __init__(self, path):
        self.topics = []
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        threading.Thread(target=self.accept, args=(listener,), daemon=True).start()

    def accept(self, listener):
        while True:
            threading.Thread(target=self.serve, args=(listener.accept()[0],), daemon=True).start()

    def serve(self, connection):
        try:
            while True:
                stream, request = receive(connection)
                envelope = parse(parse(parse(request)[3])[1])
                self.topics.append(envelope[3].decode().removeprefix("/tasks/"))
                send(connection, stream, 2, b"")
        except (EOFError, ConnectionError):
            pass

    def until(self, topic):
        """All of them, the last of which is to be this one: it may come after the answer."""
        until(30, lambda: self.topics and self.topics[-1] == topic, f"the last event is {topic}")
        return self.topics


class Failure(Exception):
    pass


class Client:
    """One call at a time."""

    def __init__(self, path, version):
        self.service = f"containerd.task.v{version}.Task"
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self.stream = -1

    def call(self, method, fields, service=None, timeout=0):
        self.begin(method, fields, service, timeout)
        return self.end()

    def begin(self, method, fields, service=None, timeout=0):
        self.stream += 2
        request = {1: service or self.service, 2: method, 3: message(fields), 4: int(timeout * 1e9)}
        send(self.socket, self.stream, 1, message(request))

    def end(self):
        _, answer = receive(self.socket)
        answer = parse(answer)
        status = parse(answer.get(1, b""))
        if status.get(1):
            raise Failure(f"{status[1]} {status.get(2, b'').decode()}")
        return parse(answer.get(2, b""))


def process_of(*arguments):
    return json.dumps({"args": arguments, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}})


class World:
    def __init__(self, box, shim, runtime=""):
        self.box, self.shim, self.runtime = box, shim, runtime
        self.dir = tempfile.mkdtemp(prefix="shim", dir="/run")
        self.name = f"husk-{os.path.basename(self.dir)}"
        self.events = Events(f"{self.dir}/events")
        self.clients, self.logs = {}, {}
        self.options = {1: "containerd.runc.v1.Options", 2: message({6: runtime})} if runtime else {}

        atexit.register(self.abandon)

    def abandon(self):
        """What a test that failed has left: nothing otherwise."""
        for client in self.clients.values():
            for id in list(self.logs):
                try:
                    self.end(client, id)
                except Exception:
                    pass
            client.call("Shutdown", {2: 1})

    def bundle(self, id, pod, resources={}, arguments=("sleep", "1000"), terminal=False):
        bundle = f"{self.dir}/{id}"
        os.mkdir(bundle)
        os.mkfifo(f"{bundle}/log")
        namespaces = [{"type": t} for t in ("pid", "mount", "ipc", "uts")]
        config = {
            "ociVersion": "1.0.2",
            "process": {"args": arguments, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}, "terminal": terminal},
            "root": {"path": self.box},
            "mounts": [{"destination": to, "type": type, "source": type} for to, type in (("/proc", "proc"), ("/dev", "tmpfs"), ("/dev/pts", "devpts"))],
            "linux": {"cgroupsPath": f"/{self.name}/{id}", "namespaces": namespaces, "resources": resources},
            "annotations": {"io.kubernetes.cri.sandbox-id": pod},
        }
        with open(f"{bundle}/config.json", "w") as f:
            json.dump(config, f)
        return bundle

    def start(self, id, bundle):
        """Has the shim of its pod say where it listens, and for which version of the task service."""
        command = [self.shim, "-namespace", self.name, "-address", f"{self.dir}/containerd", "-publish-binary", "/bin/true", "-id", id, "start"]
        if os.environ.get("SHIM_OLD"):
            said = message(self.options)
        else:
            said = {1: id, 2: self.name, 4: "2.3.4", 5: f"{self.dir}/events", 6: f"{self.dir}/containerd", 7: "/bin/true"}
            said = message(said | ({8: {1: self.options}} if self.options else {}))
        environment = os.environ | {"TTRPC_ADDRESS": f"{self.dir}/events", "GRPC_ADDRESS": f"{self.dir}/containerd", "NAMESPACE": self.name, "GOMAXPROCS": "2"}
        self.logs[id] = os.open(f"{bundle}/log", os.O_RDWR)  # as containerd, which reads it
        done = subprocess.run(command, input=said, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=bundle, env=environment)
        if done.returncode:
            sys.exit(f"start: {done.stdout.decode()} {done.stderr.decode()}")
        if done.stdout.startswith(b"{"):
            answer = json.loads(done.stdout)
            return answer["address"], answer["version"]
        if done.stdout.startswith(b"unix:"):
            return done.stdout.decode(), 2
        answer = parse(done.stdout)
        assert answer[3] == b"ttrpc", answer
        return answer[2].decode(), answer[1]

    def create(self, id, pod, resources={}, streams=None, **process):
        bundle = self.bundle(id, pod, resources, terminal=bool(streams and streams.terminal), **process)
        address, version = self.start(id, bundle)
        path = address.removeprefix("unix://")
        if path not in self.clients:
            self.clients[path] = Client(path, version)
        client = self.clients[path]
        client.call("Create", {1: id, 2: bundle, 10: self.options} | (streams.fields(4) if streams else {}))
        return client

    def begin(self, id, pod, *rest, **more):
        client = self.create(id, pod, *rest, **more)
        client.call("Start", {1: id})
        return client

    def end(self, client, id):
        client.call("Kill", {1: id, 3: 9})
        client.call("Wait", {1: id})
        self.delete(client, id)

    def delete(self, client, id):
        client.call("Delete", {1: id})
        os.close(self.logs.pop(id))
        shutil.rmtree(f"{self.dir}/{id}")

    def execute(self, client, id, exec, *arguments, streams=None):
        fields = {1: id, 2: exec, 7: {1: "types.containerd.io/opencontainers/runtime-spec/1/Process", 2: process_of(*arguments)}}
        client.call("Exec", fields | (streams.fields(3) if streams else {}))
        client.call("Start", {1: id, 2: exec})

    def leave(self):
        """Ends the shims. False: one could still be found when it had answered, and be taken for the next one of its container."""
        hidden = True
        for path, client in self.clients.items():
            try:
                client.call("Shutdown", {})
                hidden = hidden and not os.path.exists(path)
            except (EOFError, ConnectionError):
                pass  # containerd's own may be gone before it has answered
            end = time.time() + 10
            while os.path.exists(path) and time.time() < end:
                time.sleep(0.05)
        self.clients = {}
        shutil.rmtree(self.dir)
        try:
            os.rmdir(f"/sys/fs/cgroup/{self.name}")  # its containers' are gone
        except FileNotFoundError:
            pass
        return hidden


class Streams:
    """Fifos as containerd makes them, which this end reads and writes; or, with the path of a program, that for the output."""

    def __init__(self, world, terminal=False, logger="", read=True):
        self.terminal, self.logger, self.dir = terminal, logger, tempfile.mkdtemp(prefix="fifos", dir=world.dir)
        self.ends = {}
        for name in ["in"] if logger else ["in", "out"] if terminal else ["in", "out", "err"]:
            os.mkfifo(f"{self.dir}/{name}")
            if read and name != "in":  # what a fifo holds goes with the last end of it
                self.end(name, os.O_RDONLY)

    def fields(self, first):
        """Of a request: terminal, stdin, stdout, stderr."""
        path = lambda name: f"{self.dir}/{name}" if os.path.exists(f"{self.dir}/{name}") else ""
        output = f"binary://{self.logger}" if self.logger else path("out")
        return {first: int(self.terminal), first + 1: path("in"), first + 2: output, first + 3: path("err")}

    def end(self, name, flags):
        if name not in self.ends:
            self.ends[name] = os.open(f"{self.dir}/{name}", flags | os.O_NONBLOCK)
        return self.ends[name]

    def write(self, text):
        os.write(self.end("in", os.O_WRONLY), text)

    def read(self, until, name="out"):
        """What is said, up to the words `until`."""
        said, end, late = b"", self.end(name, os.O_RDONLY), time.time() + 30
        while until not in said:
            if time.time() > late:
                sys.exit(f"after 30 s there is only {said[:1000]}, not {until}")
            select.select([end], [], [], 1)
            try:
                data = os.read(end, 65536)
            except BlockingIOError:
                continue
            said += data
            if not data:
                time.sleep(0.01)  # nobody has it open for writing
        return said

    def leave(self, *names):
        for name in names or list(self.ends):
            os.close(self.ends.pop(name))

    def remove(self):
        self.leave()
        shutil.rmtree(self.dir)


def pid_of(client, id):
    return client.call("Connect", {1: id})[1]


def held(pid):
    """KiB resident, of which anonymous, and in proportion; open descriptors."""
    with open(f"/proc/{pid}/smaps_rollup") as f:
        sizes = {line.split()[0]: int(line.split()[1]) for line in list(f)[1:]}
    return sizes["Rss:"], sizes["Anonymous:"], sizes["Pss:"], len(os.listdir(f"/proc/{pid}/fd"))


def until(seconds, condition, what):
    end = time.time() + seconds
    while not condition():
        if time.time() > end:
            sys.exit(f"not so after {seconds} s: {what}")
        time.sleep(0.05)


def text(path):
    try:
        with open(path) as f:
            return f.read()
    except OSError:
        return ""


def children(pid):
    return set(text(f"/proc/{pid}/task/{pid}/children").split())


def methods(world):
    client = world.begin("a", "a", {"memory": {"limit": 32 << 20, "swap": 32 << 20}})

    def say(name, *fields):
        try:
            client.call(name, *fields)
            print(name, "ok")
        except Failure as e:
            print(name, e)

    say("State", {1: "a"})
    say("Pids", {1: "a"})
    say("Stats", {1: "a"})
    say("Connect", {1: "a"})
    say("Update", {1: "a", 2: {1: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources", 2: json.dumps({"memory": {"limit": 48 << 20, "swap": 48 << 20}})}})
    say("Pause", {1: "a"})
    say("Resume", {1: "a"})
    say("Checkpoint", {1: "a", 2: "/tmp/x"})
    world.execute(client, "a", "e", "sleep", "1000")
    say("ResizePty", {1: "a", 2: "e", 3: 80, 4: 24})
    say("CloseIO", {1: "a", 2: "e", 3: 1})
    say("Create", {1: "a", 2: "/nonesuch"})
    say("Start", {1: "a"})
    say("Delete", {1: "a"})
    say("Kill", {1: "a", 2: "e", 3: 9})
    say("Wait", {1: "a", 2: "e"})
    say("Delete", {1: "a", 2: "e"})
    # more than its limit
    world.execute(client, "a", "eat", "sh", "-c", "x=$(dd if=/dev/zero bs=1M count=100 2>/dev/null | tr '\\0' x)")
    client.call("Wait", {1: "a", 2: "eat"})
    say("Kill", {1: "a", 3: 9})
    say("Wait", {1: "a"})
    say("Exec", {1: "a", 2: "late"})
    say("Delete", {1: "a"})
    say("State", {1: "a"})
    say("Nonesuch", {})
    say("Create", {}, "containerd.runtime.sandbox.v1.Sandbox")
    print("Shutdown", "ok" if world.leave() else "with its socket left")
    print("events", *world.events.until("delete"))


def created(world):
    client = world.begin("pod", "pod")
    before = children(pid_of(client, "pod"))
    streams = Streams(world)
    client = world.create("a", "pod", streams=streams)
    print("State", parse_state(client, "a"))
    pid = client.call("State", {1: "a"})[3]
    try:
        client.call("Exec", {1: "a", 2: "e"})
    except Failure as e:
        print("Exec", e)
    world.delete(client, "a")
    print("Delete ok")
    until(30, lambda: not os.path.exists(f"/proc/{pid}"), f"process {pid} is gone")
    until(30, lambda: children(pid_of(client, "pod")) == before, "no child is left")
    try:
        client.call("State", {1: "a"})
    except Failure as e:
        print("State", e)
    # and its name is free
    world.begin("a", "pod", streams=streams)
    print("State", parse_state(client, "a"))
    world.end(client, "a")
    world.end(client, "pod")
    world.leave()
    print("events", *world.events.until("delete"))


def parse_state(client, id):
    return {1: "CREATED", 2: "RUNNING", 3: "STOPPED", 4: "PAUSED"}[client.call("State", {1: id})[4]]


def waits(world):
    client = world.begin("a", "a")
    world.execute(client, "a", "e", "sleep", "1000")
    path, version = next(iter(world.clients)), int(client.service.split(".v")[1][0])
    others = [Client(path, version) for _ in range(4)]
    for exec in "", "e":
        for other in others[:3]:
            other.begin("Wait", {1: "a", 2: exec})
    # one goes away while it waits, and one asks on when it is over
    others[2].socket.close()
    client.call("Kill", {1: "a", 2: "e", 3: 15})
    print("of exec", *(other.end()[1] for other in others[:2]))
    print("late", others[3].call("Wait", {1: "a", 2: "e"})[1])
    client.call("Kill", {1: "a", 3: 9})
    answers = [other.end() for other in others[:2]]
    print("of the container", *(a[1] for a in answers))
    print("at the same time" if answers[0][2] == answers[1][2] else answers)
    print("late", others[3].call("Wait", {1: "a"})[1])
    print("State", parse_state(client, "a"))
    world.delete(client, "a")
    world.leave()


def streams(world):
    client = world.begin("pod", "pod")
    shim = pid_of(client, "pod")
    before = held(shim)[3]

    # nobody ever reads: the process waits, nobody else does
    unread = Streams(world, read=False)
    world.begin("unread", "pod", streams=unread, arguments=("sh", "-c", "dd if=/dev/zero bs=64k count=64; sleep 1000"))
    other = Streams(world)
    world.begin("other", "pod", streams=other, arguments=("cat",))
    other.write(b"word\n")
    print("beside it", other.read(b"\n"))
    # one that reads the first line alone; what it leaves is another's
    other.leave("out")
    other.write(b"another\n")
    print("to the next reader", other.read(b"\n"))
    other.leave("in")
    client.call("CloseIO", {1: "other", 3: 1})
    print("cat ends with", client.call("Wait", {1: "other"}).get(1, 0))
    world.delete(client, "other")
    start = time.time()
    world.end(client, "unread")
    print("unread is deleted" if time.time() - start < 20 else f"Delete took {time.time() - start:.0f} s")
    for each in unread, other:
        each.remove()

    # a reader that leaves in the middle of much, and comes again
    much = Streams(world)
    world.begin("much", "pod", streams=much, arguments=("sh", "-c", "dd if=/dev/zero bs=64k count=16 2>/dev/null | tr '\\0' x; echo .end"))
    got = len(much.read(b"x" * 1000))
    much.leave("out")
    time.sleep(0.2)
    got += len(much.read(b".end\n"))
    print("of much", got - 5)
    client.call("Wait", {1: "much"})
    world.delete(client, "much")
    much.remove()

    # a program takes the output, of a terminal too
    log = f"{world.dir}/said"
    for terminal in False, True:
        logged = Streams(world, terminal=terminal, logger=logger(world, log))
        world.begin("logged", "pod", streams=logged, arguments=("sh", "-c", "read x; test -t 1 && echo terminal && stty size || echo pipe; echo got $x"))
        if terminal:
            client.call("ResizePty", {1: "logged", 3: 80, 4: 24})
        logged.write(b"word\n")
        client.call("Wait", {1: "logged"})
        world.delete(client, "logged")
        until(30, lambda: len(children(shim)) == 1, "no child but the container is left")
        with open(log, "rb") as f:
            print("logged", f.read())
        logged.remove()
    until(30, lambda: held(shim)[3] == before, "no descriptor is left")
    world.end(client, "pod")
    world.leave()


def logger(world, log):
    path = f"{world.dir}/logger"
    with open(path, "w") as f:
        f.write(f"#!/bin/sh\nexec 5>&-\nexec >{log}\ncat <&3\ncat <&4\n")
    os.chmod(path, 0o755)
    return path


def leaks(world, count):
    client = world.begin("pod", "pod")
    pid = pid_of(client, "pod")
    kinds = [dict(), dict(terminal=True), dict(logger=logger(world, "/dev/null")), dict(terminal=True, logger=logger(world, "/dev/null"))]

    def rounds(n):
        for i in range(n):
            own, of_exec = (Streams(world, **kinds[(i // m) % 4]) for m in (1, 4))
            world.begin("a", "pod", streams=own, arguments=("sh", "-c", "echo hello; exec sleep 1000"))
            world.execute(client, "a", "e", "sh", "-c", "read x; echo got $x", streams=of_exec)
            of_exec.write(b"word\n")
            if not own.logger:
                own.read(b"hello")
            if not of_exec.logger:
                of_exec.read(b"got word")
            client.call("Wait", {1: "a", 2: "e"})
            client.call("Delete", {1: "a", 2: "e"})
            world.end(client, "a")
            own.remove()
            of_exec.remove()
        until(30, lambda: len(children(pid)) == 1, "no child but the pod is left")
        time.sleep(0.5)  # for the last events

    rounds(32)
    before = held(pid)
    start = time.time()
    rounds(count)
    after = held(pid)
    print(f"{count} tasks and as many of exec in {time.time() - start:.0f} s")
    for when, (rss, anonymous, _, descriptors) in ("before", before), ("after", after):
        print(f"{when}: {rss} KiB resident, {anonymous} anonymous, {descriptors} descriptors")
    world.end(client, "pod")
    if not world.leave():
        sys.exit("its socket is left")
    # some room for what looks after a logger: it goes 10 s later
    if after[3] != before[3] or after[1] > before[1] + 128:
        sys.exit("it leaks")


def memory(make, counts):
    most = 0
    for n in counts:
        world = make()
        shims = [pid_of(world.begin(f"p{i}", f"p{i}"), f"p{i}") for i in range(n)]
        time.sleep(1)
        all = [held(pid) for pid in shims]
        most = max(most, *(h[0] for h in all))
        print(f"{n} pods: {sum(h[0] for h in all) // n} KiB resident of each shim, {sum(h[2] for h in all) // n} in proportion", flush=True)
        for i, client in enumerate(world.clients.values()):
            world.end(client, f"p{i}")
        world.leave()
    world = make()
    client = world.begin("p", "p")
    pid = pid_of(client, "p")
    time.sleep(1)
    before = held(pid)
    for i in range(20):
        world.begin(f"c{i}", "p")
    time.sleep(1)
    after = held(pid)
    further = (after[0] - before[0]) / 20
    print(f"each further container of a pod: {further:.0f} KiB resident, {(after[2] - before[2]) / 20:.0f} in proportion")
    for i in range(20):
        world.end(client, f"c{i}")
    world.end(client, "p")
    world.leave()
    return most, further


def is_there(pid):
    return text(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1] not in ([], ["Z"])


class Edges(World):
    """With a runtime that can be slow, hooks and loggers."""

    def __init__(self, box, shim, runtime):
        super().__init__(box, shim, runtime)
        # where there is a file `slow` it takes a second more to make a process
        slow = f'[ ! -e {self.dir}/slow ] || case " $* " in *" create "* | *" exec "*) sleep 1 ;; esac'
        wrapper = self.script("runtime", f'readlink /proc/$$/fd/0 >>{self.dir}/stdin\n{slow}\nexec {runtime} "$@"')
        self.options[2] = message({6: wrapper})

    def script(self, name, commands):
        path = f"{self.dir}/{name}"
        with open(path, "w") as f:
            f.write(f"#!/bin/bash\n{commands}\n")
        os.chmod(path, 0o755)
        return path

    def write(self, name, text=""):
        with open(f"{self.dir}/{name}", "w") as f:
            f.write(text)

    def read(self, name):
        return text(f"{self.dir}/{name}")

    def hooked(self, id, pod, code):
        """A bundle with Python as its hook."""
        bundle = self.bundle(id, pod, {})
        with open(f"{bundle}/config.json") as f:
            config = json.load(f)
        config["hooks"] = {"createRuntime": [{"path": sys.executable, "args": ["python3", "-c", code]}]}
        with open(f"{bundle}/config.json", "w") as f:
            json.dump(config, f)
        return bundle

    def client(self, id, bundle):
        address, version = self.start(id, bundle)
        path = address.removeprefix("unix://")
        client = Client(path, version)
        self.clients.setdefault(path, client)
        return client

    def hang(self, id, pod, timeout=0):
        """Two connections, by the first of which a container is being made whose hook does not come to an end."""
        code = f"import os, time; open('{self.dir}/hook', 'w').write(str(os.getpid())); time.sleep(60)"
        bundle = self.hooked(id, pod, code)
        maker, other = self.client(id, bundle), self.client(id, bundle)
        maker.begin("Create", {1: id, 2: bundle, 10: self.options}, timeout=timeout)
        until(10, lambda: self.read("hook"), "the hook runs")
        return maker, other

    def unhang(self, id):
        os.kill(int(self.read("hook")), 9)
        os.remove(f"{self.dir}/hook")
        os.close(self.logs.pop(id))
        shutil.rmtree(f"{self.dir}/{id}")

    def is_gone(self, id):
        state = f"/run/containerd/husk/{self.name}/{id}"
        return not os.path.exists(state) and not os.path.exists(f"/sys/fs/cgroup/{self.name}/{id}")


def refused(code, call, *arguments):
    try:
        call(*arguments)
    except Failure as e:
        if str(e).startswith(f"{code} "):
            return
        sys.exit(f"{arguments}: {e}, not {code}")
    sys.exit(f"{arguments}: done, not {code}")


def pod(world):
    """A container and two connections to its shim."""
    client = world.begin("p", "p")
    return client, world.client("p", f"{world.dir}/p"), pid_of(client, "p")


def what_is_inherited(world):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    few = hard // 2
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    files = lambda pid: int(text(f"/proc/{pid}/limits").partition("open files")[2].split()[0])
    code = f"import resource; open('{world.dir}/seen', 'w').write(open('/proc/self/status').read() + str(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))"
    bundle = world.hooked("p", "p", code)
    client = world.client("p", bundle)
    client.call("Create", {1: "p", 2: bundle, 10: world.options})
    client.call("Start", {1: "p"})
    seen = world.read("seen")
    assert "SigBlk:\t0000000000000000" in seen and seen.endswith(f"\n{few}"), seen
    answer = client.call("Connect", {1: "p"})
    assert files(answer[1]) == hard and files(answer[2]) == few
    assert set(world.read("stdin").split()) == {"/dev/null"}, world.read("stdin")
    world.end(client, "p")


def loggers(world):
    """One that does not end by itself, and one that does at once."""
    client, _, _ = pod(world)
    stays = world.script("stays", f"echo $$ >{world.dir}/logger\nexec 5>&-\nexec sleep 100")
    world.write("slow")
    for id, program in ("l", stays), ("m", "/bin/true"):
        bundle = world.bundle(id, "p", {})
        world.start(id, bundle)
        client.call("Create", {1: id, 2: bundle, 6: f"binary://{program}", 10: world.options})
        client.call("Start", {1: id})
        world.end(client, id)
    logger = world.read("logger").strip()
    assert is_there(logger)
    until(15, lambda: not is_there(logger), "the logger is gone")
    time.sleep(3)
    said = os.read(world.logs["p"], 1 << 16).decode()
    assert said.count("does not end with its input") == 1, said
    world.end(client, "p")


def calls_that_cross(world):
    client, other, _ = pod(world)
    process = process_of("sleep", "1000")
    client.call("Exec", {1: "p", 2: "e", 7: {1: "Process", 2: process}})
    refused(3, client.call, "Exec", {1: "p", 2: "odd", 7: {1: "Process", 2: "[]"}})
    world.write("slow")
    other.begin("Start", {1: "p", 2: "e"})
    time.sleep(0.3)
    refused(9, client.call, "Delete", {1: "p", 2: "e"})
    client.call("Kill", {1: "p", 2: "e", 3: 9})
    other.end()
    assert client.call("Wait", {1: "p", 2: "e"})[1] == 137
    client.call("Delete", {1: "p", 2: "e"})
    world.end(client, "p")


def logger_never_ready(world):
    """It is neither killed in vain nor waited for after the container's end."""
    client, other, _ = pod(world)
    stays = world.script("never", "exec sleep 100")
    process = process_of("sleep", "1000")
    for exec, end in ("e", lambda: client.call("Kill", {1: "p", 2: "e", 3: 9})), ("f", lambda: world.end(client, "p")):
        client.call("Exec", {1: "p", 2: exec, 5: f"binary-v2://{stays}", 7: {1: "Process", 2: process}})
        other.begin("Start", {1: "p", 2: exec})
        time.sleep(0.3)
        if exec == "e":
            refused(5, end)
        else:
            end()
        refused(2, other.end)


def nobody_waits_for_it(world):
    client, _, _ = pod(world)
    maker, _ = world.hang("a", "p")
    refused(5, client.call, "Delete", {1: "a"})
    refused(4, maker.end)
    assert world.is_gone("a")
    world.unhang("a")
    maker, _ = world.hang("a", "p", timeout=1)
    refused(4, maker.end)
    assert world.is_gone("a")
    world.unhang("a")
    client.call("State", {1: "p"})
    world.end(client, "p")


def short_of_descriptors(world):
    client, _, shim = pod(world)
    ticks = lambda: sum(int(n) for n in text(f"/proc/{shim}/stat").rpartition(")")[2].split()[11:13])
    limits = resource.prlimit(shim, resource.RLIMIT_NOFILE)
    resource.prlimit(shim, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{shim}/fd")), limits[1]))
    late = world.client("p", f"{world.dir}/p")
    before = ticks()
    time.sleep(1)
    assert ticks() - before < 20, "it spins"
    resource.prlimit(shim, resource.RLIMIT_NOFILE, limits)
    late.call("State", {1: "p"})
    world.end(client, "p")


def it_is_to_leave(world):
    """While it makes its only container."""
    maker, other = world.hang("b", "b")
    shim = pid_of(other, "b")
    refused(5, other.call, "Delete", {1: "b"})
    other.call("Shutdown", {1: "b"})
    until(5, lambda: not is_there(shim), "the shim leaves")
    assert world.is_gone("b")
    world.unhang("b")
    world.clients = {}


def it_is_killed(world):
    """While it makes a container, and has another."""
    client, _, shim = pod(world)
    world.execute(client, "p", "e", "sleep", "1000")
    stay = children(shim)
    world.hang("b", "p")
    command = children(shim) - stay
    os.kill(shim, 9)
    until(5, lambda: not any(map(is_there, command)), "the runtime's command is gone")
    assert len(stay) == 2 and all(map(is_there, stay))
    world.write("b/options.json", "{")
    for id in "b", "p":
        command = [world.shim, "-namespace", world.name, "-address", f"{world.dir}/containerd", "-id", id, "delete"]
        subprocess.run(command, cwd=f"{world.dir}/{id}", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20, check=True)
        assert world.is_gone(id)
    world.unhang("b")
    os.close(world.logs.pop("p"))
    world.clients = {}


EDGES = [what_is_inherited, loggers, logger_never_ready, calls_that_cross, nobody_waits_for_it, short_of_descriptors, it_is_to_leave, it_is_killed]


def edges(make):
    for edge in EDGES:
        world = make()
        edge(world)
        if not world.leave():
            sys.exit(f"{edge.__name__}: its socket is left")


def main(verb, *rest):
    if verb == "memory" or verb == "light":
        most, further = memory(lambda: World(*rest[1:]), [int(n) for n in rest[0].split()])
        if verb == "light" and (most > 3_000_000 / 1024 or further > 1_200_000 / 1024):
            sys.exit(f"{most} KiB for a shim, {further:.0f} KiB for a further container: more than 3 MB, or than 1.2 MB")
    elif verb == "edges":
        edges(lambda: Edges(*rest))
    elif verb == "leaks":
        leaks(World(*rest[1:]), int(rest[0]))
    else:
        {"methods": methods, "created": created, "waits": waits, "streams": streams}[verb](World(*rest))


if __name__ == "__main__":
    main(*sys.argv[1:])
