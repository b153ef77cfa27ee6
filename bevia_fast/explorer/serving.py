"""A page served to the browsers of this machine, for a page that is too large for a file."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from ..errors import UserError

HOST = "127.0.0.1"  # nobody else can reach it


class Server:
    """Serves one page at `address`, at a port that is free. Raises UserError if the system refuses."""

    def __init__(self, html: str) -> None:
        try:
            self._server = ThreadingHTTPServer((HOST, 0), _handler(html.encode()))
        except OSError as error:
            raise UserError(f"Cannot serve the page on {HOST}: {error.strerror or error}.") from None
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.address = f"http://{HOST}:{self.port}/"

    def run(self) -> None:
        """Answer requests until `stop`, or until an exception such as KeyboardInterrupt."""
        self._server.serve_forever()

    def stop(self) -> None:
        """End `run`, from another thread."""
        self._server.shutdown()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.server_close()


def _handler(page: bytes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, *, body: bool) -> None:
            # A page of another site could reach this port under a name of its own (DNS rebinding), so the name counts.
            host = self.headers.get("Host", "").rpartition(":")[0]
            if host not in (HOST, "localhost"):
                self.send_error(403)
                return
            if self.path.partition("?")[0] != "/":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(page)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if body:
                self.wfile.write(page)

        def log_message(self, format: str, *arguments: object) -> None:
            """Print nothing."""

    return Handler
