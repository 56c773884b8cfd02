"""The verb that opens a page on this computer to play with runs: app."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

from potstill import progress
from potstill.api.app.training import Training
from potstill.api.results import Result
from potstill.api.verb import one_process, verb
from potstill.errors import UserError

HOST = "127.0.0.1"
LAST_PORT = 65535


@verb
@one_process
def app(run: str | Path | None = None, *, port: int = 7860, browser: bool = False) -> Result:
    """Open a page on this computer to classify images, distil and browse runs; it ends with Ctrl-C (docs/app.md).

    Args:
        run: the run folder that Play begins with (default: the newest in runs/).
        port: of 127.0.0.1; nothing is reachable from other computers.
        browser: open the page in the default browser.

    Raises `UserError` without Gradio, if the port is in use, or if there is no such run.
    """
    with Server(run, port=port, browser=browser) as server:
        progress.note(f"Open {server.url} in a browser. Ctrl-C ends the app.")
        try:
            while True:
                time.sleep(1)
        except KeyboardInterrupt:
            return Result({"url": server.url})


class Server:
    """The app while it runs; a block.

    url: the address. training: what it trains. chosen: the folder of the run that was given.
    """

    def __init__(self, run: str | Path | None, *, port: int, browser: bool = False) -> None:
        chosen = None if run is None else Path(run).resolve()
        if chosen is not None and not (chosen / "student.onnx").is_file():
            raise UserError(
                f"{run} holds no student.onnx, so it is no finished run of distill. Type: potstill app, and train one "
                "under Distil, or give the folder of a run."
            )
        self.url = f"http://{HOST}:{port}"
        self._port, self._browser, self.chosen = port, browser, chosen
        self._runs = chosen.parent if chosen else Path("runs").resolve()
        self._page = _gradio_page()
        _check_free(port)
        self.training = Training(self._runs)

    def __enter__(self) -> Server:
        self._blocks = self._page.build(self._runs, self.training, self.chosen)
        served, _, _ = self._blocks.launch(
            server_name=HOST, server_port=self._port, share=False, inbrowser=self._browser, prevent_thread_lock=True,
            quiet=True, footer_links=[], ssr_mode=False, theme=self._page.theme(), css=self._page.CSS, pwa=False,
        )  # fmt: skip
        _serve_reports(served, self._runs)
        return self

    def __exit__(self, *_: object) -> None:
        self._blocks.close(verbose=False)
        self.training.close()


def _gradio_page() -> Any:
    """Return the module of the page; raise `UserError` without Gradio."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        from potstill.api.app import page
    except ImportError as error:
        raise UserError(
            f"The app needs Gradio, which cannot be imported ({error}). Type: pip install 'potstill[app]'"
        ) from None
    return page


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise UserError(
                f"Port {port} of this computer is in use, perhaps by another app. Choose another one: --port "
                f"{port + 1 if port < LAST_PORT else port - 1}"
            ) from None


def _serve_reports(served: Any, runs: Path) -> None:
    """Add the addresses /reports/NAME, which return the report of a run in the folder, and nothing else."""
    from fastapi.responses import HTMLResponse, PlainTextResponse  # pyright: ignore[reportMissingImports]
    from fastapi.routing import APIRoute  # pyright: ignore[reportMissingImports]

    def report(name: str) -> Any:
        file = runs / name / "report.html"
        if file.parent.parent != runs or name in ("", ".", "..") or not file.is_file():
            return PlainTextResponse("There is no such report.", 404)
        return HTMLResponse(file.read_text(encoding="utf-8"))

    served.router.routes.insert(0, APIRoute("/reports/{name}", report, methods=["GET"]))
