"""cri VERB ...: speaks to containerd's CRI as a kubelet does

  serve                      reads lines "METHOD JSON", calls each, prints "0 ANSWER" as JSON, or "1 WHY NOT"
  exec ID [-t] CMD...        runs CMD over a stream, with standard input, but not its end; exits as it does
  attach ID                  copies what a container says until it ends
  forward POD PORT           sends standard input to a port of a pod, prints what comes back
"""
import base64, json, os, select, socket, sys, threading, urllib.parse

sys.path.insert(0, "/usr/local/share/cri")
import api_pb2, api_pb2_grpc, grpc
from google.protobuf import json_format

channel = grpc.insecure_channel("unix:" + os.environ.get("CRI", "/run/containerd/containerd.sock"))
stubs = [api_pb2_grpc.RuntimeServiceStub(channel), api_pb2_grpc.ImageServiceStub(channel)]


def call(method, **fields):
    stub = next(s for s in stubs if hasattr(s, method))
    request = json_format.ParseDict(fields, getattr(api_pb2, method + "Request")())
    try:
        return getattr(stub, method)(request, timeout=120)
    except grpc.RpcError as e:
        sys.exit(f"{method}: {e.code().name}: {e.details()}")


class WebSocket:
    """The little of RFC 6455 that one client needs."""

    def __init__(self, url, protocol):
        at = urllib.parse.urlsplit(url)
        self.socket = socket.create_connection((at.hostname, at.port))
        self.lock = threading.Lock()
        path = at.path + (f"?{at.query}" if at.query else "")
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {at.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n".encode()
        )
        self.buffer, head = b"", b""
        while b"\r\n\r\n" not in head:
            data = self.socket.recv(4096)
            if not data:
                break
            head += data
        head, _, self.buffer = head.partition(b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n")[0]:
            sys.exit(f"{url}: {head.decode()} {self.buffer.decode()}")

    def send(self, data):
        mask = os.urandom(4)
        n = len(data)
        length = bytes([0x80 | n]) if n < 126 else bytes([0x80 | 126]) + n.to_bytes(2, "big")
        with self.lock:
            self.socket.sendall(b"\x82" + length + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))

    def exactly(self, n):
        while len(self.buffer) < n:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self.buffer += data
        out, self.buffer = self.buffer[:n], self.buffer[n:]
        return out

    def receive(self):
        """The next message; None at the end."""
        try:
            while True:
                first, n = self.exactly(2)
                if n == 126:
                    n = int.from_bytes(self.exactly(2), "big")
                elif n == 127:
                    n = int.from_bytes(self.exactly(8), "big")
                data = self.exactly(n)
                if first & 15 == 8:
                    return None
                if first & 15 in (1, 2):
                    return data
        except (EOFError, ConnectionResetError):
            return None


def pump(ws):
    """Standard input into channel 0 of the stream. This version of the protocol knows no end of it."""
    while data := os.read(0, 16384):
        ws.send(b"\0" + data)


def streams(url):
    """stdin, stdout, stderr and the status are channels 0 to 3. Returns the exit code."""
    ws = WebSocket(url, "v4.channel.k8s.io")
    threading.Thread(target=pump, args=(ws,), daemon=True).start()
    code = 0
    while (message := ws.receive()) is not None:
        number, data = message[:1], message[1:]
        if number in (b"\1", b"\2"):
            os.write(number[0], data)
        elif number == b"\3":
            status = json.loads(data)
            if status.get("status") != "Success":
                causes = status.get("details", {}).get("causes", [])
                codes = [int(c["message"]) for c in causes if c.get("reason") == "ExitCode"]
                if not codes:
                    sys.exit(f"stream: {status.get('message')}")
                code = codes[0]
    return code


def forward(url, port):
    """Channel 0 is data, 1 an error; each begins with the port."""
    ws = WebSocket(f"{url}?port={port}", "v4.channel.k8s.io")
    seen = set()
    threading.Thread(target=pump, args=(ws,), daemon=True).start()
    while (message := ws.receive()) is not None:
        number, data = message[0], message[1:]
        if number not in seen:
            seen.add(number)
            data = data[2:]
        if data and number == 1:
            sys.exit(data.decode())
        os.write(1, data)


def main(verb, *words):
    if verb == "serve":
        for line in sys.stdin:
            method, fields = line.split(" ", 1)
            try:
                answer = call(method, **json.loads(fields))
                print(0, json_format.MessageToJson(answer, preserving_proto_field_name=True, indent=None), flush=True)
            except SystemExit as e:
                print(1, str(e).replace("\n", " "), flush=True)
    elif verb == "exec":
        tty = words[1] == "-t"
        command = list(words[2:] if tty else words[1:])
        return streams(call("Exec", container_id=words[0], cmd=command, stdin=True, stdout=True, stderr=not tty, tty=tty).url)
    elif verb == "attach":
        return streams(call("Attach", container_id=words[0], stdin=True, stdout=True, stderr=True).url)
    elif verb == "forward":
        forward(call("PortForward", pod_sandbox_id=words[0], port=[int(words[1])]).url, int(words[1]))
    else:
        sys.exit(__doc__)


os._exit(main(*sys.argv[1:]) or 0)
