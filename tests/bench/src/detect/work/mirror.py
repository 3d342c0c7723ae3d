# A registry of npm's with forty packages that are made as they are asked for, each of which wants the next. It prints its port and serves
# on the loopback until it is ended.
import base64
import hashlib
import http.server
import io
import json
import tarfile

COUNT = 40


def tarball(number):
    name = "pack-%d" % number
    after = "pack-%d" % (number + 1)
    package = {"name": name, "version": "1.0.0", "main": "index.js", "bin": {name: "cli.js"}}
    code = "module.exports = () => 1"
    if number + 1 < COUNT:
        package["dependencies"] = {after: "^1.0.0"}
        code += ' + require("%s")()' % after
    files = {"package.json": json.dumps(package), "index.js": code + "\n", "cli.js": '#!/usr/bin/env node\nconsole.log("I am %s")\n' % name}
    files |= {"lib/%d.js" % part: "module.exports = %d\n" % part for part in range(20)}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for path, text in files.items():
            entry = tarfile.TarInfo("package/" + path)
            entry.size, entry.mode = len(text), 0o755
            tar.addfile(entry, io.BytesIO(text.encode()))
    return package, out.getvalue()


PACKAGES = {package["name"]: (package, data) for package, data in map(tarball, range(COUNT))}


class Registry(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        name = self.path.strip("/").split("/")[0]
        if name not in PACKAGES:
            return self.answer(404, "application/json", b"{}")
        package, data = PACKAGES[name]
        if self.path.endswith(".tgz"):
            return self.answer(200, "application/octet-stream", data)
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
        where = "http://%s/%s/-/%s-1.0.0.tgz" % (self.headers["Host"], name, name)
        dist = {"tarball": where, "integrity": integrity, "shasum": hashlib.sha1(data).hexdigest()}
        document = {"name": name, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": package | {"dist": dist}}}
        self.answer(200, "application/json", json.dumps(document).encode())

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
print(server.server_port, flush=True)
server.serve_forever()
