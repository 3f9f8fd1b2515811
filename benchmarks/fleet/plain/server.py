"""A minimal model server for comparison: ONNX Runtime behind Python's HTTP server."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnxruntime

current = Path(__file__).with_name("current").resolve()
(model,) = current.rglob("*.onnx")
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.respond({"version": current.name})

    def do_POST(self) -> None:
        inputs = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"]
        (outputs,) = session.run(None, {session.get_inputs()[0].name: np.array(inputs, np.float32)})
        self.respond({"outputs": outputs.tolist()})

    def respond(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


server = ThreadingHTTPServer(("0.0.0.0", 8700), Handler)  # noqa: S104 - only reachable in the device's network namespace
print("ready", flush=True)
server.serve_forever()
