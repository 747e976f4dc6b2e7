"""The worker, any process but rank 0: it loads the same data and model and does its share of each of rank 0's tasks."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field

import torch

from aapo_desk.config import RunConfig
from aapo_desk.evaluation.asking import ask
from aapo_desk.rollout import Row, Sampling
from aapo_desk.store import RunDirectory
from aapo_desk.training.device.execution_plan import apply
from aapo_desk.training.distributed.env import Place
from aapo_desk.training.distributed.group import Message, Ranks, Signals, init_process_group
from aapo_desk.training.ends import use_ends
from aapo_desk.training.forward import Passes
from aapo_desk.training.rollouts import sample_share
from aapo_desk.training.setup import Prepared, assembled, load

log = logging.getLogger(__name__)


def follow(run: RunDirectory, config: RunConfig, place: Place) -> None:
    """Take part in the run until rank 0 ends it. Raises RankError if rank 0 is gone or cannot be reached."""
    signals = Signals()
    signals.take()
    with init_process_group(place, config.model.device, lambda _: signals.check()) as ranks, ExitStack() as stack:
        ranks.follow(Follower(run, config, ranks, stack), lambda: signals.asked)
    log.info("%s: done", place)


@dataclass
class Follower:
    """Does this process's share of a task. Keeps no gradient or log-probability beyond the task."""

    run: RunDirectory
    config: RunConfig
    ranks: Ranks
    stack: ExitStack
    """Holds the context that ends the reward workers."""
    ready: Prepared = field(init=False)

    def __call__(self, task: str, letter: Message) -> Message:
        tasks = {
            "load": self.load,
            "sample": self.sample,
            "logps": self.logps,
            "backpropagate": self.backpropagate,
            "ask": self.ask,
        }
        return tasks[task](letter)

    def load(self, letter: Message) -> Message:
        loaded = load(self.config, self.run.start_adapter, lambda *_: None)
        choices: dict[str, int] = letter.data["choices"]
        apply(choices, loaded.policy)
        use_ends(loaded.policy, letter.data["eos_ids"])
        self.ready = self.stack.enter_context(assembled(self.config, loaded, choices, log.warning, self.ranks))
        self.ranks.use(list(loaded.policy.adapter_parameters().values()))
        return Message({"digest": loaded.digest})

    def sample(self, letter: Message) -> Message:
        said, context = letter.data, self.ready.context
        context.choices.update(said["choices"])
        return sample_share(context, said["chosen"], range(*said["own"]), said["seed"], lambda *_: None).letter()

    def logps(self, letter: Message) -> Message:
        context = self.ready.context
        found = Passes.read(context.policy, letter, context.cost).own_logps(
            letter.data["rows"], letter.data["reference"]
        )
        return Message({}, {"logps": found})

    def backpropagate(self, letter: Message) -> Message:
        context = self.ready.context
        context.optimizer.zero_grad()
        torch.manual_seed(letter.data["seed"])
        passes = Passes.read(context.policy, letter, context.cost)
        seen = passes.own_backpropagate(letter.tensors["gradient"], letter.data["rows"])
        return Message({}, {"logps": seen})

    def ask(self, letter: Message) -> Message:
        said, held_out = letter.data, self.ready.held_out
        assert held_out is not None
        answers = ask(
            self.ready.context.policy,
            held_out.problems,
            held_out.prompts,
            [Row(*row) for row in said["rows"]],
            said["max_new_tokens"],
            Sampling.of(self.config.rollout),
            letter.tensors["uniforms"],
            held_out.pool,
            said["batch_rows"],
            fixed=said["fixed"],
        )
        return Message({"answers": [asdict(answer) for answer in answers]})
