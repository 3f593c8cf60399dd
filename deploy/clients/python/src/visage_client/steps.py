"""Operations without I/O, and their execution by a blocking and by an asynchronous client.

An operation is a generator that yields steps, such as a call, and receives their results; it is
written once. `blocking` and `iterating` turn it into a method of `Client`, `awaiting` and
`iterating_async` into one of `AsyncClient`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeAlias, TypeVar

import grpc

from . import keywords
from .errors import from_rpc

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


class Step(Protocol):
    """An action of a client."""

    def perform(self) -> Any:
        """Performs the step and blocks until its result is available."""

    async def perform_async(self) -> Any:
        """Performs the step without blocking the event loop."""


@dataclass(frozen=True)
class Emit(Generic[T]):
    """Hands an item to the caller of an iterating operation."""

    item: T


Steps: TypeAlias = Generator[Step, Any, T]
Items: TypeAlias = Generator[Step | Emit[T], Any, None]


@dataclass(frozen=True)
class Call:
    """A unary call; the result is its response."""

    method: Any
    request: Any
    timeout: float | None

    def perform(self) -> Any:
        return self.method(self.request, timeout=self.timeout)

    async def perform_async(self) -> Any:
        return await self.method(self.request, timeout=self.timeout)


@dataclass(frozen=True)
class Start:
    """A unary call that runs in the background; the result is the call, for `Wait`."""

    method: Any
    request: Any
    timeout: float | None

    def perform(self) -> Any:
        return self.method.future(self.request, timeout=self.timeout)

    async def perform_async(self) -> Any:
        return self.method(self.request, timeout=self.timeout)


@dataclass(frozen=True)
class Wait:
    """The response of a started call."""

    call: Any

    def perform(self) -> Any:
        return self.call.result()

    async def perform_async(self) -> Any:
        return await self.call


@dataclass(frozen=True)
class Read:
    """The next message of a stream; None at its end."""

    stream: Any

    def perform(self) -> Any:
        return next(self.stream, None)

    async def perform_async(self) -> Any:
        message = await self.stream.read()
        return None if message is grpc.aio.EOF else message


@dataclass(frozen=True)
class Sleep:
    """A delay in seconds."""

    seconds: float

    def perform(self) -> None:
        time.sleep(self.seconds)

    async def perform_async(self) -> None:
        await asyncio.sleep(self.seconds)


@dataclass(frozen=True)
class Blocking:
    """A function that blocks, such as reading a file. The asynchronous client runs it on a thread."""

    function: Callable[[], Any]

    def perform(self) -> Any:
        return self.function()

    async def perform_async(self) -> Any:
        return await asyncio.to_thread(self.function)


class Execution(Generic[T]):
    """A running operation: the next step, and the result after the last one."""

    def __init__(self, steps: Generator[Any, Any, T]) -> None:
        self._steps = steps
        self.has_ended = False
        self.value: Any = None

    def advance(self, result: Any, error: Exception | None) -> Any:
        """Hands the result or the error of the previous step to the operation; returns the next step, or None at the end."""
        try:
            return self._steps.send(result) if error is None else self._steps.throw(error)
        except StopIteration as end:
            self.has_ended, self.value = True, end.value
            return None

    def close(self) -> None:
        self._steps.close()


def items(steps: Generator[Any, Any, T]) -> Generator[Any, None, T]:
    """Performs an operation and yields its items; the generator returns the result of the operation."""
    execution = Execution(steps)
    result: Any = None
    error: Exception | None = None
    try:
        while True:
            step = execution.advance(result, error)
            result = error = None
            if execution.has_ended:
                value: T = execution.value
                return value
            if isinstance(step, Emit):
                yield step.item
                continue
            try:
                result = step.perform()
            except Exception as failure:
                error = translated(failure)
    finally:
        execution.close()


async def items_async(steps: Generator[Any, Any, None]) -> AsyncIterator[Any]:
    """As `items`, for operations without a result."""
    execution = Execution(steps)
    result: Any = None
    error: Exception | None = None
    try:
        while True:
            step = execution.advance(result, error)
            result = error = None
            if execution.has_ended:
                return
            if isinstance(step, Emit):
                yield step.item
                continue
            try:
                result = await step.perform_async()
            except Exception as failure:
                error = translated(failure)
    finally:
        execution.close()


def run(steps: Steps[T]) -> T:
    """Performs an operation and returns its result."""
    results: list[T] = []
    for _ in items(collected(steps, results)):
        pass
    return results[0]


async def run_async(steps: Steps[T]) -> T:
    """As `run`, without blocking the event loop."""
    results: list[T] = []
    async for _ in items_async(collected(steps, results)):
        pass
    return results[0]


def collected(steps: Steps[T], results: list[T]) -> Steps[None]:
    results.append((yield from steps))


def translated(failure: Exception) -> Exception:
    """Converts an error of gRPC to a VisageError; returns any other error unchanged."""
    if not isinstance(failure, grpc.RpcError):
        return failure
    error = from_rpc(failure)
    # It has everything that the error of gRPC has, whose text is long.
    error.__suppress_context__ = True
    return error


class Owner(Generic[S]):
    """Base of the classes with methods from operations, which receive the state as their first argument."""

    def __init__(self, state: S) -> None:
        self._state = state

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._state})"


def checked(operation: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """The operation, with the accepted keywords in the error of an unknown one."""
    parameters = list(inspect.signature(operation).parameters.values())[1:]
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return operation
    accepted = [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]

    @functools.wraps(operation)
    def function(state: S, /, *arguments: P.args, **options: P.kwargs) -> T:
        keywords.check(operation.__name__, options, accepted)
        return operation(state, *arguments, **options)
    return function


def blocking(operation: Callable[Concatenate[S, P], Steps[T]]) -> Callable[Concatenate[Owner[S], P], T]:
    """A method that performs the operation and returns its result."""
    operation = checked(operation)

    @functools.wraps(operation)
    def method(owner: Owner[S], /, *arguments: P.args, **options: P.kwargs) -> T:
        return run(operation(owner._state, *arguments, **options))
    return method


def awaiting(operation: Callable[Concatenate[S, P], Steps[T]]) -> Callable[Concatenate[Owner[S], P], Coroutine[Any, Any, T]]:
    """A coroutine method that performs the operation and returns its result."""
    operation = checked(operation)

    @functools.wraps(operation)
    async def method(owner: Owner[S], /, *arguments: P.args, **options: P.kwargs) -> T:
        return await run_async(operation(owner._state, *arguments, **options))
    return method


def iterating(operation: Callable[Concatenate[S, P], Items[T]]) -> Callable[Concatenate[Owner[S], P], Iterator[T]]:
    """A method that yields the items of the operation. It checks its arguments at the call."""
    operation = checked(operation)

    @functools.wraps(operation)
    def method(owner: Owner[S], /, *arguments: P.args, **options: P.kwargs) -> Iterator[T]:
        return items(operation(owner._state, *arguments, **options))
    return method


def iterating_async(operation: Callable[Concatenate[S, P], Items[T]]) -> Callable[Concatenate[Owner[S], P], AsyncIterator[T]]:
    """A method that yields the items of the operation, for `async for`. It checks its arguments at the call."""
    operation = checked(operation)

    @functools.wraps(operation)
    def method(owner: Owner[S], /, *arguments: P.args, **options: P.kwargs) -> AsyncIterator[T]:
        return items_async(operation(owner._state, *arguments, **options))
    return method
