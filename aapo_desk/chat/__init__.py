"""A run's base and tuned model answer the same question side by side: a model process behind the CLI and the screen.

request       which checkpoint, how it answers
client        the process as the CLI and the screen see it
words         tokens become text as they come
loading, conversation    the process's own side; they load torch and are imported by name

``python -m aapo_desk.chat`` speaks JSON lines on standard input and output. What it is told:

    {"run": PATH, "step": null | "best" | "last" | "20", "sides": ["base", "tuned"]}      first, once
    {"ask": ID, "text": TEXT, "temperature": 0, "top_p": 1, "max_new_tokens": null}      a question
    {"ask": ID, "own": PLACE, ...}      one of the run's own problems, by itself: what was said before is forgotten
    {"cancel": ID}      end that answer, and those to earlier questions
    {"reset": true}     forget what was said

What it says, each with a "kind":

    progress    "text": what is being loaded
    ready       "run", "name", "step", "chosen", "model", "device", "live", "context", "max_new_tokens", "problems",
                "note", "seconds"
    begun       "id", "prompt_tokens"
    piece       "id", "side", "text": more of an answer
    end         "id", "side", "text", "tokens", "seconds", "why": end | length | context | cancelled
    done        "id", "first" (seconds to the first token), "seconds"
    refused     "id", "error": this question is not answered; the next one may be
    failed      "problems" (as of a ConfigError) or "error"; the process ends

It ends when its input closes, at once: so it dies with its parent, whatever that died of.
"""

from aapo_desk.chat.client import ChatProcess, Hear, Said
from aapo_desk.chat.request import SIDES, Answering, Side

__all__ = ["SIDES", "Answering", "ChatProcess", "Hear", "Said", "Side"]
