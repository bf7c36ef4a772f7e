"""The requests of one trial: prompts, waves, and what has come of them so far.

Sends as many at once as were asked for, with prompts that no cache has seen. Must not know how the
server was started, nor the verdict.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace

from autotuned.core import load, quality
from autotuned.core.model import CUT_WITH_WAVE, Answers, Replicate
from autotuned.documents.events import ReplicateMeasured
from autotuned.engine.measure import chat
from autotuned.engine.measure.context import Asked, Bench
from autotuned.engine.measure.wave import Wave, send
from autotuned.host.children.process import Child
from autotuned.providers.server import Launch

DEATH_SETTLE_S = 0.05
"""A server that answers and then dies is given this long to be seen dying after its last answer."""
ANSWER_S = 120.0
"""After the gate a short answer may take this much longer."""
ANSWER_CHARACTERS = 1000
"""Of an answer so much is kept."""
SEED = 1
DECODE_ALLOWANCE_S = 600.0
"""After the gate a request may take this much longer to send the rest; the budget ends it sooner."""


class Requests:
    """What a trial has asked of its server. `replicates` are all streams, wave by wave; `last` those of the last wave."""

    def __init__(self, bench: Bench, asked: Asked, context: int, gate_ms: float) -> None:
        self.replicates: list[Replicate] = []
        self.itl_ms: list[float] = []
        self._bench, self._asked, self._gate_ms = bench, asked, gate_ms
        self._calibration = bench.calibration(asked.model, context)
        self._source = random.SystemRandom()
        self._waves = self._before = 0

    @property
    def last(self) -> list[Replicate]:
        return self.replicates[self._before :]

    @property
    def error(self) -> str | None:
        return next((one.error for one in self.last if _failed(one)), None)

    def enough(self) -> bool:
        """Whether this trial has been asked often enough; once infeasible, adapting asks no more."""
        if self._asked.settled is None:
            return self._waves >= self._asked.replicates
        if any(replicate.error is not None for replicate in self.replicates):
            return True
        return self._asked.settled(load.figures(self.replicates))

    async def warm_up(self, launch: Launch) -> Replicate:
        """Disposable requests of one token, as many as are measured at once; the one that failed, or any.

        They also teach how long this model's tokens are.
        """
        calibration, seconds = self._calibration, self._bench.settings.ready_timeout_s
        source = self._source if self._asked.concurrency > 1 else None
        while True:
            prompts = [calibration.warmup_prompt(source) for _ in range(self._asked.concurrency)]
            found = await send(
                [self._request(launch, prompt, 1) for prompt in prompts],
                gate_ttft_ms=seconds * 1000,
                timeout_s=seconds,
                stop_tokens=(),
            )
            answer = next(filter(_failed, found.replicates), found.replicates[0])
            if not (chat.refused_for_length(answer) and calibration.may_shrink(len(prompts[0]))):
                break
        calibration.learn(len(prompts[0]), answer.prompt_tokens)
        return answer

    async def wave(self, launch: Launch, stop_tokens: Sequence[str], child: Child) -> None:
        """One more replicate: requests sent at once, with prompts of the right length that no cache has seen.

        Repeated once when the server answered from its prompt cache all the same, and once a model
        when the very first prompt missed its length and the miss has taught how to hit it.
        """
        found = await self._wave_once(launch, stop_tokens)
        if _whole(found) and self._calibration.should_repeat(found.replicates[0].prompt_tokens):
            await settled(child, DEATH_SETTLE_S)
            if child.exit_code is None:
                found = await self._wave_once(launch, stop_tokens)
        if _whole(found) and _from_cache(found):
            found = await self._wave_once(launch, stop_tokens)
            if _whole(found) and _from_cache(found):
                found = replace(found, replicates=tuple(map(_not_cached, found.replicates)))
        self._waves += 1
        self._before = len(self.replicates)
        number = self._waves if self._asked.concurrency > 1 else None
        self.replicates += [replace(one, wave=number) for one in found.replicates]
        self.itl_ms += found.itl_ms

    def close_wave(self, error: str | None, *, alive: bool) -> None:
        """Note whether the server lived on after the last wave, and publish it; `error` says why it failed."""
        self.replicates[self._before :] = [
            replace(
                one, alive_after=alive, error=error if _failed(one) and not alive else one.error
            )
            for one in self.last
        ]
        one = self.last[0]
        if len(self.last) > 1:
            ttft_ms, tps = load.ttft_p95_ms(self.last), load.aggregate_tps(self.last)
            one = Replicate(error=error, ttft_ms=ttft_ms, tps=tps, prompt_tokens=one.prompt_tokens)
        measured: ReplicateMeasured = {
            "type": "replicate",
            **self._asked.named(),
            "index": self._waves,
            "total": max(self._waves, self._asked.replicates),
            "ttft_ms": one.ttft_ms,
            "tps": one.tps,
            "decode_tps": one.decode_tps,
            "prefill_tps": one.prefill_tps,
            "prompt_tokens": one.prompt_tokens,
            "error": one.error,
        }
        self._bench.publish(measured)

    async def battery(self, launch: Launch, child: Child) -> Answers:
        """The answers to every question of the quality guard, asked one after the other."""
        answers: list[str | None] = []
        for question in quality.battery():
            prompt = question.prompt
            if question.needles:
                prompt = quality.long_prompt(question, self._calibration.haystack())
            request = self._request(launch, prompt, question.max_tokens)
            found = await send(
                [replace(request, seed=SEED)],
                gate_ttft_ms=self._gate_ms,
                timeout_s=self._gate_ms / 1000 + ANSWER_S,
                stop_tokens=(),
            )
            text = None if found.replicates[0].error is not None else found.texts[0]
            answers.append(None if text is None else self._bench.mask(text)[:ANSWER_CHARACTERS])
            if child.exit_code is not None:
                break
        return (*answers, *[None] * (len(quality.battery()) - len(answers)))

    async def _wave_once(self, launch: Launch, stop_tokens: Sequence[str]) -> Wave:
        """One wave that counts: a prompt refused for its length teaches, and a shorter one follows."""
        calibration, asked = self._calibration, self._asked
        streams, late = asked.replicates * asked.concurrency, 0
        if asked.concurrency > 1:
            late = load.late_allowed(streams, self.replicates, self._gate_ms)
        while True:
            prompts = [calibration.prompt(self._source) for _ in range(asked.concurrency)]
            most = self._bench.settings.max_tokens
            found = await send(
                [self._request(launch, prompt, most) for prompt in prompts],
                gate_ttft_ms=self._gate_ms,
                timeout_s=self._gate_ms / 1000 + DECODE_ALLOWANCE_S,
                stop_tokens=stop_tokens,
                late_allowed=late,
            )
            refused = any(map(chat.refused_for_length, found.replicates))
            if not (refused and calibration.may_shrink(len(prompts[0]))):
                break
        known = next((one.prompt_tokens for one in found.replicates if one.prompt_tokens), None)
        calibration.learn(len(prompts[0]), known)
        masked = (
            one if one.error is None else replace(one, error=self._bench.mask(one.error))
            for one in found.replicates
        )
        return replace(found, replicates=tuple(masked))

    def _request(self, launch: Launch, prompt: str, max_tokens: int) -> chat.ChatRequest:
        return chat.ChatRequest(
            url=f"http://127.0.0.1:{launch.port}/v1/chat/completions",
            model=self._bench.provider.request_model(launch),
            prompt=prompt,
            max_tokens=max_tokens,
        )


async def settled(child: Child, seconds: float) -> None:
    """Wait for the end of the server, at most so long."""
    try:
        async with asyncio.timeout(seconds):
            await child.exited()
    except TimeoutError:
        return


def _failed(one: Replicate) -> bool:
    """Whether this stream has failed by itself, not with its wave."""
    return one.error is not None and one.error != CUT_WITH_WAVE


def _whole(found: Wave) -> bool:
    return all(one.error is None for one in found.replicates)


def _from_cache(found: Wave) -> bool:
    return any(map(chat.served_from_cache, found.replicates))


def _not_cached(one: Replicate) -> Replicate:
    if not chat.served_from_cache(one):
        return one
    cached = f"{one.cached_tokens} of {one.prompt_tokens} prompt tokens"
    return replace(one, error=f"{cached} came from the prompt cache")
