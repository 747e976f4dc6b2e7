"""The process group of a run: how its processes find each other, and the messages between them.

Rank 0 leads. The others wait for a task, do their share of it, answer, and wait again. So they need not be told what
rank 0 decides between two tasks: a pause, a stop, a checkpoint, another attempt with less at once. They keep no state
of the run: every task brings rank 0's current adapter, and only rank 0 has an optimiser's state.

Messages are JSON and tensors. A task is announced in the rendezvous store, where waiting has no timeout; everything
else goes through torch.distributed: gloo on the CPU, nccl for the adapter and its gradients on GPUs.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from aapo_desk.models.room import ran_out
from aapo_desk.rollout import CaptureError
from aapo_desk.training.distributed.env import Place, RankError

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

T = TypeVar("T")

log = logging.getLogger(__name__)

MEETING = timedelta(minutes=10)
"""How long the processes wait for each other at the start."""
PATIENCE = timedelta(minutes=30)
"""How long a process waits for another's share of a task. A process that has ended is noticed at once."""
LEAVING_SECONDS = 10.0
POLL_SECONDS = 0.005

DTYPES = {str(dtype): dtype for dtype in (torch.float32, torch.float64, torch.int64, torch.bool)}

SUM, END = "sum", "end"
"""Tasks that this module handles itself."""


@dataclass(frozen=True)
class Message:
    """A message between two processes. Its tensors are on the CPU and have one of the ``DTYPES``."""

    data: dict[str, Any] = field(default_factory=dict)
    """Values that JSON can represent."""
    tensors: dict[str, Tensor] = field(default_factory=dict)


class Ranks:
    """All processes of a run, as one of them sees them. With a single process, every method does its own part only."""

    def __init__(self, place: Place, store: Store | None = None) -> None:
        self.place = place
        self.size = place.size
        self._store = store
        self.weights: Sequence[nn.Parameter] = ()
        self._tasks = 0
        self._broken = False

    def use(self, weights: Sequence[nn.Parameter]) -> None:
        """Set the weights that every task copies from rank 0 to the other processes."""
        self.weights = list(weights)

    def slices(self, count: int) -> list[range]:
        """Divide the indices below ``count`` into one range per process; the first ranges may be longer by one."""
        even, more = divmod(count, self.size)
        starts = [rank * even + min(rank, more) for rank in range(self.size + 1)]
        return [range(start, end) for start, end in pairwise(starts)]

    # What rank 0 does

    def run_on_all_ranks(
        self, task: str, letters: Sequence[Message], work: Callable[[], T], read: Callable[[Message], T]
    ) -> list[T]:
        """Run a task on all processes and return their results by rank.

        ``letters`` are the messages to the other processes, ``work`` does this process's share, and ``read`` converts
        an answer to a result. Every answer is waited for, even if a share fails, so that all processes are ready for
        another task. Raises what ``work`` raises; OutOfMemoryError if another process ran out of memory; CaptureError
        if another cannot capture its decode step; RankError if another failed otherwise or is gone.
        """
        if self.size == 1:
            return [work()]
        self._announce(task, letters)
        try:
            mine = work()
        finally:
            answers = [self._hear(rank) for rank in range(1, self.size)]
        for rank, answer in enumerate(answers, start=1):
            if line := answer.data.get("failed"):
                said = f"process {rank} of {self.size} on {answer.data['host']}: {line}"
                errors = {"memory": torch.OutOfMemoryError, "capture": CaptureError}
                raise errors.get(answer.data["kind"], RankError)(said)
        return [mine, *map(read, answers)]

    def sum_gradients(self) -> None:
        """Replace rank 0's gradients of the adapter by the sum over all processes; a missing gradient counts as 0."""
        if self.size > 1:
            self._announce(SUM, [Message()] * (self.size - 1))
            self._reduce()

    def end(self) -> None:
        """Tell the others to end, and wait up to ``LEAVING_SECONDS`` until they have received it."""
        if self.size == 1 or self._broken:
            return
        assert self._store is not None
        self._store.set(f"task/{self._tasks}", END)
        deadline = time.monotonic() + LEAVING_SECONDS
        while self._store.add("left", 0) < self.size - 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        dist.destroy_process_group()

    def _announce(self, task: str, letters: Sequence[Message]) -> None:
        assert self._store is not None
        with self._gone("the others"):
            self._store.set(f"task/{self._tasks}", task)
            self._store.delete_key(f"task/{self._tasks - 2}")  # the last one may be a sum not yet read
            self._tasks += 1
            for rank, letter in enumerate(letters, start=1):
                _send(letter, rank)
            if task != SUM:
                self._share_weights()

    def _hear(self, rank: int) -> Message:
        with self._gone(f"process {rank} of {self.size}"):
            return _receive(rank)

    @contextmanager
    def _gone(self, who: str) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            self._broken = True
            reason = next(iter(str(error).splitlines()), "")[:200]
            raise RankError(
                f"{who} can no longer be reached ({reason}); see the processes' own output. Resuming continues "
                "from the last checkpoint, with any number of processes"
            ) from error

    # What the others do

    def follow(self, handle: Callable[[str, Message], Message], asked_to_end: Callable[[], bool]) -> None:
        """Do this process's share of each task until rank 0 ends the run. ``handle`` returns the answer to a task.

        An exception from ``handle`` is reported to rank 0, which decides. Raises RankError if rank 0 is gone, or if
        ``asked_to_end`` returns True and rank 0 has no task for this process.
        """
        with self._gone("process 0, which leads,"):
            while (task := self._next_task(asked_to_end)) != END:
                letter = _receive(0)
                if task == SUM:
                    self._reduce()
                    continue
                self._share_weights()
                _send(answered(task, letter, handle), 0)
            assert self._store is not None
            self._store.add("left", 1)
        dist.destroy_process_group()

    def _next_task(self, asked_to_end: Callable[[], bool]) -> str:
        assert self._store is not None
        name = f"task/{self._tasks}"
        asked = 0.0
        while not self._store.check([name]):  # raises if the store is gone; a wait would log every time-out
            if asked_to_end():
                asked = asked or time.monotonic()
                if time.monotonic() - asked > LEAVING_SECONDS:
                    raise RuntimeError("this process was asked to end and has no task")
            time.sleep(POLL_SECONDS)
        self._tasks += 1
        return bytes(self._store.get(name)).decode()

    # What both do

    def _share_weights(self) -> None:
        """Broadcast rank 0's adapter to all processes, as one flat tensor."""
        if not self.weights:
            return
        flat = torch.cat([weight.detach().reshape(-1) for weight in self.weights])
        dist.broadcast(flat, 0)
        if self.place.rank:
            with torch.no_grad():
                for weight, value in zip(self.weights, _pieces(flat, self.weights), strict=True):
                    weight.copy_(value)

    def _reduce(self) -> None:
        grads = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in self.weights]
        flat = torch.cat([grad.reshape(-1) for grad in grads])
        dist.reduce(flat, 0)
        if not self.place.rank:
            for weight, value in zip(self.weights, _pieces(flat, self.weights), strict=True):
                weight.grad = value.clone()


ALONE = Ranks(Place())


def _pieces(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = flat.split([weight.numel() for weight in like])
    return [part.view_as(weight) for part, weight in zip(parts, like, strict=True)]


def answered(task: str, letter: Message, handle: Callable[[str, Message], Message]) -> Message:
    """Return what ``handle`` returns, or a message that says how it failed."""
    try:
        return handle(task, letter)
    except Exception as error:  # rank 0 decides what happens next
        log.exception("this process's share of the task %s failed", task)
        line = next(iter(str(error).splitlines()), "") or type(error).__name__
        kind = "memory" if ran_out(error) else "capture" if isinstance(error, CaptureError) else "other"
        return Message({"failed": f"{task}: {line}", "kind": kind, "host": socket.gethostname()})


def _send(letter: Message, rank: int) -> None:
    shapes = {name: [str(value.dtype), list(value.shape)] for name, value in letter.tensors.items()}
    text = json.dumps({"data": letter.data, "tensors": shapes}).encode()
    dist.send(torch.tensor([len(text)]), rank)
    dist.send(torch.frombuffer(bytearray(text), dtype=torch.uint8), rank)
    for value in letter.tensors.values():
        if value.numel():
            dist.send(_bytes(value.contiguous()), rank)


def _receive(rank: int) -> Message:
    size = torch.zeros(1, dtype=torch.int64)
    dist.recv(size, rank)
    text = torch.empty(int(size), dtype=torch.uint8)
    dist.recv(text, rank)
    said = json.loads(text.numpy().tobytes())
    tensors = {name: torch.empty(shape, dtype=DTYPES[dtype]) for name, (dtype, shape) in said["tensors"].items()}
    for value in tensors.values():
        if value.numel():
            dist.recv(_bytes(value), rank)
    return Message(said["data"], tensors)


def _bytes(value: Tensor) -> Tensor:
    """Return a view of the same memory as bytes, a type that every backend can send."""
    return value.view(-1).view(torch.uint8)


@contextmanager
def init_process_group(place: Place, device: str, said: Callable[[str], None]) -> Iterator[Ranks]:
    """Wait for all processes of the run and yield them; rank 0 ends the others with the context.

    ``device`` is ``model.device``: each process uses the GPU of its local rank. ``said`` is called with a message while
    processes are missing, and may raise. Raises RankError if not all processes arrive or there is no such GPU.
    """
    if place.size == 1:
        yield ALONE
        return
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        _take_gpu(place)
    if place.one_host:  # other hosts should not be able to connect
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, "lo")
    try:
        store = dist.PrefixStore(  # type: ignore[attr-defined]
            f"aapo-desk/{place.attempt}", _meeting_place(place)
        )
        _wait_for_all(store, place, said)
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.size, timeout=PATIENCE)
    except (RuntimeError, OSError) as error:
        if isinstance(error, RankError):
            raise
        reason = next(iter(str(error).splitlines()), "")[:200]
        raise RankError(f"{place} cannot join the others at {place.address}:{place.port}: {reason}") from error
    ranks = Ranks(place, store)
    try:
        yield ranks
    finally:
        if place.rank == 0:
            ranks.end()


def _take_gpu(place: Place) -> None:
    count = torch.cuda.device_count()
    if place.local_rank >= count:
        raise RankError(
            f"{place} needs GPU {place.local_rank}, but this host has {count}: start at most as many processes on a "
            "host as it has GPUs"
        )
    torch.cuda.set_device(place.local_rank)


def _meeting_place(place: Place) -> Store:
    """Return the rendezvous store. If the launcher serves none, rank 0 does, and listens only on a loopback address if
    that is the configured one."""
    leads = place.rank == 0 and not place.hosted
    listener = socket.create_server((place.address, place.port)).detach() if leads and place.loopback else None
    return dist.TCPStore(  # type: ignore[attr-defined]
        place.address,
        place.port,
        is_master=leads,
        timeout=MEETING,
        wait_for_workers=False,
        master_listen_fd=listener,
    )


def _wait_for_all(store: Store, place: Place, said: Callable[[str], None]) -> None:
    store.add("here", 1)
    deadline = time.monotonic() + MEETING.total_seconds()
    while (here := store.add("here", 0)) < place.size:
        said(f"waiting for the other processes: {here} of {place.size} have started")
        if time.monotonic() > deadline:
            raise RankError(
                f"only {here} of {place.size} processes started within {MEETING.total_seconds():.0f} s: start the "
                "missing ones, then resume"
            )
        time.sleep(0.05)


@dataclass
class Signals:
    """Handles SIGTERM and SIGINT in processes other than rank 0, which gets them too and decides about the run."""

    asked: bool = False

    def take(self) -> None:
        """Install the signal handlers."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def check(self) -> None:
        """Raise RankError if a signal has asked this process to end."""
        if self.asked:
            raise RankError("this process was asked to end before the run began")

    def _note(self, *_: object) -> None:
        self.asked = True
