"""A TCP proxy in front of PostgreSQL: cuts connections at the worst moment, or makes every statement slow."""

import asyncio
import threading
from contextlib import suppress
from types import TracebackType

COMMIT = b"COMMIT"


class Proxy:
    """Runs in a thread of the test. `cut` is None, "before" or "after": which side of the next COMMIT loses it."""

    def __init__(self, host: str, port: int) -> None:
        self.upstream = (host, port)
        self.port = 0
        self.cut: str | None = None
        self.cuts = 0
        self.delay = 0.0
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.tasks: set[asyncio.Task[None]] = set()
        self.ends: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> "Proxy":
        self.thread.start()
        assert self.ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.server = self.loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self.server.sockets[0].getsockname()[1]
        self.ready.set()
        self.loop.run_forever()

    async def _end(self) -> None:
        self.server.close()
        for end in list(self.ends):
            end.close()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        there, back = await asyncio.open_connection(*self.upstream)
        mute, heard = asyncio.Event(), asyncio.Event()
        answers = asyncio.ensure_future(self._pass_on(there, writer, mute, heard))
        self.ends |= {writer, back}
        try:
            while data := await reader.read(1 << 16):
                if self.delay:
                    await asyncio.sleep(self.delay)
                side = self.cut if COMMIT in data else None
                if side is not None:
                    self.cut, self.cuts = None, self.cuts + 1
                if side == "before":
                    break
                if side == "after":
                    mute.set()
                back.write(data)
                await back.drain()
                if side == "after":
                    await heard.wait()  # the server has done it, and nobody is told
                    break
        except OSError:
            pass
        finally:
            answers.cancel()
            for end in (writer, back):
                end.close()
            with suppress(asyncio.CancelledError, OSError):
                await answers
            for end in (writer, back):
                with suppress(OSError, asyncio.CancelledError):
                    await end.wait_closed()
            self.ends -= {writer, back}
            self.tasks.discard(task)

    @staticmethod
    async def _pass_on(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mute: asyncio.Event, heard: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                if mute.is_set():
                    heard.set()
                    continue
                writer.write(data)
                await writer.drain()
            writer.close()
