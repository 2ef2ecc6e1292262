"""The routes of the page. Each one needs the token, which is the first part of its path."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.resources import files

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pdsynth import __version__
from pdsynth.imaging.nifti import NAMES
from pdsynth.report.rendering import fill
from pdsynth.serve import uploads
from pdsynth.serve.jobs import Job, Queue, State
from pdsynth.serve.work import STEPS
from pdsynth.types import InputError, Modality

GB = 10**9
STATIC = {  # by name: package and type
    "style.css": ("pdsynth.report", "text/css"),
    "viewer.css": ("pdsynth.report", "text/css"),
    "viewer.js": ("pdsynth.report", "text/javascript"),
    "serve.css": ("pdsynth.serve", "text/css"),
    "start.js": ("pdsynth.serve", "text/javascript"),
    "job.js": ("pdsynth.serve", "text/javascript"),
}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "X-Content-Type-Options": "nosniff",
}
NO_TOKEN = "Open the whole address that `pdsynth serve` printed: it ends with a token.\n"


class Guard:
    """Answers 403 to every request without the token, and adds the headers for security to every answer."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        given = scope["path"].split("/", 2)[1] if "/" in scope["path"] else ""
        known = secrets.compare_digest(given.encode(errors="replace"), self.token)  # in constant time
        app = self.app if known else PlainTextResponse(NO_TOKEN, 403)
        await app(scope, receive, guarded)


def application(queue: Queue, token: str, hosts: Sequence[str], most_bytes: int) -> Starlette:
    """The web application. All its paths begin with /token/; others, and foreign values of Host, are refused.

    queue: its jobs. hosts: the names and addresses of this server that a browser may use, against DNS rebinding.
    most_bytes: limit of all files that are kept at a time.
    """
    site = Site(queue, most_bytes)
    routes = [
        Route("/", site.start),
        Route("/static/{name}", site.static),
        Route("/jobs", site.add, methods=["POST"]),
        Route("/jobs/{number:int}", site.show),
        Route("/jobs/{number:int}", site.remove, methods=["DELETE"]),
        Route("/jobs/{number:int}/files", site.upload, methods=["PUT"]),
        Route("/jobs/{number:int}/scans", site.scans),
        Route("/jobs/{number:int}/synthesis", site.synthesise, methods=["POST"]),
        Route("/jobs/{number:int}/state", site.state),
        Route("/jobs/{number:int}/download", site.download),
    ]

    @asynccontextmanager
    async def work(app: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(queue.work())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    return Starlette(
        routes=[Mount(f"/{token}", routes=routes)],
        middleware=[
            Middleware(Guard, token=token),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
        ],
        exception_handlers={
            HTTPException: _problem,
            InputError: lambda request, error: _answer(400, uploads.problem_line(error)),
        },
        lifespan=work,
    )


class Site:
    """The pages and answers. An error is JSON with one entry, problem: one line with the remedy."""

    def __init__(self, queue: Queue, most_bytes: int) -> None:
        self.queue, self.most_bytes = queue, most_bytes

    def _job(self, request: Request) -> Job:
        job = self.queue.jobs.get(request.path_params["number"])
        if job is None:
            raise HTTPException(404, "This scan was removed, or pdsynth was started again. Drop the scan again.")
        return job

    def _new_job(self, request: Request) -> Job:
        job = self._job(request)
        if job.state is not State.NEW:
            raise HTTPException(409, "The synthesis of this scan has started. Drop the files again.")
        return job

    async def start(self, request: Request) -> Response:
        context = {"jobs": [j for j in self.queue.jobs.values() if j.scan], "most_bytes": self.most_bytes}
        return _page("start.html.j2", context, "")

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in STATIC:
            raise HTTPException(404, f"There is no file {name}.")
        package, kind = STATIC[name]
        return Response((files(package) / "templates" / name).read_bytes(), media_type=kind)

    async def add(self, request: Request) -> Response:
        return JSONResponse({"number": self.queue.add().number}, 201)

    async def upload(self, request: Request) -> Response:
        """Store the body of the request as a file of the job, under the name of the parameter `name`."""
        job = self._new_job(request)
        path = job.scans / uploads.stored_name(request.query_params.get("name", ""))
        limit = (
            f"More than {self.most_bytes / GB:g} GB. Remove earlier scans, or start pdsynth with a higher --most-gb."
        )
        if job.files >= uploads.MOST_FILES:
            raise HTTPException(413, f"More than {uploads.MOST_FILES} files. Drop the files of one scan.")

        def take(size: int) -> None:
            job.size += size
            if sum(each.size for each in self.queue.jobs.values()) > self.most_bytes:
                raise OverflowError

        try:
            await uploads.store(request.stream(), path, take)
        except OverflowError:
            raise HTTPException(413, limit) from None
        except FileExistsError:
            raise InputError(path, "was dropped twice", "drop the files of one folder at a time") from None
        except OSError as error:
            raise HTTPException(507, f"{path.name}: {error.strerror}. Remedy: make room on the disk.") from None
        except ClientDisconnect:
            return Response(status_code=400)
        job.files += 1
        return Response(status_code=204)

    async def scans(self, request: Request) -> Response:
        job = self._new_job(request)
        return JSONResponse(await run_in_threadpool(uploads.found_scans, job.scans))

    async def synthesise(self, request: Request) -> Response:
        """Let the job wait for its turn. Parameters: scan, a file's name; to, the modality to synthesise."""
        job, scan, to = self._new_job(request), request.query_params.get("scan", ""), request.query_params.get("to")
        names = {path.name for path in job.scans.iterdir()}
        if scan not in names or to not in list(Modality):
            raise HTTPException(400, "Choose a scan that you dropped, and the modality to synthesise, fmri or dmri.")
        self.queue.start(job, scan, Modality(to))
        return Response(status_code=202)

    async def show(self, request: Request) -> Response:
        job = self.queue.jobs.get(request.path_params["number"])
        if job is None or job.state is State.NEW:
            return RedirectResponse("../")
        if job.state is State.DONE:
            return FileResponse(job.page, media_type="text/html")
        target, last = NAMES[job.to] if job.to else "", [j.seconds for j in self.queue.jobs.values() if j.seconds]
        return _page("job.html.j2", {"job": job, "target": target, "last": last, "steps": STEPS}, "../")

    async def state(self, request: Request) -> Response:
        job = self._job(request)
        steps = job.steps
        running = job.state is State.RUNNING
        return JSONResponse(
            {
                "state": job.state,
                "ahead": self.queue.ahead(job) if job.state in (State.WAITING, State.RUNNING) else 0,
                "step": len(steps),
                "steps": STEPS,
                "words": steps[-1] if steps else "",
                "seconds": time.monotonic() - job.start_time if running else job.seconds,
                "problem": job.problem,
            }
        )

    async def download(self, request: Request) -> Response:
        job = self._job(request)
        if job.state is not State.DONE:
            raise HTTPException(409, "There is nothing to download yet.")
        return FileResponse(job.archive, media_type="application/zip", filename=job.archive.name)

    async def remove(self, request: Request) -> Response:
        self.queue.remove(self._job(request))
        return Response(status_code=204)


def _page(template: str, context: dict[str, object], base: str) -> Response:
    shared = {"version": __version__, "base": base}
    return HTMLResponse(fill(template, True, context | shared, "pdsynth.serve"))


def _answer(status: int, problem: str) -> Response:
    return JSONResponse({"problem": problem}, status)


def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _answer(error.status_code, error.detail)
