"""Chat: ask a run's base and tuned model the same question, side by side.

A model process serves the CLI and the screen.

request       the checkpoint to talk to, and how answers are sampled
client        the process as the CLI and the screen see it
words         turn tokens into text as they arrive
loading, conversation    the code inside the process; these modules load torch and are imported by name only

``python -m aapo_desk.chat`` exchanges JSON lines on standard input and output. The requests are:

    {"run": PATH, "step": null | "best" | "last" | "20", "sides": ["base", "tuned"]}      first, once
    {"ask": ID, "text": TEXT, "temperature": 0, "top_p": 1, "max_new_tokens": null}      a question
    {"ask": ID, "own": INDEX, ...}      one of the run's own problems, alone: the conversation before it is forgotten
    {"cancel": ID}      end that answer, and those to earlier questions
    {"reset": true}     forget the conversation

The replies, each with a "kind", are:

    progress    "text": what is being loaded
    ready       "run", "name", "step", "chosen", "model", "device", "live", "context", "max_new_tokens", "problems",
                "note", "seconds"
    begun       "id", "prompt_tokens"
    piece       "id", "side", "text": more of an answer
    end         "id", "side", "text", "tokens", "seconds", "why": end | length | context | cancelled
    done        "id", "first" (seconds to the first token), "seconds"
    refused     "id", "error": this question is not answered; the process accepts further questions
    failed      "problems" (those of a ConfigError) or "error"; the process ends

The process ends immediately when its input closes, so that it ends with its parent, however the parent ended.
"""

from aapo_desk.chat.client import ChatProcess, Hear, Said
from aapo_desk.chat.request import SIDES, Answering, Side

__all__ = ["SIDES", "Answering", "ChatProcess", "Hear", "Said", "Side"]
