"""An API server that answers as files say: ANSWERS/METHOD_path/with/its/slashes has a status and a body; a status of 0 is a body
without an end. What it was asked is a line of JSON each in ANSWERS/asked. Arguments: ANSWERS, a certificate with its key."""

import http.server
import json
import os
import ssl
import sys

answers = sys.argv[1]


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = {"method": self.command, "path": self.path, "body": json.loads(body or "null")}
        for header in ("Authorization", "Content-Type"):
            asked[header] = self.headers.get(header)
        with open(answers + "/asked", "a") as file:
            file.write(json.dumps(asked) + "\n")
        try:
            with open(f"{answers}/{self.command}{self.path}") as file:
                status, body = int(file.readline()), file.read().encode()
        except FileNotFoundError:
            status, body = 404, b'{"message": "there is no such thing"}'
        self.send_response(status or 200)
        if status:
            self.send_header("Content-Length", len(body))
        self.end_headers()
        self.wfile.write(body)
        while not status:
            self.wfile.write(b" " * 65536)

    do_GET = do_POST = do_PATCH = answer

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 6443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
os.close(os.open(answers + "/ready", os.O_CREAT))
server.serve_forever()
