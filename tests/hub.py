"""A hub on this machine: the addresses of the real one that fetching asks for, answered from a folder."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """What the hub was asked.

    Attributes:
        address: Where it is, for HF_ENDPOINT.
        requests: Paths that were asked for.
        tokens: Values of the header that carries a token.
    """

    def __init__(self, address: str):
        self.address = address
        self.requests: list[str] = []
        self.tokens: list[str] = []


@contextmanager
def serving(folder: Path, gated: frozenset[str] = frozenset(), mood: str = "") -> Iterator[Hub]:
    """Serves the models `<folder>/<owner>/<name>/`, each with one revision `main`.

    Args:
        folder: The folder.
        gated: Ids of models whose files nobody may read.
        mood: `rejecting` every token, or `portal`, which answers everything with a page to sign in.
    """

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(self.path.partition("?")[0])
            hub.requests.append(path)
            hub.tokens.append(self.headers.get("Authorization", ""))
            parts = path.strip("/").split("/")
            if mood == "rejecting":
                self.refuse(401, "", "Invalid credentials in Authorization header")
            elif mood == "portal":
                self.answer("<html>Please sign in.</html>", "text/html")
            elif parts[:2] == ["api", "models"]:
                self.tell(parts[2] + "/" + parts[3], parts[4:])
            elif parts[0] == "api":
                self.refuse(404, "EntryNotFound")
            else:
                self.give(parts[0] + "/" + parts[1], parts[3], "/".join(parts[4:]))

        def tell(self, name: str, what: list[str]) -> None:
            files = [path for path in (folder / name).rglob("*") if path.is_file()]
            if not files:
                self.refuse(404, "RepoNotFound")
            elif what[1:2] not in ([], ["main"], [COMMIT]):
                self.refuse(404, "RevisionNotFound")
            elif what[:1] == ["tree"]:
                self.answer([self.entry(folder / name, path) for path in files])
            else:
                names = [{"rfilename": str(path.relative_to(folder / name))} for path in files]
                self.answer({"id": name, "sha": COMMIT, "siblings": names})

        def entry(self, root: Path, path: Path) -> dict[str, object]:
            return {
                "type": "file",
                "path": str(path.relative_to(root)),
                "size": path.stat().st_size,
                "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
            }

        def give(self, name: str, revision: str, file: str) -> None:
            if name in gated:
                self.refuse(403, "GatedRepo")
                return
            data = (folder / name / file).read_bytes()
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def answer(self, content: object, kind: str = "application/json") -> None:
            data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def refuse(self, status: int, code: str, message: str = "") -> None:
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            if message:
                self.send_header("X-Error-Message", message)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
